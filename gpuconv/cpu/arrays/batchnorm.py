"""Batch normalisation in two passes over memory forward and two backward; statistics block by block in the cache."""

from __future__ import annotations

import numpy as np

from ..layout import accumulator, empty_as
from ..parallel import for_each, scratch
from ..reduce import Planes, Rows, channel_layout, pieces

_NEAR = 2.0  # standard deviations between a mean and 0 below which nothing is subtracted from a channel


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and biased variance per channel, float64 (C,)."""
    layout = channel_layout(x)
    return _moments(layout.view(x), layout, accumulator(x.dtype))


def normalise(x: np.ndarray, mean: np.ndarray, var: np.ndarray, scale: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Return (x - mean) scale + beta."""
    layout, kind = channel_layout(x), accumulator(x.dtype)
    view = layout.view(x)
    # Centred before it is scaled, a channel of one constant value becomes beta exactly.  Where the mean is near 0 by
    # the measure of its channel, x scale + shift rounds as well: if all are, nothing need be subtracted.
    near = mean**2 <= _NEAR**2 * var
    shift = np.where(near, beta - mean * scale, beta).astype(kind)
    scale = scale.astype(kind)
    centre = np.where(near, 0.0, mean).astype(kind)
    centred = bool(centre.any())
    y = empty_as(view)

    def work(part: tuple[int, slice]) -> None:
        piece, target = layout.widen(view[part[1]]), layout.widen(y[part[1]])
        out = target if y.dtype == kind else scratch("out", target.shape, kind)
        if centred:
            np.subtract(piece, layout.spread(centre, view[part[1]]), out=out, dtype=kind)
            piece = out
        np.multiply(piece, layout.spread(scale, view[part[1]]), out=out, dtype=kind)
        np.add(out, layout.spread(shift, view[part[1]]), out=out)
        if out is not target:
            np.copyto(target, out, casting="same_kind")

    for_each(work, pieces(view, layout))
    return _like(y, x, layout)


