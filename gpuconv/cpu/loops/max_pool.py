"""Max-pooling.  A later tap wins if it is greater, or the first NaN: the definition, as it stands.

Every array is one of volumes, (N, D, H, W, C): images have one plane, and what is stored channels-first one channel each.

place counts a window's taps in row order, plane by plane.  The padding is -inf, which is greater than nothing.  Places are compared and
moved as int32, of the width of float32, so that vectors of both have as many elements.
"""

from __future__ import annotations

import functools
from math import prod

import numpy as np
from numba import boolean, int32, types, uint8, uintp

from ...pool_shapes import PoolSizes
from ...shapes import is_channels_last
from ..layout import stored
from ..parallel import scratch, share_out
from ..taps import Sizes
from .atomic import COUNTER, take
from .jit import NUMBER, apart_loop, compiled_pass, loop, read, write
from .pieces import ceiling, fill, part

_BLOCK = 32 * 1024  # elements of the image
_LEAST = 4  # blocks that are worth another thread
_INT32 = np.dtype(np.int32)
_NONE = -np.inf
# Of planes, rows and columns each: the windows' sizes, their steps and the padding before them.
_WINDOWS = types.UniTuple(types.intp, 9)


def forward(x: np.ndarray, best: np.ndarray, place: np.ndarray, z: Sizes) -> None:
    """Fill best with the maxima and place with where in their windows they lie."""
    run, channels = (_forward_last, z.C) if is_channels_last(best) else (_forward_first, 1)
    images, y, places = stored(best, x, best, place)
    before, after = _shapes(z, channels)
    windows = _windows(z)
    _, R, S, back, down, across, *_, above, left = windows
    rows = prod(after[:3])  # of windows
    size = max(1, _BLOCK // (back * down * z.W * channels))
    side_by_side = (R, S) == (down, across) == (2, 2) and (above, left) == (0, 0)
    columns = across, z.Q + (S - 1) // across

    def work(counter: np.ndarray) -> None:
        where, line = scratch("where", (z.Q * channels,), _INT32), scratch("line", columns, x.dtype)
        volumes, maxima, taps = images.reshape(before), y.reshape(after), places.reshape(after)
        run(counter, size, volumes, maxima, taps, where, line, side_by_side, windows)

    share_out(work, -(-rows // size), _LEAST)


def backward(dy: np.ndarray, place: np.ndarray, dx: np.ndarray, z: Sizes) -> None:
    """Fill dx: each entry of dy goes to the place of its maximum."""
    channels = z.C if is_channels_last(dx) else 1
    gradient, places, out = stored(dx, dy, place, dx)
    before, after = _shapes(z, channels)
    gradient, places, out = gradient.reshape(after), places.reshape(after), out.reshape(before)
    windows = _windows(z)
    offsets = _offsets(windows[:3], z.H * z.W * channels, z.W * channels, channels)
    depth = after[1]
    share = 1 if windows[0] <= windows[3] else depth  # where no plane is under two windows, each may be done alone
    pieces = before[0] * (depth // share)
    size = max(1, _BLOCK * pieces // max(1, out.size))

    def work(counter: np.ndarray) -> None:
        _backward(counter, size, share, gradient, places, out, offsets, windows)

    share_out(work, -(-pieces // size), _LEAST)


def _shapes(z: Sizes, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of x and of y as volumes of so many channels."""
    N, (D, Z) = z.N * z.C // channels, (1, 1) if isinstance(z, PoolSizes) else (z.D, z.Z)
    return (N, D, z.H, z.W, channels), (N, Z, z.P, z.Q, channels)


def _windows(z: Sizes) -> tuple[int, ...]:
    """Return the windows of pooling as passes take them."""
    if isinstance(z, PoolSizes):
        return 1, z.R, z.S, 1, *z.stride, 0, *z.pad
    return z.T, z.R, z.S, *z.stride, *z.pad


@functools.lru_cache(maxsize=64)
def _offsets(window: tuple[int, int, int], plane: int, row: int, column: int) -> np.ndarray:
    """Return how far each tap's pixel lies behind that of the first."""
    return np.array([t * plane + r * row + s * column for t, r, s in np.ndindex(window)], dtype=np.intp)


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


@apart_loop
def _take_2x2(top, bottom, best, place, first):
    """Let the 2x2 taps of one more plane compete with the best so far; first is the number of their first."""
    kind = place.dtype.type
    for q in range(len(best)):
        a, b, c, d = top[2 * q], top[2 * q + 1], bottom[2 * q], bottom[2 * q + 1]
        right, right_below = (not b <= a) & (a == a), (not d <= c) & (c == c)
        upper, lower = b if right else a, d if right_below else c
        below = (not lower <= upper) & (upper == upper)
        value, so_far = lower if below else upper, best[q]
        number = (kind(3) if right_below else kind(2)) if below else (kind(1) if right else kind(0))
        wins = (not value <= so_far) & (so_far == so_far)
        best[q] = value if wins else so_far
        place[q] = kind(first + number) if wins else place[q]


@loop
def _begin(s, across, length):
    """Return where the pixels begin that tap s of each window reads."""
    return s % across * length + s // across


_FORWARD = COUNTER, NUMBER, read(5), write(5), write(5, uint8), write(1, int32), write(2), boolean, _WINDOWS


@compiled_pass(*_FORWARD)
def _forward_first(counter, size, x, y, place, where, line, side_by_side, windows):
    """Of one channel: x (N, D, H, W, 1), y and place (N, Z, P, Q, 1); where (Q,).

    line (across, Q + ...): a row of the image between padding, its columns dealt out to as many runs as the windows' step
    is wide; each tap finds its pixels of all windows side by side in one of them.
    """
    D, H, W = x.shape[1:4]
    Z, P, Q = y.shape[1:4]
    T, R, S, back, down, across, front, above, before = windows
    rows, length = x.shape[0] * Z * P, line.shape[1]
    fill(part(line, 0, across * length), _NONE)
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        row, stop = start, min(start + size, rows)
        while row < stop:
            deep = row // P % Z * back - front
            nearest, farthest, image = max(0, -deep), min(T, D - deep), row // P // Z * D + deep
            for p in range(row % P, min(P, row % P + stop - row)):
                top = p * down - above
                best, out = part(y, row * Q, Q), part(place, row * Q, Q)
                row += 1
                if side_by_side and T == 1:
                    pixels = (image * H + top) * W
                    _pool_2x2(part(x, pixels, W), part(x, pixels + W, W), best, out)
                    continue
                if side_by_side:
                    for t in range(nearest, farthest):
                        pixels = ((image + t) * H + top) * W
                        if t == 0:
                            _pool_2x2(part(x, pixels, W), part(x, pixels + W, W), best, out)
                            continue
                        if t == nearest:
                            fill(best, _NONE)
                            fill(out, uint8(4 * t))
                        _take_2x2(part(x, pixels, W), part(x, pixels + W, W), best, out, 4 * t)
                    continue
                fill(best, _NONE)
                for q in range(Q):  # the first tap in the volume
                    where[q] = int32((nearest * R + max(0, -top)) * S + max(0, before - q * across))
                for t in range(nearest, farthest):
                    for r in range(max(0, -top), min(R, H - top)):
                        pixels, k = part(x, ((image + t) * H + top + r) * W, W), (t * R + r) * S
                        for s in range(across):
                            first = max(0, ceiling(before - s, across))
                            last = min(length, ceiling(before + W - s, across))
                            _pick(
                                pixels,
                                first * across + s - before,
                                across,
                                part(line, s * length + first, last - first),
                            )
                        for s in range(0, S, 3):
                            i, j = min(s + 1, S - 1), min(s + 2, S - 1)
                            a, b = part(line, _begin(s, across, length), Q), part(line, _begin(i, across, length), Q)
                            c = part(line, _begin(j, across, length), Q)
                            _take_best(a, b, c, best, where, int32(k + s), int32(k + i), int32(k + j))
                _narrow(where, out)


@compiled_pass(*_FORWARD)
def _forward_last(counter, size, x, y, place, where, line, side_by_side, windows):
    """Channels-last: x (N, D, H, W, C), y and place (N, Z, P, Q, C); where (Q C,)."""
    _, D, H, W, C = x.shape
    Z, P, Q = y.shape[1:4]
    T, R, S, back, down, across, front, above, before = windows
    rows = x.shape[0] * Z * P
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        row, stop = start, min(start + size, rows)
        while row < stop:
            deep = row // P % Z * back - front
            nearest, farthest, image = max(0, -deep), min(T, D - deep), row // P // Z * D + deep
            for p in range(row % P, min(P, row % P + stop - row)):
                top = p * down - above
                fill(part(y, row * Q * C, Q * C), _NONE)
                for q in range(Q):
                    left = q * across - before
                    best, taps = part(y, (row * Q + q) * C, C), part(where, q * C, C)
                    first, last = max(0, -left), min(S, W - left) - 1
                    fill(taps, int32((nearest * R + max(0, -top)) * S + first))
                    for t in range(nearest, farthest):
                        for r in range(max(0, -top), min(R, H - top)):
                            pixels, k = ((image + t) * H + top + r) * W + left, (t * R + r) * S
                            for s in range(first, last + 1, 3):
                                i, j = min(s + 1, last), min(s + 2, last)
                                a, b, c = (
                                    part(x, (pixels + s) * C, C),
                                    part(x, (pixels + i) * C, C),
                                    part(x, (pixels + j) * C, C),
                                )
                                _take_best(a, b, c, best, taps, int32(k + s), int32(k + i), int32(k + j))
                _narrow(where, part(place, row * Q * C, Q * C))
                row += 1


@compiled_pass(COUNTER, NUMBER, NUMBER, read(5), read(5, uint8), write(5), read(1, NUMBER), _WINDOWS)
def _backward(counter, size, share, dy, place, dx, offsets, windows):
    """dy and place (N, Z, P, Q, C), dx (N, D, H, W, C): in pieces of so many planes of dy, `size` of them at once."""
    Z, P, Q, C = dy.shape[1:]
    D, H, W = dx.shape[1:4]
    _, _, _, back, down, across, front, above, before = windows
    pieces = dx.shape[0] * (Z // share)
    while True:
        start = take(counter) * size
        if start >= pieces:
            return
        for piece in range(start, min(start + size, pieces)):
            n, o = piece * share // Z, piece * share % Z
            # Its own planes of dx are those up to where the next piece begins, and all that are left of the last.
            first = min(D, max(0, o * back - front)) if o else 0
            last = min(D, max(0, (o + share) * back - front)) if o + share < Z else D
            fill(part(dx, (n * D + first) * H * W * C, (last - first) * H * W * C), 0)
            volume = part(dx, n * D * H * W * C, D * H * W * C)
            for plane in range(o, o + share):
                top, rows = (plane * back - front) * H - above, (n * Z + plane) * P
                for p in range(P):
                    start, begin = ((top + p * down) * W - before) * C, (rows + p) * Q * C
                    g, where = part(dy, begin, Q * C), part(place, begin, Q * C)
                    if C == 1:  # without inner loops of one turn
                        for q in range(Q):
                            volume[uintp(start + q * across + offsets[where[q]])] += g[q]
                        continue
                    for q in range(Q):
                        for c in range(C):
                            volume[uintp(start + (q * across) * C + c + offsets[where[q * C + c]])] += g[q * C + c]
