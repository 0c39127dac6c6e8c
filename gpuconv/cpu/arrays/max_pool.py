"""Max-pooling tap by tap: passes over strided views of a block of images, no window is ever gathered."""

from __future__ import annotations

import numpy as np

from ...pool_shapes import PoolSizes, VolumePoolSizes
from .. import pool_volume
from ..layout import accumulator, scratch_like
from ..parallel import BLOCK_ELEMENTS, for_each
from ..runs import RunningSum
from ..taps import Sizes, columns_apart, first_taps, image_ranges, rows_apart, taps
from .bits import keep_where

_BOOL = np.dtype(bool)


def forward(x: np.ndarray, best: np.ndarray, place: np.ndarray, z: Sizes) -> None:
    """Fill best with the maxima and place with where in their windows they lie."""
    if isinstance(z, VolumePoolSizes):
        pool_volume.max_pool_forward(x, best, place, z)
        return

    def work(images: slice) -> None:
        _forward(x[images], best[images], place[images], z)

    for_each(work, image_ranges(x, BLOCK_ELEMENTS))


def backward(dy: np.ndarray, place: np.ndarray, dx: np.ndarray, z: Sizes) -> None:
    """Fill dx: each entry of dy goes to the place of its maximum."""
    if isinstance(z, VolumePoolSizes):
        pool_volume.max_pool_backward(dy, place, dx, z)
        return

    def work(images: slice) -> None:
        _backward(dy[images], place[images], dx[images], z)

    for_each(work, image_ranges(dx, BLOCK_ELEMENTS))


def _forward(x: np.ndarray, best: np.ndarray, place: np.ndarray, z: PoolSizes) -> None:
    """Pool a block of images."""
    best.fill(-np.inf)
    place[...] = first_taps(z)
    plain = not (_has_minus_zero(x) or np.isnan(x.max(initial=-np.inf)))
    for index, source, target in taps(z):
        so_far, number = best[target], place[target]
        values = scratch_like("values", so_far, x.dtype)
        np.copyto(values, x[source])  # pixels a stride apart are read once, not by each function below
        wins = np.greater(values, so_far, out=scratch_like("wins", so_far, _BOOL))
        if plain:
            np.maximum(so_far, values, out=so_far)
        else:  # the first NaN wins, and of 0 and -0 the first, where NumPy's maximum may take either
            wins |= np.isnan(values) & ~np.isnan(so_far)
            np.copyto(so_far, values, where=wins)
        # Later taps have larger numbers: the maximum of win * number is the last winner.
        winner = scratch_like("winner", number, place.dtype)
        np.multiply(wins.view(np.uint8), place.dtype.type(index), out=winner)
        np.maximum(number, winner, out=number)


def _backward(dy: np.ndarray, place: np.ndarray, dx: np.ndarray, z: PoolSizes) -> None:
    """Fill dx of a block of images."""
    apart = rows_apart(z) and columns_apart(z)  # no pixel is under two windows: nothing is added
    kind = dx.dtype if apart else accumulator(dx.dtype)
    total = dx if dx.dtype == kind else scratch_like("total", dx, kind)
    total.fill(0)
    added = RunningSum(total, z.R * z.S)
    for index, source, target in taps(z):
        here = place[target]
        hit = np.equal(here, here.dtype.type(index), out=scratch_like("hit", here, _BOOL))
        if apart:
            keep_where(hit, dy[target], dx[source])
            continue
        mine = scratch_like("mine", here, dy.dtype)
        keep_where(hit, dy[target], mine)
        pixels = added.next()[source]
        np.add(pixels, mine, out=pixels)
    added.close()
    if total is not dx:
        np.copyto(dx, total, casting="same_kind")


def _has_minus_zero(x: np.ndarray) -> bool:
    """True if -0 is among the values: its bits are the smallest signed integer."""
    bits = np.dtype(f"i{x.dtype.itemsize}")
    return bool(x.view(bits).min(initial=0) == np.iinfo(bits).min)
