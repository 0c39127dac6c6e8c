"""Max-pooling tap by tap, columns first and then rows: R + S passes over strided views, no window is ever gathered."""

from __future__ import annotations

import numpy as np

from ...shapes import PoolSizes, is_channels_last
from ..layout import accumulator, scratch_images, scratch_like
from ..parallel import BLOCK_ELEMENTS, for_each
from ..runs import RunningSum
from ..taps import column_taps, image_ranges, row_taps, taps

_BOOL = np.dtype(bool)


def forward(x: np.ndarray, best: np.ndarray, place: np.ndarray, z: PoolSizes) -> None:
    """Fill best with the maxima and place with where in their windows they lie."""

    def work(images: slice) -> None:
        _forward(x[images], best[images], place[images], z)

    for_each(work, image_ranges(x, BLOCK_ELEMENTS))


def backward(dy: np.ndarray, place: np.ndarray, dx: np.ndarray, z: PoolSizes) -> None:
    """Fill dx: each entry of dy goes to the place of its maximum."""

    def work(images: slice) -> None:
        _backward(dy[images], place[images], dx[images], z)

    for_each(work, image_ranges(dx, BLOCK_ELEMENTS))


def _forward(x: np.ndarray, best: np.ndarray, place: np.ndarray, z: PoolSizes) -> None:
    """Pool a block of images."""
    first = _first_taps(z).astype(place.dtype)
    place[...] = first
    if not _has_minus_zero(x):
        _pool(x, best, place, z)
        if not np.isnan(_stored(best).max(initial=-np.inf)):
            return
        place[...] = first
    _pool_exactly(x, best, place, z)


def _backward(dy: np.ndarray, place: np.ndarray, dx: np.ndarray, z: PoolSizes) -> None:
    """Fill dx of a block of images."""
    # Windows side by side: every pixel under one is written exactly once, so nothing is added, and only what the
    # floor leaves over is cleared.
    tiled = z.stride == (z.R, z.S) and z.pad == (0, 0)
    bits, kind = np.dtype(f"i{dy.dtype.itemsize}"), accumulator(dy.dtype)
    gradient = dy.view(bits)
    total = dx if dx.dtype == kind else scratch_like("total", dx, kind)
    if tiled:
        dx[:, :, z.P * z.R :] = 0
        dx[:, :, :, z.Q * z.S :] = 0
    else:
        total.fill(0)
    added = RunningSum(total, 0 if tiled else z.R * z.S)
    for index, source, target in taps(z):
        here = place[target]
        mine = scratch_like("mine", here, _BOOL)
        np.equal(here, here.dtype.type(index), out=mine)
        # All ones or all zeros: selecting by bits is exact for infinities, where multiplying is not.
        mask = scratch_like("mask", here, bits)
        np.copyto(mask, np.negative(mine.view(np.int8), out=mine.view(np.int8)))
        if tiled:
            np.bitwise_and(mask, gradient[target], out=dx[source].view(bits))
        else:
            np.bitwise_and(mask, gradient[target], out=mask)
            pixels = added.next()[source]
            np.add(pixels, mask.view(dy.dtype), out=pixels)
    added.close()
    if not tiled and total is not dx:
        np.copyto(dx, total, casting="same_kind")


