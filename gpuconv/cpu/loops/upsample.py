"""Upsampling: rows of a result are made at once, first of those that lie over one another, then along them.

Arrays are (outer, D, H, W, inner).
"""

from __future__ import annotations

from math import prod

import numpy as np
from numba import int64, types

from ..parallel import scratch, share_out
from ..resampling import Taps
from .atomic import COUNTER, take
from .jit import NUMBER, apart_loop, compiled_pass, read, write
from .pieces import part

_BLOCK = 32 * 1024  # elements of the larger array
_LEAST = 4  # blocks that are worth another thread
_FLOAT32 = np.dtype(np.float32)


def repeat(x: np.ndarray, y: np.ndarray) -> None:
    """Fill y with the pixels of x, each as often along an axis as y is longer."""
    rows = prod(x.shape[:3])
    size = max(1, _BLOCK // max(1, y.size // max(1, rows)))
    share_out(lambda counter: _repeat(counter, size, x, y), -(-rows // size), _LEAST)


def weigh(x: np.ndarray, y: np.ndarray, axes: tuple[Taps, ...]) -> None:
    """Fill y with sums of x, by what makes a result along each of D, H and W."""
    rows = prod(y.shape[:3])
    first, terms, weights = zip(*axes, strict=True)
    size = max(1, _BLOCK // max(1, max(x.size, y.size) // max(1, rows)))
    length = x.shape[3] * x.shape[4]

    def work(counter: np.ndarray) -> None:
        _weigh(counter, size, x, y, first, terms, weights, scratch("line", (length,), _FLOAT32))

    share_out(work, -(-rows // size), _LEAST)


@apart_loop
def _copy(source, target):
    for i in range(len(source)):
        target[i] = source[i]


@apart_loop
def _copy_times(source, weight, target):
    for i in range(len(source)):
        target[i] = source[i] * weight


@apart_loop
def _add_times(source, weight, target):
    for i in range(len(source)):
        target[i] += source[i] * weight


@apart_loop
def _double(source, target):
    for i in range(len(source)):
        target[2 * i] = source[i]
        target[2 * i + 1] = source[i]


@compiled_pass(COUNTER, NUMBER, read(5), write(5))
def _repeat(counter, size, x, y):
    """Each row of x to all rows of y that are made of it."""
    outer, D, H, W, C = x.shape
    Z, P, Q = y.shape[1:4]
    deep, down, across = Z // D, P // H, Q // W
    rows = outer * D * H
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        for row in range(start, min(start + size, rows)):
            source = part(x, row * W * C, W * C)
            top = (row // H * deep * P + row % H * down) * Q * C
            target = part(y, top, Q * C)
            if across == 1:
                _copy(source, target)
            elif across == 2 and C == 1:
                _double(source, target)
            elif C == 1:
                for w in range(W):
                    value = source[w]
                    for q in range(across):
                        target[w * across + q] = value
            else:
                for q in range(Q):
                    _copy(part(source, q // across * C, C), part(target, q * C, C))
            for o in range(deep):
                for p in range(down):
                    if o + p > 0:
                        _copy(target, part(y, top + (o * P + p) * Q * C, Q * C))


@apart_loop
def _between(line, first, terms, weights, target):
    """Results along a line of one or two neighbours each."""
    for q in range(len(target)):
        near = line[first[q]] * weights[2 * q]
        far = line[first[q] + terms[q] - 1] * weights[2 * q + 1]
        target[q] = near + far if terms[q] == 2 else near


@apart_loop
def _along(line, first, terms, weights, most, target):
    """Results along a line of any number of neighbours."""
    for q in range(len(target)):
        total = line[first[q]] * weights[most * q]
        for tap in range(1, terms[q]):
            total += line[first[q] + tap] * weights[most * q + tap]
        target[q] = total


_THREE = types.UniTuple(read(1, int64), 3)


@compiled_pass(COUNTER, NUMBER, read(5), write(5), _THREE, _THREE, types.UniTuple(read(2), 3), write(1))
def _weigh(counter, size, x, y, first, terms, weights, line):
    """Each row of y of rows of x, added up in `line`, and of what lies side by side there."""
    D, H, W, C = x.shape[1:]
    outer, Z, P, Q = y.shape[:4]
    rows, most = outer * Z * P, weights[2].shape[1]
    firsts, lengths = part(first[2], 0, Q), part(terms[2], 0, Q)
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        for row in range(start, min(start + size, rows)):
            p, o, i = row % P, row // P % Z, row // (P * Z)
            begun = False
            for a in range(terms[0][o]):
                for b in range(terms[1][p]):
                    source = part(x, ((i * D + first[0][o] + a) * H + first[1][p] + b) * W * C, W * C)
                    weight = weights[0][o, a] * weights[1][p, b]
                    if begun:
                        _add_times(source, weight, line)
                    else:
                        _copy_times(source, weight, line)
                    begun = True
            target = part(y, row * Q * C, Q * C)
            if C == 1:
                flat = part(weights[2], 0, Q * most)
                if most == 2:
                    _between(line, firsts, lengths, flat, target)
                else:
                    _along(line, firsts, lengths, flat, most, target)
                continue
            for q in range(Q):
                out, at = part(target, q * C, C), first[2][q]
                _copy_times(part(line, at * C, C), weights[2][q, 0], out)
                for tap in range(1, terms[2][q]):
                    _add_times(part(line, (at + tap) * C, C), weights[2][q, tap], out)
