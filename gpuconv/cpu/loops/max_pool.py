"""Max-pooling of a block of images.  A later tap wins if it is greater, or the first NaN: the definition, as it stands.

place counts a window's taps in row order.  Taps outside the image are passed over.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import int32, uint8

from ...shapes import PoolSizes, is_channels_last
from ..layout import stored
from ..parallel import scratch
from .jit import NUMBER, PAIR, apart_loop, compiled_pass, read, write
from .pieces import fill, inside

BLOCK = 128 * 1024
_COLUMNS = np.dtype(np.int32)  # of the width of float32: vectors of both have as many elements


def forward(x: np.ndarray, best: np.ndarray, place: np.ndarray, z: PoolSizes) -> None:
    """Fill best with the maxima of a block of images and place with where in their windows they lie."""
    arrays = stored(best, x, best, place)
    if is_channels_last(best):
        _forward_last(*arrays, (z.R, z.S), z.stride, z.pad)
        return
    high, column = scratch("high", (z.H, z.Q), x.dtype), scratch("column", (z.H, z.Q), _COLUMNS)
    _forward_first(*arrays, high, column, (z.R, z.S), z.stride, z.pad)


def backward(dy: np.ndarray, place: np.ndarray, dx: np.ndarray, z: PoolSizes) -> None:
    """Fill dx of a block of images: each entry of dy goes to the place of its maximum."""
    arrays = stored(dx, dy, place, dx)
    run, step = (_backward_last, z.C) if is_channels_last(dx) else (_backward_first, 1)
    run(*arrays, _offsets(z.R, z.S, z.W * step, step), (z.R, z.S), z.stride, z.pad)


@functools.lru_cache(maxsize=64)
def _offsets(R: int, S: int, row: int, column: int) -> np.ndarray:
    """Return how far each tap's pixel lies behind that of the first."""
    return np.array([r * row + s * column for r in range(R) for s in range(S)], dtype=np.intp)


@apart_loop
def _first(values, step, best, place, number):
    for i in range(len(best)):
        best[i] = values[i * step]
        place[i] = number


@apart_loop
def _take_better(values, step, best, place, number):
    """Let values[::step], tap `number` of each window, compete with the best so far."""
    for i in range(len(best)):
        value, so_far, before = values[i * step], best[i], place[i]
        wins = (not value <= so_far) & (so_far == so_far)
        best[i] = value if wins else so_far
        place[i] = number if wins else before


@apart_loop
def _take_better_by_2(values, best, place, number):
    """As _take_better of every second value: a step that the compiler knows."""
    for i in range(len(best)):
        value, so_far, before = values[2 * i], best[i], place[i]
        wins = (not value <= so_far) & (so_far == so_far)
        best[i] = value if wins else so_far
        place[i] = number if wins else before


@apart_loop
def _take_better_row(values, columns, best, place, number):
    """Let the winners of a later row, at `columns`, compete; `number` is that of the row's first tap."""
    for i in range(len(best)):
        value, so_far, before = values[i], best[i], place[i]
        wins = (not value <= so_far) & (so_far == so_far)
        best[i] = value if wins else so_far
        place[i] = place.dtype.type(columns[i] + number) if wins else before


@apart_loop
def _pool_2x2(top, bottom, best, place):
    """Windows 2x2 side by side, of two rows of an image."""
    kind = place.dtype.type
    for q in range(len(best)):
        a, b, c, d = top[2 * q], top[2 * q + 1], bottom[2 * q], bottom[2 * q + 1]
        right, right_below = (not b <= a) & (a == a), (not d <= c) & (c == c)
        upper, lower = b if right else a, d if right_below else c
        below = (not lower <= upper) & (upper == upper)
        best[q] = lower if below else upper
        place[q] = (kind(3) if right_below else kind(2)) if below else (kind(1) if right else kind(0))


