"""Where Winograd's method keeps the tolerance rule: in sums that are not made by a few large numbers.

Inside a window it mixes taps.  A pixel's rounding counts with all taps of a filter, also with those that do not meet it,
so an error grows with the sizes of all pixels and of all taps, whatever meets.  Its standard deviation is near

    0.3 u |x|_2 |w|_2          |.|_1 and |.|_2: the sum of absolute values, and the root of that of squares

The rule asks for c u S, S the sum of |x| |w| over the n pairs that meet.  Where sizes of pixels and of taps have nothing
to do with each other, S is near |x|_1 |w|_1 / n.  Then, with

    m = (|x|_1 / |x|_2)^2 (|w|_1 / |w|_2)^2 / n

S is sqrt(m / n) |x|_2 |w|_2, and five standard deviations are 1.5 sqrt(n / m) u S.  m is the number of pairs of one size
that would make the sum: 0.4 n in normal data, 0.2 n if half of them are 0, 0.04 n if all but a tenth are, about 1 beside
a pixel of 1e6.  From 1 on that is within the rule for any data, c = 4 + 2 sqrt(n), and from n / 28 on within that for
zero-mean data, c = 8.  Where few pairs are expected to meet, there may also be none, and S is 0: hence LEAST.  Sums of
fewer are made tap by tap.

Taps are also asked for one by one: filters with one that is (nearly) 0 in all channels make no sum at all of pixels that
are 0 but under that tap.  What is assumed is that no channel's large pixels lie where just its own taps are small.  In
the gradient of the filters x and dy are summed over all images, and it is assumed that a channel's large pixels do not
keep away from a filter's large gradients.  Nothing is assumed where a whole channel is 0: its products are exact zeros.
"""

from __future__ import annotations

import numpy as np

from .windows import Block

# The fewest pairs of one size that make a sum.  A window of normal data has 50 in 16 channels, of half-rectified data 25,
# and 12 where it stands in a corner of the picture.
LEAST = 8.0
# The same in the gradient of the filters.  Runs of up to 128 tiles add errors of 50 / sqrt(m) u S, five standard
# deviations of n pixels.
LEAST_PIXELS = 64.0
# The least part of the average tap's size that each of a filter's taps has to have.
_LEAST_TAP = 0.25
# Bounds of the sums of absolute values, squared, and of squares, so that neither they nor products leave float32.
SMALLEST, LARGEST = 2.0**-110, 2.0**112


def least_of_windows(totals: np.ndarray, squares: np.ndarray, channels: int) -> float | None:
    """Return the least |x|_1^2 / |x|_2^2 of a window for all filters, or None if there is none.

    totals: float64 sums over channels of the absolute values of each filter's taps, (9, K); squares: of its squares, (K,).
    """
    sums, n = totals.sum(axis=0), 9 * channels
    some = sums != 0  # NaN, too
    totals, sums, squares = totals[:, some], sums[some], squares[some]
    if not sums.size:
        return 0.0
    bounded = (sums * sums >= SMALLEST) & (squares <= LARGEST)
    if not (bounded & (totals.min(axis=0) * 9 >= _LEAST_TAP * sums)).all():
        return None
    least = LEAST * n * float((squares / (sums * sums)).max())
    return least if least <= n else None


def windows_are_even(totals: np.ndarray, squares: np.ndarray, least: float) -> np.ndarray:
    """Return which of the 3x3 windows over pixels, (n, rows, columns), are: as loops do in loops/vectors.py."""
    total, square = _windows(totals), _windows(squares)
    even = (total * total >= np.float32(least) * square + np.float32(SMALLEST)) | (total == 0)
    return even & (square <= LARGEST)


def _windows(values: np.ndarray) -> np.ndarray:
    """Return the sums of 3x3 windows."""
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    return rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]


def uneven_rows(pieces: list[Block], even: np.ndarray) -> list[Block]:
    """Return the parts of blocks that are not even: whole, or rows of one image.

    even: which rows of tiles are, for each block and image, (blocks, images, rows of two outputs).
    """
    uneven = []
    for number in np.flatnonzero(~even.all(axis=(1, 2))):
        piece = pieces[number]
        here = even[number, : piece.n1 - piece.n0, : -(-(piece.p1 - piece.p0) // 2)]
        if not here.any():
            uneven.append(piece)
            continue
        for image, rows in enumerate(here):
            ends = np.flatnonzero(np.diff(rows, prepend=True, append=True)).reshape(-1, 2).tolist()
            n0 = piece.n0 + image
            uneven += [Block(n0, n0 + 1, piece.p0 + 2 * y0, min(piece.p0 + 2 * y1, piece.p1)) for y0, y1 in ends]
    return uneven


def uneven_gradients(x: np.ndarray, dy: np.ndarray, pixels: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which filters and which channels have gradients that are not even: those of all others are.

    x, dy: sums over so many pixels and outputs of absolute values and of squares, (2, C) and (2, K).
    """
    share = _share(dy, outputs)[:, None] * _share(x, pixels)
    uneven = ~(share * outputs >= LEAST_PIXELS)  # NaN, too
    filters = uneven.mean(axis=1) > 0.5
    return np.flatnonzero(filters), np.flatnonzero(uneven[~filters].any(axis=0))


def _share(sums: np.ndarray, count: int) -> np.ndarray:
    """Return |.|_1^2 / |.|_2^2 / count: 1 for values of one size; infinite where all are 0, NaN where some are too large."""
    totals, squares = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        share = totals * totals / (squares * count)
    share[totals == 0] = np.inf
    share[~((squares <= LARGEST) & ((totals == 0) | (totals * totals >= SMALLEST)))] = np.nan
    return share
