"""Max-pooling.  A later tap wins if it is greater, or the first NaN: the definition, as it stands.

place counts a window's taps in row order.  The padding is -inf, which is greater than nothing.  Places are compared and
moved as int32, of the width of float32, so that vectors of both have as many elements.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import boolean, int32, uint8

from ...shapes import PoolSizes, is_channels_last
from ..layout import stored
from ..parallel import scratch, share_out
from .atomic import COUNTER, take
from .jit import NUMBER, apart_loop, compiled_pass, loop, read, write
from .pieces import SIZES, ceiling, fill, part, sizes_of

_BLOCK = 32 * 1024  # elements of the image
_LEAST = 4  # blocks that are worth another thread
_INT32 = np.dtype(np.int32)
_NONE = -np.inf


def forward(x: np.ndarray, best: np.ndarray, place: np.ndarray, z: PoolSizes) -> None:
    """Fill best with the maxima and place with where in their windows they lie."""
    run, channels = (_forward_last, z.C) if is_channels_last(best) else (_forward_first, 1)
    images, y, places = stored(best, x, best, place)
    rows = z.N * z.C // channels * z.P  # of windows
    size = max(1, _BLOCK // (z.stride[0] * z.W * channels))
    side_by_side = (z.R, z.S) == z.stride == (2, 2) and z.pad == (0, 0)
    columns = z.stride[1], z.Q + (z.S - 1) // z.stride[1]

    def work(counter: np.ndarray) -> None:
        where, line = scratch("where", (z.Q * channels,), _INT32), scratch("line", columns, x.dtype)
        run(counter, size, images, y, places, where, line, side_by_side, sizes_of(z))

    share_out(work, -(-rows // size), _LEAST)


def backward(dy: np.ndarray, place: np.ndarray, dx: np.ndarray, z: PoolSizes) -> None:
    """Fill dx: each entry of dy goes to the place of its maximum."""
    channels = z.C if is_channels_last(dx) else 1
    images = z.N * z.C // channels
    gradient, places, out = stored(dx, dy, place, dx)
    gradient, places = (array.reshape(images, z.P, z.Q, channels) for array in (gradient, places))
    out, offsets = out.reshape(images, z.H, z.W, channels), _offsets(z.R, z.S, z.W * channels, channels)
    size = max(1, _BLOCK // (z.H * z.W * channels))

    def work(counter: np.ndarray) -> None:
        _backward(counter, size, gradient, places, out, offsets, sizes_of(z))

    share_out(work, -(-images // size), _LEAST)


@functools.lru_cache(maxsize=64)
def _offsets(R: int, S: int, row: int, column: int) -> np.ndarray:
    """Return how far each tap's pixel lies behind that of the first."""
    return np.array([r * row + s * column for r in range(R) for s in range(S)], dtype=np.intp)


@apart_loop
def _take_best(a, b, c, best, where, first, second, third):
    """Let three taps of each window compete with the best so far; first, second and third are their numbers."""
    for i in range(len(best)):
        so_far, tap = best[i], where[i]
        wins = (not a[i] <= so_far) & (so_far == so_far)
        so_far, tap = a[i] if wins else so_far, first if wins else tap
        wins = (not b[i] <= so_far) & (so_far == so_far)
        so_far, tap = b[i] if wins else so_far, second if wins else tap
        wins = (not c[i] <= so_far) & (so_far == so_far)
        so_far, tap = c[i] if wins else so_far, third if wins else tap
        best[i], where[i] = so_far, tap


@apart_loop
def _pick(pixels, start, step, column):
    for i in range(len(column)):
        column[i] = pixels[start + i * step]


@apart_loop
def _narrow(where, place):
    for i in range(len(place)):
        place[i] = uint8(where[i])


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


@loop
def _begin(s, across, length):
    """Return where the pixels begin that tap s of each window reads."""
    return s % across * length + s // across


_FORWARD = COUNTER, NUMBER, read(4), write(4), write(4, uint8), write(1, int32), write(2), boolean, SIZES


