"""Sigmoid linear unit, block by block: in one pass, with an exponential that becomes vectors."""

from __future__ import annotations

from numba import float32

from .atomic import COUNTER, blocks
from .exponential import exponential
from .jit import NUMBER, compiled_pass, read, write

BLOCK = 64 * 1024
_ONE, _ZERO = float32(1), float32(0)


@compiled_pass(read(1), write(1), NUMBER, COUNTER)
def forward(x, y, block, counter):
    for part in blocks(counter, len(y), block):
        source, target = x[part], y[part]
        for i in range(len(target)):
            v = source[i]
            small = exponential(-abs(v))
            target[i] = v * ((small if v < _ZERO else _ONE) / (_ONE + small))


@compiled_pass(read(1), read(1), write(1), NUMBER, COUNTER)
def backward(dy, x, dx, block, counter):
    for part in blocks(counter, len(dx), block):
        upstream, source, target = dy[part], x[part], dx[part]
        for i in range(len(target)):
            v = source[i]
            small = exponential(-abs(v))
            share, rest = _ONE / (_ONE + small), small / (_ONE + small)
            likely = rest if v < _ZERO else share
            target[i] = upstream[i] * (likely + v * (share * rest))
