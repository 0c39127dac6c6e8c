"""Average pooling to a size along one axis of arrays (outer, pixels, inner), row by row of the result."""

from __future__ import annotations

import numpy as np
from numba import int64

from ..parallel import share_out
from .atomic import COUNTER, take
from .jit import NUMBER, apart_loop, compiled_pass, read, write
from .pieces import fill, part

_BLOCK = 32 * 1024  # elements of the larger array
_LEAST = 4  # blocks that are worth another thread


def forward(x: np.ndarray, y: np.ndarray, first: np.ndarray, end: np.ndarray, share: np.ndarray) -> None:
    """Fill y with the sums of x over windows from first to end, times their share."""
    _in_blocks(_forward, x, y, first, end, share)


def backward(dy: np.ndarray, dx: np.ndarray, first: np.ndarray, end: np.ndarray, share: np.ndarray) -> None:
    """Fill dx with the sums of dy, times its share, over the entries from first to end, which lie over a pixel."""
    _in_blocks(_backward, dy, dx, first, end, share)


def _in_blocks(run, values, total, first, end, share):
    """Call a pass on blocks of so many rows of the result."""
    rows = total.shape[0] * total.shape[1]
    size = max(1, _BLOCK * rows // max(values.size, total.size, 1))
    share_out(lambda counter: run(counter, size, values, total, first, end, share), -(-rows // size), _LEAST)


@apart_loop
def _add(total, values):
    for i in range(len(total)):
        total[i] += values[i]


@apart_loop
def _add_share(total, values, share):
    for i in range(len(total)):
        total[i] += values[i] * share


@apart_loop
def _scale(total, share):
    for i in range(len(total)):
        total[i] *= share


_ARGUMENTS = COUNTER, NUMBER, read(3), write(3), read(1, int64), read(1, int64), read(1)


@compiled_pass(*_ARGUMENTS)
def _forward(counter, size, x, y, first, end, share):
    H, B = x.shape[1:]
    P = y.shape[1]
    rows = y.shape[0] * P
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        for row in range(start, min(start + size, rows)):
            p, image = row % P, row // P * H
            out = part(y, row * B, B)
            fill(out, 0)
            if B == 1:
                pixels, total = part(x, image + first[p], end[p] - first[p]), out[0]
                for i in range(len(pixels)):
                    total += pixels[i]
                out[0] = total
            else:
                for i in range(first[p], end[p]):
                    _add(out, part(x, (image + i) * B, B))
            _scale(out, share[p])


@compiled_pass(*_ARGUMENTS)
def _backward(counter, size, dy, dx, first, end, share):
    P, B = dy.shape[1:]
    H = dx.shape[1]
    rows = dx.shape[0] * H
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        for row in range(start, min(start + size, rows)):
            i, image = row % H, row // H * P
            out = part(dx, row * B, B)
            fill(out, 0)
            for p in range(first[i], end[i]):
                _add_share(out, part(dy, (image + p) * B, B), share[p])