@compiled_pass(*_FORWARD)
def _forward_first(counter, size, x, y, place, where, line, side_by_side, sizes):
    """Channels-first: x (N, C, H, W), y and place (N, C, P, Q); where (Q,).

    line (across, Q + ...): a row of the image between padding, its columns dealt out to as many runs as the windows' step
    is wide; each tap finds its pixels of all windows side by side in one of them.
    """
    H, W = x.shape[2:]
    P, Q = y.shape[2:]
    R, S, down, across, above, before = sizes
    rows, length = x.shape[0] * x.shape[1] * P, line.shape[1]
    fill(part(line, 0, across * length), _NONE)
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        for row in range(start, min(start + size, rows)):
            top, image = row % P * down - above, row // P * H
            best, out = part(y, row * Q, Q), part(place, row * Q, Q)
            if side_by_side:
                _pool_2x2(part(x, (image + top) * W, W), part(x, (image + top + 1) * W, W), best, out)
                continue
            fill(best, _NONE)
            for q in range(Q):  # the first tap in the image
                where[q] = int32(max(0, -top) * S + max(0, before - q * across))
            for r in range(max(0, -top), min(R, H - top)):
                pixels, k = part(x, (image + top + r) * W, W), r * S
                for s in range(across):
                    first = max(0, ceiling(before - s, across))
                    last = min(length, ceiling(before + W - s, across))
                    _pick(pixels, first * across + s - before, across, part(line, s * length + first, last - first))
                for s in range(0, S, 3):
                    t, u = min(s + 1, S - 1), min(s + 2, S - 1)
                    a, b = part(line, _begin(s, across, length), Q), part(line, _begin(t, across, length), Q)
                    c = part(line, _begin(u, across, length), Q)
                    _take_best(a, b, c, best, where, int32(k + s), int32(k + t), int32(k + u))
            _narrow(where, out)


@compiled_pass(*_FORWARD)
def _forward_last(counter, size, x, y, place, where, line, side_by_side, sizes):
    """Channels-last: x (N, H, W, C), y and place (N, P, Q, C); where (Q C,)."""
    _, H, W, C = x.shape
    P, Q = y.shape[1:3]
    R, S, down, across, above, before = sizes
    rows = x.shape[0] * P
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        for row in range(start, min(start + size, rows)):
            top, image = row % P * down - above, row // P * H
            fill(part(y, row * Q * C, Q * C), _NONE)
            for q in range(Q):
                left = q * across - before
                best, taps = part(y, (row * Q + q) * C, C), part(where, q * C, C)
                first, last = max(0, -left), min(S, W - left) - 1
                fill(taps, int32(max(0, -top) * S + first))
                for r in range(max(0, -top), min(R, H - top)):
                    pixels = (image + top + r) * W + left
                    for s in range(first, last + 1, 3):
                        t, u = min(s + 1, last), min(s + 2, last)
                        k = r * S
                        a, b, c = (
                            part(x, (pixels + s) * C, C),
                            part(x, (pixels + t) * C, C),
                            part(x, (pixels + u) * C, C),
                        )
                        _take_best(a, b, c, best, taps, int32(k + s), int32(k + t), int32(k + u))
            _narrow(where, part(place, row * Q * C, Q * C))


@compiled_pass(COUNTER, NUMBER, read(4), read(4, uint8), write(4), read(1, NUMBER), SIZES)
def _backward(counter, size, dy, place, dx, offsets, sizes):
    """Channels-last, or planes as images of one channel: dy and place (N, P, Q, C), dx (N, H, W, C)."""
    planes, P, Q, C = dy.shape
    H, W = dx.shape[1:3]
    _, _, down, across, above, before = sizes
    while True:
        start = take(counter) * size
        if start >= planes:
            return
        for i in range(start, min(start + size, planes)):
            plane = part(dx, i * H * W * C, H * W * C)
            fill(plane, 0)
            for p in range(P):
                start = ((p * down - above) * W - before) * C
                g, where = part(dy, (i * P + p) * Q * C, Q * C), part(place, (i * P + p) * Q * C, Q * C)
                if C == 1:  # without inner loops of one turn
                    for q in range(Q):
                        plane[start + q * across + offsets[where[q]]] += g[q]
                    continue
                for q in range(Q):
                    for c in range(C):
                        plane[start + (q * across) * C + c + offsets[where[q * C + c]]] += g[q * C + c]
