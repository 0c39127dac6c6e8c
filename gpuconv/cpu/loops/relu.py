"""Rectified linear unit, block by block."""

from __future__ import annotations

from .atomic import COUNTER, blocks
from .jit import NUMBER, compiled_pass, read, write

BLOCK = 256 * 1024  # less is done before another thread has begun


@compiled_pass(read(1), write(1), NUMBER, COUNTER)
def forward(x, y, block, counter):
    zero = x.dtype.type(0)
    for part in blocks(counter, len(y), block):
        source, target = x[part], y[part]
        for i in range(len(target)):
            target[i] = zero if source[i] <= zero else source[i]  # NaN stays


@compiled_pass(read(1), read(1), write(1), NUMBER, COUNTER)
def backward(dy, y, dx, block, counter):
    zero = dy.dtype.type(0)
    for part in blocks(counter, len(y), block):
        upstream, result, target = dy[part], y[part], dx[part]
        for i in range(len(target)):
            target[i] = upstream[i] if result[i] > zero else zero
