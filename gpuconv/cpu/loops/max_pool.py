"""Max-pooling.  A later tap wins if it is greater, or the first NaN: the definition, as it stands.

place counts a window's taps in row order.  The padding is -inf, which is greater than nothing.  Places are compared and
moved as int32, of the width of float32, so that vectors of both have as many elements.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import int32, uint8

from ...shapes import PoolSizes, is_channels_last
from ..layout import stored
from ..parallel import scratch, share_out
from .atomic import COUNTER, take
from .jit import NUMBER, PAIR, apart_loop, compiled_pass, read, write
from .pieces import fill, part

_BLOCK = 32 * 1024  # elements of the image
_INT32 = np.dtype(np.int32)
_NONE = -np.inf


def forward(x: np.ndarray, best: np.ndarray, place: np.ndarray, z: PoolSizes) -> None:
    """Fill best with the maxima and place with where in their windows they lie."""
    run, channels, line = (_forward_last, z.C, 0) if is_channels_last(best) else (_forward_first, 1, z.W + 2 * z.pad[1])
    images, y, places = stored(best, x, best, place)
    rows = z.N * z.C // channels * z.P  # of windows
    size = max(1, _BLOCK // (z.stride[0] * z.W * channels))

    def work(counter: np.ndarray) -> None:
        where, padded = scratch("where", (z.Q * z.C,), _INT32), scratch("padded", (line,), x.dtype)
        run(counter, size, images, y, places, where, padded, (z.R, z.S), z.stride, z.pad)

    share_out(work, -(-rows // size), 4)


def backward(dy: np.ndarray, place: np.ndarray, dx: np.ndarray, z: PoolSizes) -> None:
    """Fill dx: each entry of dy goes to the place of its maximum."""
    channels = z.C if is_channels_last(dx) else 1
    planes = z.N * z.C // channels
    gradient, places, out = stored(dx, dy, place, dx)
    gradient, places = (array.reshape(planes, z.P, z.Q, channels) for array in (gradient, places))
    out = out.reshape(planes, z.H, z.W, channels)
    size = max(1, _BLOCK // (z.H * z.W * channels))
    tiled = channels == 1 and (z.R, z.S) == z.stride == (2, 2) and z.pad == (0, 0) and (z.H, z.W) == (2 * z.P, 2 * z.Q)

    def work(counter: np.ndarray) -> None:
        if tiled:
            _backward_2x2(counter, size * z.P, gradient.view(_INT32), places, out.view(_INT32))
        else:
            offsets = _offsets(z.R, z.S, z.W * channels, channels)
            _backward(counter, size, gradient, places, out, offsets, z.stride, z.pad)

    share_out(work, -(-planes // size), 4)


@functools.lru_cache(maxsize=64)
def _offsets(R: int, S: int, row: int, column: int) -> np.ndarray:
    """Return how far each tap's pixel lies behind that of the first."""
    return np.array([r * row + s * column for r in range(R) for s in range(S)], dtype=np.intp)


@apart_loop
def _take_best(a, b, c, step, best, where, first, second, third):
    """Let three taps of each window, at a[::step], b[::step] and c[::step], compete with the best so far."""
    for i in range(len(best)):
        so_far, tap = best[i], where[i]
        for value, number in ((a[i * step], first), (b[i * step], second), (c[i * step], third)):
            wins = (not value <= so_far) & (so_far == so_far)
            so_far = value if wins else so_far
            tap = number if wins else tap
        best[i] = so_far
        where[i] = tap


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


_FORWARD = COUNTER, NUMBER, read(4), write(4), write(4, uint8), write(1, int32), write(1), PAIR, PAIR, PAIR


