"""Batch normalisation in passes over blocks of rows: two forward and two backward.

Everything is computed from deviations from the mean, or a number near it, so that nothing cancels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..layout import accumulator, empty_as
from ..parallel import for_each, scratch
from ..reduce import Channels, channels_of

_SAMPLE = 8 * 1024  # values that give a first idea of the mean


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and biased variance per channel, float64 (C,).

    Both come from the deviations from a pivot: var = mean(d^2) - mean(d)^2.  The rounding error of that grows with
    (mean - pivot)^2 / var.  So where the first pivot, the mean of a few pixels, turns out to lie further than one
    standard deviation from the mean, a second pass takes the mean itself: nothing ever cancels.
    """
    channels = channels_of(x)
    view = channels.view(x)
    first = view[0, : x.shape[1], 0]  # a constant channel deviates from its first value by exactly 0
    pivot = np.where(np.isfinite(first), first, 0).astype(accumulator(x.dtype))
    few = view[: max(1, _SAMPLE // view[0].size)]
    pivot += channels.sums(_deviations(few, pivot, channels)) / (few.size // x.shape[1])

    for _ in range(2):

        def terms(rows: slice, pivot: np.ndarray = pivot) -> tuple[np.ndarray, np.ndarray]:
            deviations = _deviations(view[rows], pivot, channels)
            return channels.sums(deviations), channels.sums(deviations, deviations)

        offset, square = _totals(terms, channels) / (x.size // x.shape[1])
        mean, var = pivot + offset, np.maximum(square - offset**2, 0.0)
        if not (offset**2 > var).any():
            break
        pivot = mean.astype(pivot.dtype)
    return mean, var


def normalise(x: np.ndarray, mean: np.ndarray, scale: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Return (x - mean) scale + beta."""
    channels, kind = channels_of(x), accumulator(x.dtype)
    view = channels.view(x)
    centre, factor, shift = (channels.spread(vector.astype(kind)) for vector in (mean, scale, beta))

    def compute(rows: slice, out: np.ndarray) -> None:
        np.subtract(view[rows], centre, out=out, dtype=kind)
        np.multiply(out, factor, out=out)
        np.add(out, shift, out=out)

    return _computed(compute, x, channels)


def sums(dy: np.ndarray, x: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums per channel of dy and of dy (x - mean), float64 (C,)."""
    channels, kind = channels_of(x), accumulator(x.dtype)
    x_view, dy_view = channels.view(x), channels.view(dy)

    def terms(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        gradient = dy_view[rows].astype(kind, copy=False)
        return channels.sums(gradient), channels.sums(gradient, _deviations(x_view[rows], mean, channels))

    total, weighted = _totals(terms, channels)
    return total, weighted


def propagate(
    dy: np.ndarray, x: np.ndarray, mean: np.ndarray, slope: np.ndarray, level: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Return (dy - level - (x - mean) slope) scale."""
    channels, kind = channels_of(x), accumulator(x.dtype)
    x_view, dy_view = channels.view(x), channels.view(dy)
    centre, tilt, base, factor = (channels.spread(vector.astype(kind)) for vector in (mean, slope, level, scale))

    def compute(rows: slice, out: np.ndarray) -> None:
        np.subtract(x_view[rows], centre, out=out, dtype=kind)
        np.multiply(out, tilt, out=out)
        np.add(out, base, out=out)
        np.subtract(dy_view[rows], out, out=out)
        np.multiply(out, factor, out=out)

    return _computed(compute, x, channels)


def scaled(dy: np.ndarray, like: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return dy scale, in the memory format of another array."""
    channels, kind = channels_of(like), accumulator(like.dtype)
    view, factor = channels.view(dy), channels.spread(scale.astype(kind))

    def compute(rows: slice, out: np.ndarray) -> None:
        np.multiply(view[rows], factor, out=out, dtype=kind)

    return _computed(compute, like, channels)


def _deviations(block: np.ndarray, centre: np.ndarray, channels: Channels) -> np.ndarray:
    """Return a block less one number per channel, in that number's dtype, in scratch memory."""
    out = scratch("deviations", block.shape, centre.dtype)
    return np.subtract(block, channels.spread(centre), out=out, dtype=centre.dtype)


def _totals(terms: Callable[[slice], tuple[np.ndarray, np.ndarray]], channels: Channels) -> np.ndarray:
    """Return the sums over blocks of two sums per channel, float64 (2, C)."""
    blocks = channels.blocks()
    sums = np.zeros((len(blocks), 2, channels.channels))

    def work(index: int) -> None:
        sums[index] = terms(blocks[index])

    for_each(work, range(len(blocks)))
    return sums.sum(axis=0)


def _computed(compute: Callable[[slice, np.ndarray], None], like: np.ndarray, channels: Channels) -> np.ndarray:
    """Return an array like another, of which compute(rows, out) fills some rows in the dtype of sums."""
    result, kind = empty_as(like), accumulator(like.dtype)
    view = channels.view(result)

    def work(rows: slice) -> None:
        target = view[rows]
        out = target if target.dtype == kind else scratch("out", target.shape, kind)
        compute(rows, out)
        if out is not target:
            np.copyto(target, out, casting="same_kind")

    for_each(work, channels.blocks())
    return result