def sums(dy: np.ndarray, x: np.ndarray, mean: np.ndarray, inv_std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums per channel of dy and of dy (x - mean), float64 (C,)."""
    layout, kind = channel_layout(x), accumulator(x.dtype)
    x_view, dy_view = layout.view(x), layout.view(dy)
    parts = pieces(x_view, layout)
    sums = np.zeros((2, len(parts), layout.channels))  # of dy, and of dy (x - centre)
    near = _near_zero(x_view, layout, mean, inv_std)
    centre = np.where(near, mean.dtype.type(0), mean)

    def work(part: tuple[int, slice]) -> None:
        index, where = part
        gradient = dy_view[where].astype(kind, copy=False)
        sums[0, index] = layout.sums(gradient)
        sums[1, index] = layout.product_sums(gradient, _deviations(x_view[where], centre, layout, kind))

    for_each(work, parts)
    total, weighted = sums.sum(axis=1)
    return total, weighted - np.where(near, mean * total, 0.0)


def propagate(
    dy: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    slope: np.ndarray,
    level: np.ndarray,
    scale: np.ndarray,
) -> np.ndarray:
    """Return (dy - level - (x - mean) slope) scale."""
    layout, kind = channel_layout(x), accumulator(x.dtype)
    x_view, dy_view = layout.view(x), layout.view(dy)
    near = _near_zero(x_view, layout, mean, inv_std)
    centre = np.where(near, mean.dtype.type(0), mean)
    level = (level - np.where(near, slope * mean, 0.0)).astype(kind)
    slope, scale = slope.astype(kind), scale.astype(kind)
    centred = bool(centre.any())
    dx = empty_as(x_view)

    def work(part: tuple[int, slice]) -> None:
        where = part[1]
        piece = x_view[where]
        gradient, target = layout.widen(dy_view[where]), layout.widen(dx[where])
        out = target if dx.dtype == kind else scratch("out", target.shape, kind)
        linear = layout.widen(piece)
        if centred:
            linear = np.subtract(linear, layout.spread(centre, piece), out=out, dtype=kind)
        np.multiply(linear, layout.spread(slope, piece), out=out, dtype=kind)
        np.add(out, layout.spread(level, piece), out=out)
        np.subtract(gradient, out, out=out)
        np.multiply(out, layout.spread(scale, piece), out=out)
        if out is not target:
            np.copyto(target, out, casting="same_kind")

    for_each(work, pieces(x_view, layout))
    return _like(dx, x, layout)


def scaled(dy: np.ndarray, like: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return dy scale, in the memory format of another array."""
    layout, kind = channel_layout(like), accumulator(like.dtype)
    view, scale = layout.view(dy), scale.astype(kind)
    dx = empty_as(view)

    def work(part: tuple[int, slice]) -> None:
        gradient, target = layout.widen(view[part[1]]), layout.widen(dx[part[1]])
        out = target if dx.dtype == kind else scratch("out", target.shape, kind)
        np.multiply(gradient, layout.spread(scale, view[part[1]]), out=out, dtype=kind)
        if out is not target:
            np.copyto(target, out, casting="same_kind")

    for_each(work, pieces(view, layout))
    return _like(dx, like, layout)


def _near_zero(view: np.ndarray, layout: Rows | Planes, mean: np.ndarray, inv_std: np.ndarray) -> np.ndarray:
    """Return for each channel whether a sum of dy x loses nothing that one of dy (x - mean) keeps, (C,) bool.

    That is so where the mean lies within a few standard deviations of 0.  inv_std knows the variance only with eps
    added, which hides a small one; so the first pixels must spread over half the mean, too.  A constant channel never
    counts as near (unless it is 0), and the gradient of its gamma is exactly 0.
    """
    near = np.abs(mean * inv_std) <= _NEAR
    first = view[: layout.sample]
    if first.size:
        axes = tuple(axis for axis in range(first.ndim) if axis != 1)
        spread = first.max(axis=axes).astype(mean.dtype) - first.min(axis=axes)
        near &= (spread >= 0.5 * np.abs(mean)) & ((spread > 0) | (mean == 0))
    return near


def _moments(view: np.ndarray, layout: Rows | Planes, kind: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and biased variance per channel, float64 (C,), in one pass over memory where that is exact enough.

    Both come from the deviations from a pivot: var = mean(d^2) - mean(d)^2.  The rounding error of that grows with
    (mean - pivot)^2 / var, so where the pivot turns out to lie further than one standard deviation from the mean, a
    second pass uses the mean itself: nothing ever cancels.  The first pivot is 0 where that is near enough by the first
    few pixels, else their mean; if it is 0 in all channels, nothing need be subtracted.
    """
    parts = pieces(view, layout)
    first = view[: layout.sample]
    # A first pixel as the origin: a constant channel is exactly its pivot, and deviates by exactly 0.
    origin = layout.first(first).astype(kind)
    near = _deviations(first, origin, layout, kind)
    offset, square = (
        sums / (first.size // layout.channels) for sums in (layout.sums(near), layout.product_sums(near, near))
    )
    guess = origin + offset
    pivot = np.where(guess**2 <= 0.25 * (square - offset**2), 0.0, guess).astype(kind)
    count = view.size // layout.channels

    for _ in range(2):
        sums = np.zeros((2, len(parts), layout.channels))  # of d and of d^2

        def work(part: tuple[int, slice], pivot: np.ndarray = pivot, sums: np.ndarray = sums) -> None:
            index, where = part
            deviations = _deviations(view[where], pivot, layout, kind)
            sums[0, index] = layout.sums(deviations)
            sums[1, index] = layout.product_sums(deviations, deviations)

        for_each(work, parts)
        offset, square = sums.sum(axis=1) / count
        mean, var = pivot + offset, np.maximum(square - offset**2, 0.0)
        if not (offset**2 > var).any():
            break
        pivot = mean.astype(kind)
    return mean, var


def _deviations(piece: np.ndarray, centre: np.ndarray, layout: Rows | Planes, kind: np.dtype) -> np.ndarray:
    """Return a piece less one number per channel, in the dtype of sums: in scratch memory, or itself if all are 0."""
    if not centre.any() and piece.dtype == kind:
        return piece
    deviations = scratch("centred", piece.shape, kind)
    np.subtract(layout.widen(piece), layout.spread(centre, piece), out=layout.widen(deviations), dtype=kind)
    return deviations


def _like(view: np.ndarray, x: np.ndarray, layout: Rows | Planes) -> np.ndarray:
    """Return a layout's view as an array of the shape and memory format of x."""
    if x.ndim == 4 and isinstance(layout, Rows):
        N, C, H, W = x.shape
        return view.reshape(N, H, W, C).transpose(0, 3, 1, 2)
    return view.reshape(x.shape)