@compiled_pass(read(4), write(4), write(4, uint8), write(2), write(2, int32), PAIR, PAIR, PAIR)
def _forward_first(x, y, place, high, column, window, stride, pad):
    """Channels-first: x (n, C, H, W), y and place (n, C, P, Q); high and column (H, Q): the best of each row."""
    n, C, H, W = x.shape
    P, Q = y.shape[2:]
    R, S = window
    kind = place.dtype.type
    for i in range(n):
        for c in range(C):
            if window == (2, 2) and stride == (2, 2) and pad == (0, 0):
                for p in range(P):
                    _pool_2x2(x[i, c, 2 * p], x[i, c, 2 * p + 1], y[i, c, p], place[i, c, p])
                continue
            for h in range(H):  # along the row first: each row once, however many windows share it
                for s in range(S):
                    first, last = inside(s, W, Q, stride[1], pad[1])
                    start = first * stride[1] - pad[1] + s
                    row = x[i, c, h, start:]
                    best, where = high[h, first:last], column[h, first:last]
                    if s == 0:
                        for q in range(first):  # begins in the padding
                            high[h, q] = -np.inf
                            column[h, q] = int32(pad[1] - q * stride[1])
                        _first(row, stride[1], best, where, int32(0))
                    elif stride[1] == 2:
                        _take_better_by_2(row, best, where, int32(s))
                    else:
                        _take_better(row, stride[1], best, where, int32(s))
            for p in range(P):
                top = p * stride[0] - pad[0]
                best, where = y[i, c, p], place[i, c, p]
                started = False
                for r in range(max(0, -top), min(R, H - top)):
                    if not started:
                        started = True
                        for q in range(Q):
                            best[q] = high[top + r, q]
                            where[q] = kind(column[top + r, q] + r * S)
                    else:
                        _take_better_row(high[top + r], column[top + r], best, where, kind(r * S))


@compiled_pass(read(4), write(4), write(4, uint8), PAIR, PAIR, PAIR)
def _forward_last(x, y, place, window, stride, pad):
    """Channels-last: x (n, H, W, C), y and place (n, P, Q, C)."""
    n, H, W = x.shape[:3]
    P, Q = y.shape[1:3]
    R, S = window
    kind = place.dtype.type
    for i in range(n):
        for p in range(P):
            top = p * stride[0] - pad[0]
            for q in range(Q):
                left = q * stride[1] - pad[1]
                best, where = y[i, p, q], place[i, p, q]
                started = False
                for r in range(max(0, -top), min(R, H - top)):
                    for s in range(max(0, -left), min(S, W - left)):
                        if started:
                            _take_better(x[i, top + r, left + s], 1, best, where, kind(r * S + s))
                        else:
                            started = True
                            _first(x[i, top + r, left + s], 1, best, where, kind(r * S + s))


@apart_loop
def _spread_2x2(dy, place, top, bottom):
    zero = dy.dtype.type(0)
    for q in range(len(dy)):
        g, k = dy[q], place[q]
        top[2 * q] = g if k == 0 else zero
        top[2 * q + 1] = g if k == 1 else zero
        bottom[2 * q] = g if k == 2 else zero
        bottom[2 * q + 1] = g if k == 3 else zero


@compiled_pass(read(4), read(4, uint8), write(4), read(1, NUMBER), PAIR, PAIR, PAIR)
def _backward_first(dy, place, dx, offsets, window, stride, pad):
    """Channels-first: fill dx (n, C, H, W)."""
    n, C, H, W = dx.shape
    P, Q = dy.shape[2:]
    tiled = window == (2, 2) and stride == (2, 2) and pad == (0, 0) and (H, W) == (2 * P, 2 * Q)
    for i in range(n):
        for c in range(C):
            if tiled:
                for p in range(P):
                    _spread_2x2(dy[i, c, p], place[i, c, p], dx[i, c, 2 * p], dx[i, c, 2 * p + 1])
                continue
            plane = dx[i, c].reshape(-1)
            fill(plane, 0)
            for p in range(P):
                start = (p * stride[0] - pad[0]) * W - pad[1]
                for q in range(Q):
                    plane[start + offsets[place[i, c, p, q]]] += dy[i, c, p, q]
                    start += stride[1]


@compiled_pass(read(4), read(4, uint8), write(4), read(1, NUMBER), PAIR, PAIR, PAIR)
def _backward_last(dy, place, dx, offsets, window, stride, pad):
    """Channels-last: fill dx (n, H, W, C)."""
    n, _, W, C = dx.shape
    P, Q = dy.shape[1:3]
    for i in range(n):
        image = dx[i].reshape(-1)
        fill(image, 0)
        for p in range(P):
            for q in range(Q):
                start = ((p * stride[0] - pad[0]) * W + q * stride[1] - pad[1]) * C
                g, where = dy[i, p, q], place[i, p, q]
                for c in range(C):
                    image[start + c + offsets[where[c]]] += g[c]
