"""Average pooling to a size along one axis of arrays (outer, pixels, inner): row by row, or by single values where inner = 1.

A sum is taken in runs of `run` rows, which are added up: see runs.py.
"""

from __future__ import annotations

import numpy as np
from numba import float32, float64, int64

from ..parallel import scratch, share_out
from ..runs import FEW, run_length
from .atomic import COUNTER, take
from .jit import NUMBER, apart_loop, compiled_pass, read, summing_loop, write
from .pieces import fill, part

_BLOCK = 32 * 1024  # elements of the larger array
_LEAST = 4  # blocks that are worth another thread


def forward(x: np.ndarray, y: np.ndarray, first: np.ndarray, end: np.ndarray, share: np.ndarray) -> None:
    """Fill y with the sums of x over windows from first to end, times their share."""
    _in_blocks(_forward_singles if x.shape[2] == 1 else _forward_rows, x, y, first, end, share)


def backward(dy: np.ndarray, dx: np.ndarray, first: np.ndarray, end: np.ndarray, share: np.ndarray) -> None:
    """Fill dx with the sums of dy, times its share, over the entries from first to end, which lie over a pixel."""
    _in_blocks(_backward_singles if dy.shape[2] == 1 else _backward_rows, dy, dx, first, end, share)


def _in_blocks(run, values, total, first, end, share):
    """Call a pass on blocks of so many rows of the result, or of all its rows with one outer index."""
    outer, pixels, inner = total.shape
    rows = outer if inner == 1 else outer * pixels
    size = max(1, _BLOCK * rows // max(values.size, total.size, 1))
    most = run_length(int((end - first).max()))

    def work(counter: np.ndarray) -> None:
        run(counter, size, values, total, first, end, share, most, scratch("run", (inner,), total.dtype))

    share_out(work, -(-rows // size), _LEAST)


@apart_loop
def _add(total, values):
    for i in range(len(total)):
        total[i] += values[i]


@apart_loop
def _add_both(total, a, b):
    for i in range(len(total)):
        total[i] += a[i] + b[i]


@apart_loop
def _add_share(total, values, share):
    for i in range(len(total)):
        total[i] += values[i] * share


@apart_loop
def _scale(total, share):
    for i in range(len(total)):
        total[i] *= share


@summing_loop
def _sum(values):
    total = 0.0
    for i in range(len(values)):
        total += float64(values[i])
    return total


@summing_loop
def _sum_of_shares(values, share):
    total = 0.0
    for i in range(len(values)):
        total += float64(values[i]) * float64(share[i])
    return total


_ARGUMENTS = (
    *(COUNTER, NUMBER, read(3), write(3), read(1, int64), read(1, int64), read(1)),
    *(NUMBER, write(1)),
)


@compiled_pass(*_ARGUMENTS)
def _forward_rows(counter, size, x, y, first, end, share, most, line):
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
            for begin in range(first[p], end[p], most):
                last = min(begin + most, end[p])
                alone = last - begin == end[p] - first[p]
                run = out if alone else line
                if not alone:
                    fill(run, 0)
                i = begin
                while i + 1 < last:
                    _add_both(run, part(x, (image + i) * B, B), part(x, (image + i + 1) * B, B))
                    i += 2
                if i < last:
                    _add(run, part(x, (image + i) * B, B))
                if not alone:
                    _add(out, run)
            _scale(out, share[p])


@compiled_pass(*_ARGUMENTS)
def _backward_rows(counter, size, dy, dx, first, end, share, most, line):
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
            for begin in range(first[i], end[i], most):
                last = min(begin + most, end[i])
                alone = last - begin == end[i] - first[i]
                run = out if alone else line
                if not alone:
                    fill(run, 0)
                for p in range(begin, last):
                    _add_share(run, part(dy, (image + p) * B, B), share[p])
                if not alone:
                    _add(out, run)


@compiled_pass(*_ARGUMENTS)
def _forward_singles(counter, size, x, y, first, end, share, most, line):
    outer, H, _ = x.shape
    P = y.shape[1]
    while True:
        start = take(counter) * size
        if start >= outer:
            return
        for row in range(start, min(start + size, outer)):
            pixels, out = part(x, row * H, H), part(y, row * P, P)
            for p in range(P):
                if end[p] - first[p] > FEW:
                    out[p] = float32(_sum(part(x, row * H + first[p], end[p] - first[p]))) * share[p]
                    continue
                total = pixels[first[p]]
                for i in range(first[p] + 1, end[p]):
                    total += pixels[i]
                out[p] = total * share[p]


@compiled_pass(*_ARGUMENTS)
def _backward_singles(counter, size, dy, dx, first, end, share, most, line):
    outer, P, _ = dy.shape
    H = dx.shape[1]
    while True:
        start = take(counter) * size
        if start >= outer:
            return
        for row in range(start, min(start + size, outer)):
            gradient, out = part(dy, row * P, P), part(dx, row * H, H)
            for i in range(H):
                if end[i] - first[i] > FEW:
                    over = end[i] - first[i]
                    out[i] = float32(_sum_of_shares(part(dy, row * P + first[i], over), part(share, first[i], over)))
                    continue
                total = gradient[first[i]] * share[first[i]]
                for p in range(first[i] + 1, end[i]):
                    total += gradient[p] * share[p]
                out[i] = total