@compiled_pass(*_FORWARD)
def _forward_first(counter, size, x, y, place, where, line, window, stride, pad):
    """Channels-first: x (N, C, H, W), y and place (N, C, P, Q); where (Q,), line: a row of the image between padding."""
    H, W = x.shape[2:]
    P, Q = y.shape[2:]
    R, S = window
    rows = x.shape[0] * x.shape[1] * P
    simple = window == (2, 2) and stride == (2, 2) and pad == (0, 0)
    fill(line, _NONE)
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        for row in range(start, min(start + size, rows)):
            top, image = row % P * stride[0] - pad[0], row // P * H
            best, out = part(y, row * Q, Q), part(place, row * Q, Q)
            if simple:
                _pool_2x2(part(x, (image + top) * W, W), part(x, (image + top + 1) * W, W), best, out)
                continue
            fill(best, _NONE)
            for q in range(Q):  # the first tap in the image
                where[q] = int32(max(0, -top) * S + max(0, pad[1] - q * stride[1]))
            for r in range(max(0, -top), min(R, H - top)):
                pixels = part(x, (image + top + r) * W, W)
                for w in range(W):
                    line[pad[1] + w] = pixels[w]
                for s in range(0, S, 3):
                    t, u = min(s + 1, S - 1), min(s + 2, S - 1)
                    k = r * S
                    a, b, c = part(line, s, 0), part(line, t, 0), part(line, u, 0)
                    if stride[1] == 2:  # a step that the compiler knows
                        _take_best(a, b, c, 2, best, where, int32(k + s), int32(k + t), int32(k + u))
                    else:
                        _take_best(a, b, c, stride[1], best, where, int32(k + s), int32(k + t), int32(k + u))
            _narrow(where, out)


@compiled_pass(*_FORWARD)
def _forward_last(counter, size, x, y, place, where, line, window, stride, pad):
    """Channels-last: x (N, H, W, C), y and place (N, P, Q, C); where (Q C,)."""
    _, H, W, C = x.shape
    P, Q = y.shape[1:3]
    R, S = window
    rows = x.shape[0] * P
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        for row in range(start, min(start + size, rows)):
            top, image = row % P * stride[0] - pad[0], row // P * H
            fill(part(y, row * Q * C, Q * C), _NONE)
            for q in range(Q):
                left = q * stride[1] - pad[1]
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
                        _take_best(a, b, c, 1, best, taps, int32(k + s), int32(k + t), int32(k + u))
            _narrow(where, part(place, row * Q * C, Q * C))


@apart_loop
def _spread_2x2(dy, place, top, bottom):
    zero = int32(0)
    for q in range(len(dy)):
        g, k = dy[q], int32(place[q])
        top[2 * q] = g if k == 0 else zero
        top[2 * q + 1] = g if k == 1 else zero
        bottom[2 * q] = g if k == 2 else zero
        bottom[2 * q + 1] = g if k == 3 else zero


@compiled_pass(COUNTER, NUMBER, read(4, int32), read(4, uint8), write(4, int32))
def _backward_2x2(counter, size, dy, place, dx):
    """Channels-first, windows 2x2 side by side: dy and place (N C, P, Q, 1), dx (N C, 2 P, 2 Q, 1), as whole numbers.

    As such, they are chosen without branches.
    """
    Q = dy.shape[2]
    rows = dy.shape[0] * dy.shape[1]
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        for row in range(start, min(start + size, rows)):
            top, bottom = part(dx, row * 4 * Q, 2 * Q), part(dx, row * 4 * Q + 2 * Q, 2 * Q)
            _spread_2x2(part(dy, row * Q, Q), part(place, row * Q, Q), top, bottom)


@compiled_pass(COUNTER, NUMBER, read(4), read(4, uint8), write(4), read(1, NUMBER), PAIR, PAIR)
def _backward(counter, size, dy, place, dx, offsets, stride, pad):
    """Channels-last, or planes as images of one channel: dy and place (N, P, Q, C), dx (N, H, W, C)."""
    planes, P, Q, C = dy.shape
    H, W = dx.shape[1:3]
    while True:
        start = take(counter) * size
        if start >= planes:
            return
        for i in range(start, min(start + size, planes)):
            plane = part(dx, i * H * W * C, H * W * C)
            fill(plane, 0)
            for p in range(P):
                for q in range(Q):
                    left = ((p * stride[0] - pad[0]) * W + q * stride[1] - pad[1]) * C
                    window = ((i * P + p) * Q + q) * C
                    g, where = part(dy, window, C), part(place, window, C)
                    for c in range(C):
                        plane[left + c + offsets[where[c]]] += g[c]
