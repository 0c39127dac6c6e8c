"""Arrays seen with their channels on an axis of their own, and sums over everything but the channels.

Sums are accurate and reproducible, at any size: in float32 at most 16 values are added in one running sum, the rest in
float64, in an order that depends on the shape alone.  Each addition rounds by at most u = 2^-24 of the sum so far.  If
all errors had one sign and that size, a running sum of n values of one sign would be off by (n / 2 + 1) u, 9 u here, the
8 u and the u of the result that the rule allows.  Equal values come nearest, with n / 4 + 1 = 5 u; of n values at random
0.25 sqrt(n) u = 1 u is left, and less with every further sum that is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ..shapes import is_channels_last
from .compiled import passes
from .layout import stored_order
from .parallel import BLOCK_ELEMENTS, for_each, quiet, ranges

# The longest running sum in float32, and how many of them einsum adds up side by side where values lie in a row.
_RUN, _SIDE_BY_SIDE = 16, 4
# Where channels lie together, pixels are joined to rows of up to so many values: NumPy is slow at short ones.
_WIDE = 1024
# Up to this width a row meets a value for each of its own: NumPy is slower at repeating one along a plane.
_WIDEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Channels:
    """How to see arrays as (rows, columns, pixels), where a column is of one channel.

    With channels first a row is an image, and its columns are planes.  With channels last a row is several pixels, and
    its columns are single values.
    """

    channels: int
    rows: int
    columns: int
    pixels: int

    def view(self, array: np.ndarray) -> np.ndarray:
        """Return an array of the shape this was made for, (rows, columns, pixels); a copy if it is stored otherwise."""
        stored = array.transpose(0, 2, 3, 1) if array.ndim == 4 and self.pixels == 1 else array
        return np.ascontiguousarray(stored).reshape(self.rows, self.columns, self.pixels)

    def spread(self, vector: np.ndarray) -> np.ndarray:
        """Return one value per channel in the form that broadcasts against a view."""
        by_column = np.tile(vector, self.columns // self.channels)[:, None]
        return by_column if self.columns * self.pixels > _WIDEST else np.repeat(by_column, self.pixels, axis=1)

    def blocks(self) -> list[slice]:
        """Return the rows of a view in blocks of about equal size."""
        return [slice(*rows) for rows in ranges(self.rows, max(1, BLOCK_ELEMENTS // (self.columns * self.pixels)))]

    def sums(self, *factors: np.ndarray) -> np.ndarray:
        """Return the sum per channel of one block of a view, or of the product of two, float64 (C,)."""
        rows, pixels = factors[0].shape[0], factors[0].shape[2]
        across = _divisor(pixels, _SIDE_BY_SIDE * _RUN)
        down = _divisor(rows, max(1, _RUN // across))
        runs = [factor.reshape(rows // down, down, -1, across) for factor in factors]
        sums = np.einsum("arcp->ac" if len(runs) == 1 else "arcp,arcp->ac", *runs)
        return sums.sum(axis=0, dtype=np.float64).reshape(-1, self.channels, pixels // across).sum(axis=(0, 2))


def channels_of(x: np.ndarray) -> Channels:
    """Return how to see x, (N, C) or (N, C, H, W), without copying where its storage allows it."""
    N, C, pixels = x.shape[0], x.shape[1], prod(x.shape[2:])
    if x.ndim == 4 and pixels > 1 and not is_channels_last(x):
        return Channels(C, N, C, pixels)
    joined = _divisor(N * pixels, max(1, _WIDE // C))
    return Channels(C, N * pixels // joined, joined * C, 1)


def _divisor(number: int, most: int) -> int:
    """Return the largest divisor of a number that is no larger than another."""
    return next(divisor for divisor in range(most, 0, -1) if number % divisor == 0)


def all_finite(x: np.ndarray) -> bool:
    """Return whether no element is NaN or infinite."""
    return bool(_of_blocks("finite", x, np.dtype(bool)).all())


def square_sum(x: np.ndarray) -> float:
    """Return the sum of the squares of all elements, added up in float64."""
    return float(_of_blocks("square_sum", x, np.dtype(np.float64)).sum())


@quiet
def _of_blocks(function: str, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return what a pass, function(x, result), says of each block."""
    run = passes("reduce", x.dtype)
    one_pass = getattr(run, function)
    (flat,) = stored_order(np.require(x, requirements="A")) or [np.ascontiguousarray(x).reshape(-1)]
    if 0 < flat.size <= run.BLOCK:  # nothing to share
        result = np.empty(1, dtype)
        one_pass(flat, result)
        return result
    blocks = ranges(flat.size, run.BLOCK)
    results = np.empty(len(blocks), dtype)

    def work(index: int) -> None:
        one_pass(flat[slice(*blocks[index])], results[index : index + 1])

    for_each(work, range(len(blocks)))
    return results


@quiet
def channel_sums(x: np.ndarray) -> np.ndarray:
    """Return the sums of (N, C) or (N, C, H, W) over all axes but the second, float64 (C,)."""
    return passes("reduce", x.dtype).channel_sums(x)
