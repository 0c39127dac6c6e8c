"""Max-pooling.  A later tap wins if it is greater, or the first NaN: the definition, as it stands.

Every array is one of volumes, (N, D, H, W, C): images have one plane, and what is stored channels-first one channel each.

place counts a window's taps in row order, plane by plane.  The padding is -inf, which is greater than nothing.  Places are compared and
moved as int32, of the width of float32, so that vectors of both have as many elements: they are narrowed row by row where a byte has
room for them.

Large windows that share pixels are pooled in two: each plane or row by itself, then over these.  The maximum of all is the largest of
theirs, the first of equals lies in the first of them that has it, and NaN, which wins in its own, wins among all.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from math import prod

import numpy as np
from numba import boolean, float32, float64, int32, intp, types, uint8, uintp

from ...shapes import is_channels_last
from ..layout import empty, stored
from ..parallel import scratch, share_out
from ..runs import FEW
from ..taps import Sizes, meeting
from .atomic import COUNTER, take
from .jit import NUMBER, apart_loop, compiled_pass, loop, read, write
from .pieces import WINDOWS, ceiling, fill, part, shapes, windows_of

_BLOCK = 32 * 1024  # elements of the image
_LEAST = 4  # blocks that are worth another thread
_BYTE, _INT32, _FLOAT64 = np.dtype(np.uint8), np.dtype(np.int32), np.dtype(np.float64)
_NO_BYTES, _NO_PLACES, _NO_OFFSETS = np.empty(0, _BYTE), np.empty(0, _INT32), np.empty(0, np.intp)
_NONE = -np.inf
# Of windows over one axis: taps, step, padding before, how far apart taps are, and how many places each of them counts for.
_OVER = types.UniTuple(types.intp, 5)


def forward(x: np.ndarray, best: np.ndarray, place: np.ndarray, z: Sizes) -> None:
    """Fill best with the maxima and place with where in their windows they lie."""
    if _pays_in_two(z):
        _forward_in_two(x, best, place, z)
        return
    run, channels = (_forward_last, z.C) if is_channels_last(best) else (_forward_first, 1)
    images, y, places = stored(best, x, best, place)
    before, after = shapes(z, channels)
    windows = windows_of(z)
    _, R, S, back, down, across, *_, above, left, _, apart, beside = windows
    rows, row = prod(after[:3]), z.Q * channels  # rows of windows
    size = max(1, _BLOCK // (back * down * z.W * channels))
    narrow = place.dtype == _BYTE
    within = (above, left) == (0, 0) and 2 * z.P <= z.H and 2 * z.Q <= z.W
    side_by_side = narrow and within and (R, S) == (down, across) == (2, 2) and (apart, beside) == (1, 1)
    columns = across, z.Q + (S - 1) * beside // across
    small, large = _by_width(places)
    pitch = 0 if narrow else row

    def work(counter: np.ndarray) -> None:
        where, line = scratch("where", (row,), _INT32) if narrow else large, scratch("line", columns, x.dtype)
        run(counter, size, images.reshape(before), y.reshape(after), small, where, pitch, line, side_by_side, windows)

    share_out(work, -(-rows // size), _LEAST)


def backward(dy: np.ndarray, place: np.ndarray, dx: np.ndarray, z: Sizes) -> None:
    """Fill dx: each entry of dy goes to the place of its maximum."""
    channels = z.C if is_channels_last(dx) else 1
    gradient, places, out = stored(dx, dy, place, dx)
    before, after = shapes(z, channels)
    gradient, out = gradient.reshape(after), out.reshape(before)
    windows = windows_of(z)
    depth = after[1]
    # Where no plane is between the first and the last of two windows, each may be done alone.
    share = 1 if (windows[0] - 1) * windows[9] < windows[3] else depth
    pieces = before[0] * (depth // share)
    size = max(1, _BLOCK * pieces // max(1, out.size))
    # A running sum in float32 must be short, see runs.py: longer ones are kept in float64, and so is what has no table.
    narrow = place.dtype == _BYTE
    exact = prod(meeting(z)) > FEW or not narrow
    small, large = _by_width(places)
    table = _NO_OFFSETS if exact else _offsets(windows[:3], windows[9:], z.H * z.W * channels, z.W * channels, channels)
    volume = prod(before[1:]) if exact else 0

    def work(counter: np.ndarray) -> None:
        sums = scratch("sums", (volume,), _FLOAT64)
        _backward(counter, size, share, gradient, small, large, out, sums, table, windows)

    share_out(work, -(-pieces // size), _LEAST)


def _pays_in_two(z: Sizes) -> bool:
    """Return whether a window has twice as many places as its two poolings look at."""
    axis = _first_axis(z)
    if axis is None:
        return False
    inner = prod(z.window[axis + 1 :])
    return z.places * z.out[2 + axis] >= 2 * (z.image[2 + axis] * inner + z.out[2 + axis] * z.window[axis])


def _forward_in_two(x: np.ndarray, best: np.ndarray, place: np.ndarray, z: Sizes) -> None:
    """Pool without a window's first axis, of planes or rows, and then over it."""
    axis, last = _first_axis(z), is_channels_last(best)
    assert axis is not None
    inside = _without(z, axis)
    pooled, inner = (empty(inside.out, dtype, channels_last=last) for dtype in (x.dtype, _INT32))
    forward(x, pooled, inner, inside)
    values, numbers, y, places = stored(best, pooled, inner, best, place)
    at = 1 + axis + (not last)
    before, after = ((prod(shape[:at]), shape[at], prod(shape[at + 1 :])) for shape in (values.shape, y.shape))
    size = max(1, _BLOCK // (z.stride[axis] * before[2]))
    narrow = place.dtype == _BYTE
    small, large = _by_width(places)
    pitch = 0 if narrow else after[2]
    windows = z.window[axis], z.stride[axis], z.pad[axis], z.dilation[axis], inside.places

    def work(counter: np.ndarray) -> None:
        where = scratch("where", (after[2],), _INT32) if narrow else large
        arrays = values.reshape(before), numbers.reshape(before), y.reshape(after), small, where
        _forward_over(counter, size, *arrays, pitch, windows)

    share_out(work, -(-after[0] * after[1] // size), _LEAST)


def _by_width(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places flat, as bytes and as int32: what they are not is empty."""
    flat = places.reshape(-1)
    return (flat, _NO_PLACES) if places.dtype == _BYTE else (_NO_BYTES, flat)


def _first_axis(z: Sizes) -> int | None:
    """Return the first axis of planes or rows along which windows have more than one tap; None if there is none."""
    return next((axis for axis, taps in enumerate(z.window[:-1]) if taps > 1), None)


def _without(z: Sizes, axis: int) -> Sizes:
    """Return the sizes of pooling that leaves an axis of planes or rows as it is."""
    size, taps, windows = ("DTZ", "HRP")[axis + 3 - len(z.window)]
    alone = {taps: 1, windows: getattr(z, size)}
    for name, value in (("stride", 1), ("pad", 0), ("behind", 0), ("dilation", 1)):
        sides = getattr(z, name)
        alone[name] = (*sides[:axis], value, *sides[axis + 1 :])
    return replace(z, **alone)


@functools.lru_cache(maxsize=64)
def _offsets(window: tuple[int, ...], dilation: tuple[int, ...], plane: int, row: int, column: int) -> np.ndarray:
    """Return how far each tap's pixel lies behind that of the first."""
    steps = [apart * pixels for apart, pixels in zip(dilation, (plane, row, column), strict=True)]
    return np.array([sum(map(int.__mul__, tap, steps)) for tap in np.ndindex(window)], dtype=np.intp)


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
def _begin(column, across, length):
    """Return where the pixels begin that a tap so many columns into each window reads."""
    return column % across * length + column // across


@apart_loop
def _take_row(values, numbers, best, where, first):
    """Let one more row compete with the best so far; first is added to the numbers of its taps."""
    for i in range(len(best)):
        so_far = best[i]
        wins = (not values[i] <= so_far) & (so_far == so_far)
        best[i] = values[i] if wins else so_far
        where[i] = int32(first + numbers[i]) if wins else where[i]


@compiled_pass(COUNTER, NUMBER, read(3), read(3, int32), write(3), write(1, uint8), write(1, int32), NUMBER, _OVER)
def _forward_over(counter, size, x, numbers, y, place, where, pitch, windows):
    """Over the middle axis: x (A, D, B) and numbers of taps in it, y (A, Z, B); place and where as below."""
    D, B = x.shape[1:]
    Z = y.shape[1]
    T, back, front, apart, places = windows
    rows = x.shape[0] * Z
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        for row in range(start, min(start + size, rows)):
            deep = row % Z * back - front
            nearest, farthest = ceiling(max(0, -deep), apart), min(T, ceiling(D - deep, apart))
            begin = (row // Z * D + deep + nearest * apart) * B
            best, taps = part(y, row * B, B), part(where, row * pitch, B)
            first, numbered = part(x, begin, B), part(numbers, begin, B)
            for i in range(B):
                best[i], taps[i] = first[i], int32(nearest * places + numbered[i])
            for t in range(nearest + 1, farthest):
                begin += apart * B
                _take_row(part(x, begin, B), part(numbers, begin, B), best, taps, int32(t * places))
            if pitch == 0:
                _narrow(taps, part(place, row * B, B))


_FORWARD = COUNTER, NUMBER, read(5), write(5), write(1, uint8), write(1, int32), NUMBER, write(2), boolean, WINDOWS


@compiled_pass(*_FORWARD)
def _forward_first(counter, size, x, y, place, where, pitch, line, side_by_side, windows):
    """Of one channel: x (N, D, H, W, 1), y (N, Z, P, Q, 1).

    place has bytes for all windows, and where (Q,) memory for a row of them; or where has room for all, each row `pitch` behind
    the one before, and place none.

    line (across, Q + ...): a row of the image between padding, its columns dealt out to as many runs as the windows' step
    is wide; each tap finds its pixels of all windows side by side in one of them.
    """
    D, H, W = x.shape[1:4]
    Z, P, Q = y.shape[1:4]
    T, R, S, back, down, across, front, above, before, deeper, lower, aside = windows
    rows, length = x.shape[0] * Z * P, line.shape[1]
    fill(part(line, 0, across * length), _NONE)
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        row, stop = start, min(start + size, rows)
        while row < stop:
            deep = row // P % Z * back - front
            nearest, farthest = ceiling(max(0, -deep), deeper), min(T, ceiling(D - deep, deeper))
            image = row // P // Z * D + deep
            for p in range(row % P, min(P, row % P + stop - row)):
                top = p * down - above
                best, taps = part(y, row * Q, Q), part(where, row * pitch, Q)
                if side_by_side:
                    out = part(place, row * Q, Q)
                    row += 1
                    for t in range(nearest, farthest):
                        pixels = ((image + t * deeper) * H + top) * W
                        if t == 0:
                            _pool_2x2(part(x, pixels, W), part(x, pixels + W, W), best, out)
                            continue
                        if t == nearest:
                            fill(best, _NONE)
                            fill(out, uint8(4 * t))
                        _take_2x2(part(x, pixels, W), part(x, pixels + W, W), best, out, 4 * t)
                    continue
                fill(best, _NONE)
                highest, lowest = ceiling(max(0, -top), lower), min(R, ceiling(H - top, lower))
                first = (nearest * R + highest) * S  # the first tap in the volume, but for what lies before it
                fill(taps, int32(first))
                for q in range(min(Q, ceiling(before, across))):
                    taps[q] = int32(first + ceiling(before - q * across, aside))
                for t in range(nearest, farthest):
                    for r in range(highest, lowest):
                        pixels, k = part(x, ((image + t * deeper) * H + top + r * lower) * W, W), (t * R + r) * S
                        for s in range(across):
                            begin = max(0, ceiling(before - s, across))
                            end = min(length, ceiling(before + W - s, across))
                            column = part(line, s * length + begin, end - begin)
                            _pick(pixels, begin * across + s - before, across, column)
                        for s in range(0, S, 3):
                            i, j = min(s + 1, S - 1), min(s + 2, S - 1)
                            a = part(line, _begin(s * aside, across, length), Q)
                            b = part(line, _begin(i * aside, across, length), Q)
                            c = part(line, _begin(j * aside, across, length), Q)
                            _take_best(a, b, c, best, taps, int32(k + s), int32(k + i), int32(k + j))
                if pitch == 0:
                    _narrow(taps, part(place, row * Q, Q))
                row += 1


@compiled_pass(*_FORWARD)
def _forward_last(counter, size, x, y, place, where, pitch, line, side_by_side, windows):
    """Channels-last: x (N, D, H, W, C), y (N, Z, P, Q, C); place and where as above, of rows of Q C."""
    _, D, H, W, C = x.shape
    Z, P, Q = y.shape[1:4]
    T, R, S, back, down, across, front, above, before, deeper, lower, aside = windows
    rows = x.shape[0] * Z * P
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        row, stop = start, min(start + size, rows)
        while row < stop:
            deep = row // P % Z * back - front
            nearest, farthest = ceiling(max(0, -deep), deeper), min(T, ceiling(D - deep, deeper))
            image = row // P // Z * D + deep
            for p in range(row % P, min(P, row % P + stop - row)):
                top = p * down - above
                highest, lowest = ceiling(max(0, -top), lower), min(R, ceiling(H - top, lower))
                fill(part(y, row * Q * C, Q * C), _NONE)
                for q in range(Q):
                    left = q * across - before
                    best, taps = part(y, (row * Q + q) * C, C), part(where, row * pitch + q * C, C)
                    first, last = ceiling(max(0, -left), aside), min(S, ceiling(W - left, aside)) - 1
                    fill(taps, int32((nearest * R + highest) * S + first))
                    for t in range(nearest, farthest):
                        for r in range(highest, lowest):
                            pixels = ((image + t * deeper) * H + top + r * lower) * W + left
                            k = (t * R + r) * S
                            for s in range(first, last + 1, 3):
                                i, j = min(s + 1, last), min(s + 2, last)
                                a, b, c = (
                                    part(x, (pixels + s * aside) * C, C),
                                    part(x, (pixels + i * aside) * C, C),
                                    part(x, (pixels + j * aside) * C, C),
                                )
                                _take_best(a, b, c, best, taps, int32(k + s), int32(k + i), int32(k + j))
                if pitch == 0:
                    _narrow(part(where, 0, Q * C), part(place, row * Q * C, Q * C))
                row += 1


@compiled_pass(
    COUNTER,
    NUMBER,
    NUMBER,
    read(5),
    read(1, uint8),
    read(1, int32),
    write(5),
    write(1, float64),
    read(1, NUMBER),
    WINDOWS,
)
def _backward(counter, size, share, dy, place, wide, dx, sums, offsets, windows):
    """dy (N, Z, P, Q, C), dx (N, D, H, W, C): in pieces of so many planes of dy, `size` of them at once.

    Places are those in place, or in wide, where that has any.  sums: memory for a volume, or none: then gradients are added
    up in dx, where offsets know.
    """
    Z, P, Q, C = dy.shape[1:]
    D, H, W = dx.shape[1:4]
    _, R, S, back, down, across, front, above, before, deeper, lower, aside = windows
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
            own, own_values = first * H * W * C, (last - first) * H * W * C
            volume = part(dx, n * D * H * W * C, D * H * W * C)
            if len(sums):
                fill(part(sums, own, own_values), 0)
            else:
                fill(part(volume, own, own_values), 0)
            for plane in range(o, o + share):
                top, rows = (plane * back - front) * H - above, (n * Z + plane) * P
                for p in range(P):
                    start, begin = ((top + p * down) * W - before) * C, (rows + p) * Q * C
                    g = part(dy, begin, Q * C)
                    if len(sums):
                        for i in range(Q * C):
                            tap = intp(wide[begin + i]) if len(wide) else intp(place[begin + i])
                            r, q = tap // S, i // C
                            t = r // R
                            row = (t * deeper * H + (r - t * R) * lower) * W
                            column = q * across + (tap - r * S) * aside
                            sums[uintp(start + (row + column) * C + (i - q * C))] += float64(g[i])
                        continue
                    where = part(place, begin, Q * C)
                    if C == 1:  # without inner loops of one turn
                        for q in range(Q):
                            volume[uintp(start + q * across + offsets[where[q]])] += g[q]
                        continue
                    for q in range(Q):
                        for c in range(C):
                            volume[uintp(start + (q * across) * C + c + offsets[where[q * C + c]])] += g[q * C + c]
            if len(sums):
                for i in range(own, own + own_values):
                    volume[i] = float32(sums[i])
