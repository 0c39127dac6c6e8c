"""Leaky rectified linear unit, block by block.

Products are float64 and rounded once: what float32 would give where it holds the factor, and right where it does not.
"""

from __future__ import annotations

from numba import float32, float64, types

from .atomic import COUNTER, blocks
from .jit import NUMBER, compiled_pass, read, write

BLOCK = 256 * 1024  # less is done before another thread has begun


@compiled_pass(read(1), write(1), types.float64, NUMBER, COUNTER)
def forward(x, y, factor, block, counter):
    for part in blocks(counter, len(y), block):
        source, target = x[part], y[part]
        for i in range(len(target)):
            target[i] = source[i] if source[i] > 0 else float32(float64(source[i]) * factor)


@compiled_pass(read(1), read(1), write(1), types.float64, NUMBER, COUNTER)
def backward(dy, y, dx, factor, block, counter):
    for part in blocks(counter, len(y), block):
        upstream, result, target = dy[part], y[part], dx[part]
        for i in range(len(target)):
            target[i] = upstream[i] if result[i] > 0 else float32(float64(upstream[i]) * factor)
