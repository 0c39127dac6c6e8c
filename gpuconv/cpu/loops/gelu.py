"""Gaussian error linear unit, block by block: in one pass, with an exponential that becomes vectors."""

from __future__ import annotations

import math

from numba import float32, types

from .atomic import COUNTER, blocks
from .exponential import exponential
from .jit import NUMBER, compiled_pass, loop, read, write

BLOCK = 64 * 1024
_TAIL = types.UniTuple(types.float32, 12)
_TANH_SCALE = float32(math.sqrt(2 / math.pi))
_TANH_CUBIC = float32(0.044715)
_DENSITY = float32(1 / math.sqrt(2 * math.pi))
_ZERO_BEYOND = float32(40.0)  # exp(-a^2 / 2) is 0 from there on, and infinity would make NaN
_INFINITY = float32(math.inf)
_NAN = float32(math.nan)

_ONE, _TWO, _HALF, _ZERO = float32(1), float32(2), float32(0.5), float32(0)


@loop
def _tail(size, tail):
    """Return Q(size) exp(size^2 / 2): a polynomial, see erf.py."""
    t = _ONE - _TWO * tail[0] / (size + tail[0])
    low = (((tail[1] * t + tail[2]) * t + tail[3]) * t + tail[4]) * t + tail[5]
    low = (((low * t + tail[6]) * t + tail[7]) * t + tail[8]) * t + tail[9]
    return (low * t + tail[10]) * t + tail[11]


@compiled_pass(read(1), write(1), _TAIL, NUMBER, COUNTER)
def forward(x, y, tail, block, counter):
    for part in blocks(counter, len(y), block):
        source, target = x[part], y[part]
        for i in range(len(target)):
            v = source[i]
            size = abs(v)
            size = _ZERO_BEYOND if size > _ZERO_BEYOND else size
            lower = _tail(size, tail) * exponential(size * size * -_HALF) * size
            upper = _ZERO if v <= _ZERO else v
            target[i] = _NAN if v == -_INFINITY else upper - lower


@compiled_pass(read(1), read(1), write(1), _TAIL, NUMBER, COUNTER)
def backward(dy, x, dx, tail, block, counter):
    for part in blocks(counter, len(dx), block):
        upstream, source, target = dy[part], x[part], dx[part]
        for i in range(len(target)):
            v = source[i]
            size = abs(v)
            size = _ZERO_BEYOND if size > _ZERO_BEYOND else size
            r = (_tail(size, tail) - size * _DENSITY) * exponential(size * size * -_HALF)
            slope = r if v < _ZERO else _ONE - r
            target[i] = _NAN if abs(v) == _INFINITY else slope * upstream[i]


@compiled_pass(read(1), write(1), NUMBER, COUNTER)
def forward_tanh(x, y, block, counter):
    for part in blocks(counter, len(y), block):
        source, target = x[part], y[part]
        for i in range(len(target)):
            v = source[i]
            u = _TANH_SCALE * (v + _TANH_CUBIC * v * v * v)
            target[i] = v * (_ONE / (_ONE + exponential(-_TWO * u)))  # (1 + tanh u) / 2


@compiled_pass(read(1), read(1), write(1), NUMBER, COUNTER)
def backward_tanh(dy, x, dx, block, counter):
    for part in blocks(counter, len(dx), block):
        upstream, source, target = dy[part], x[part], dx[part]
        for i in range(len(target)):
            v = source[i]
            u = _TANH_SCALE * (v + _TANH_CUBIC * v * v * v)
            s = _ONE / (_ONE + exponential(-_TWO * u))
            slope = _TWO * _TANH_SCALE * (_ONE + float32(3) * _TANH_CUBIC * v * v)
            target[i] = upstream[i] * (s + v * (s * (_ONE - s)) * slope)