def _pool(x: np.ndarray, best: np.ndarray, place: np.ndarray, z: PoolSizes) -> None:
    """Fill best with the maxima and place, which holds each window's first tap, with where they come from.

    Along the columns first: then an earlier row is earlier in row order, and a later one must be greater to win.  Two
    things are left to _pool_exactly: where the maximum comes out NaN, its place is wrong; of 0 and -0, NumPy's maximum
    may take either.
    """
    shape = (x.shape[0], z.C, z.H, z.Q)
    channels_last = is_channels_last(best)
    high = scratch_images("high", shape, x.dtype, channels_last=channels_last)
    column = scratch_images("column", shape, place.dtype, channels_last=channels_last)  # s of the winner in each row
    columns = column_taps(z)
    started = _cover(columns, z.Q)
    if started:
        (_, w0, _), (_, w1, _), *columns = columns
        wins = _greater(x[..., w1], x[..., w0])
        np.copyto(column, wins.view(np.uint8))  # 0 or 1: the very number of the column
        np.maximum(x[..., w0], x[..., w1], out=high)
    else:
        column[...] = place[:, :, :1] % z.S
    for i, (s, w, q) in enumerate(columns):
        values, target = x[..., w], high[..., q]
        if i == 0 and not started:
            if target.shape != high.shape:  # the other windows start with a later tap
                high.fill(-np.inf)
            np.copyto(target, values)
            continue
        # Later columns have larger numbers: the maximum of win * number is the last winner.
        wins, number = _greater(values, target), scratch_like("number", target, place.dtype)
        np.multiply(wins.view(np.uint8), place.dtype.type(s), out=number)
        np.maximum(column[..., q], number, out=column[..., q])
        np.maximum(values, target, out=target)

    rows = row_taps(z)
    started = _cover(rows, z.P)
    if started:
        (_, h0, _), (_, h1, _), *rows = rows
        top, bottom = high[:, :, h0], high[:, :, h1]
        _move(place, column[:, :, h0], column[:, :, h1], z.S, _greater(bottom, top))
        np.maximum(top, bottom, out=best)
    for i, (r, h, p) in enumerate(rows):
        values, columns_here, target, so_far = high[:, :, h], column[:, :, h], best[:, :, p], place[:, :, p]
        if i == 0 and not started:
            if target.shape != best.shape:
                best.fill(-np.inf)
            np.copyto(target, values)
            np.add(columns_here, place.dtype.type(r * z.S), out=so_far)
            continue
        _move(so_far, so_far, columns_here, r * z.S, _greater(values, target))
        np.maximum(values, target, out=target)


def _cover(taps: list[tuple[int, slice, slice]], windows: int) -> bool:
    """Return whether taps 0 and 1 lie in the image for every window: then one comparison starts both."""
    return [(tap, of) for tap, _, of in taps[:2]] == [(0, slice(0, windows)), (1, slice(0, windows))]


def _greater(values: np.ndarray, than: np.ndarray) -> np.ndarray:
    """Return where values are greater, in scratch memory."""
    return np.greater(values, than, out=scratch_like("wins", than, _BOOL))


def _move(place: np.ndarray, old: np.ndarray, column: np.ndarray, first: int, wins: np.ndarray) -> None:
    """Write first + column where there is a win, else old."""
    number = scratch_like("moved", column, place.dtype)
    np.add(column, place.dtype.type(first), out=number)
    np.subtract(number, old, out=number)  # modulo 256 where places are bytes
    np.multiply(number, wins.view(np.uint8), out=number)
    np.add(old, number, out=place)


def _pool_exactly(x: np.ndarray, best: np.ndarray, place: np.ndarray, z: PoolSizes) -> None:
    """Like _pool, also where a window holds NaN, the first of which wins, or zeros of both signs."""
    best.fill(-np.inf)
    for index, source, target in taps(z):
        values, so_far = x[source], best[target]
        wins = (values > so_far) | (np.isnan(values) & ~np.isnan(so_far))
        place[target][wins] = index
        so_far[wins] = values[wins]


def _first_taps(z: PoolSizes) -> np.ndarray:
    """Return the number of the first tap inside the image for every window, (P, Q)."""
    rows = np.maximum(0, z.pad[0] - np.arange(z.P) * z.stride[0])
    columns = np.maximum(0, z.pad[1] - np.arange(z.Q) * z.stride[1])
    return rows[:, None] * z.S + columns


def _has_minus_zero(x: np.ndarray) -> bool:
    """True if -0 is among the values: its bits are the smallest signed integer."""
    bits = np.dtype(f"i{x.dtype.itemsize}")
    return x.size > 0 and bool(_stored(x).view(bits).min() == np.iinfo(bits).min)


def _stored(y: np.ndarray) -> np.ndarray:
    """Return y with its axes in the order of storage: NumPy walks it fastest that way."""
    return y.transpose(0, 2, 3, 1) if is_channels_last(y) else y
