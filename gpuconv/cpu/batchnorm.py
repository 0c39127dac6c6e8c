"""Batch normalisation in two passes over memory forward and two backward; statistics block by block in the cache."""

from __future__ import annotations

import numpy as np

from .layout import accumulator
from .parallel import for_each, quiet, scratch
from .reduce import Planes, Rows, channel_layout, pieces


@quiet
def batchnorm_forward(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    running_mean: np.ndarray,
    running_var: np.ndarray,
    *,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    layout, kind = channel_layout(x), accumulator(x.dtype)
    view = layout.view(x)
    if training and x.shape[0]:
        mean, var = _moments(view, layout, kind)
        running_mean[...] = momentum * running_mean.astype(np.float64) + (1 - momentum) * mean
        running_var[...] = momentum * running_var.astype(np.float64) + (1 - momentum) * var
    else:
        mean, var = running_mean.astype(np.float64), running_var.astype(np.float64)
    centre = mean.astype(kind)
    inv_std = 1.0 / np.sqrt(var + eps)
    scale, shift = (gamma * inv_std).astype(kind), beta.astype(kind)
    y = np.empty_like(view)

    def normalise(part: tuple[int, slice]) -> None:
        piece, target = layout.widen(view[part[1]]), layout.widen(y[part[1]])
        out = target if y.dtype == kind else scratch("out", target.shape, kind)
        # Centred before it is scaled: a channel of one constant value becomes beta exactly.
        np.subtract(piece, layout.spread(centre, view[part[1]]), out=out, dtype=kind)
        np.multiply(out, layout.spread(scale, view[part[1]]), out=out)
        np.add(out, layout.spread(shift, view[part[1]]), out=out)
        if out is not target:
            np.copyto(target, out, casting="same_kind")

    for_each(normalise, pieces(view, layout))
    return _like(y, x, layout), centre, inv_std.astype(kind)


@quiet
def batchnorm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, inv_std: np.ndarray, *, training: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    layout, kind = channel_layout(x), accumulator(x.dtype)
    x_view, dy_view = layout.view(x), layout.view(dy)
    parts = pieces(x_view, layout)
    sums = np.zeros((2, len(parts), layout.channels))  # of dy, and of dy (x - mean)

    def reduce(part: tuple[int, slice]) -> None:
        index, where = part
        gradient = dy_view[where].astype(kind, copy=False)
        product = scratch("product", layout.widen(gradient).shape, kind)
        np.subtract(layout.widen(x_view[where]), layout.spread(mean, x_view[where]), out=product, dtype=kind)
        np.multiply(product, layout.widen(gradient), out=product)
        sums[0, index] = layout.sums(gradient)
        sums[1, index] = layout.sums(product)

    for_each(reduce, parts)
    dbeta, weighted = sums.sum(axis=1)
    inv_std64 = inv_std.astype(np.float64)
    dgamma = weighted * inv_std64

    # dx = gamma inv_std (dy - mean(dy) - x^ mean(dy x^)); without training the statistics are constants.
    count = max(1, x.size // layout.channels)
    scale = (gamma * inv_std64).astype(kind)
    level = (dbeta / count).astype(kind)
    slope = (dgamma / count * inv_std64).astype(kind)
    dx = np.empty_like(x_view)

    def propagate(part: tuple[int, slice]) -> None:
        where = part[1]
        piece = x_view[where]
        gradient, target = layout.widen(dy_view[where]), layout.widen(dx[where])
        out = target if dx.dtype == kind else scratch("out", target.shape, kind)
        if training:
            bend = scratch("product", target.shape, kind)
            np.subtract(layout.widen(piece), layout.spread(mean, piece), out=bend, dtype=kind)
            np.multiply(bend, layout.spread(slope, piece), out=bend)
            np.subtract(gradient, layout.spread(level, piece), out=out, dtype=kind)
            np.subtract(out, bend, out=out)
            np.multiply(out, layout.spread(scale, piece), out=out)
        else:
            np.multiply(gradient, layout.spread(scale, piece), out=out, dtype=kind)
        if out is not target:
            np.copyto(target, out, casting="same_kind")

    for_each(propagate, parts)
    return _like(dx, x, layout), dgamma.astype(gamma.dtype), dbeta.astype(gamma.dtype)


def _moments(view: np.ndarray, layout: Rows | Planes, kind: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and biased variance per channel, float64 (C,), in one pass over memory.

    Each block is centred on its own mean while it is in the cache, and the blocks are merged pairwise after Chan,
    Golub, LeVeque, Updating formulae and a pairwise algorithm for computing sample variances (1979): nothing cancels.
    """
    parts = pieces(view, layout)
    means = np.zeros((len(parts), layout.channels))
    squares = np.zeros_like(means)  # sums of squared deviations from the block's mean
    counts = np.zeros(len(parts))

    def work(part: tuple[int, slice]) -> None:
        index, where = part
        piece = view[where]
        wide = layout.widen(piece)
        counts[index] = piece.size // layout.channels
        centred = scratch("centred", wide.shape, kind)
        # From the first pixel: a constant channel gives zeros, a far-off one loses no digits.
        pivot = layout.first(piece).astype(kind)
        np.subtract(wide, layout.spread(pivot, piece), out=centred, dtype=kind)
        offset = layout.sums(centred) / counts[index]
        means[index] = pivot + offset
        rounded = means[index].astype(kind)
        np.subtract(wide, layout.spread(rounded, piece), out=centred, dtype=kind)
        np.multiply(centred, centred, out=centred)
        squares[index] = layout.sums(centred) - counts[index] * (means[index] - rounded) ** 2

    for_each(work, parts)
    count, mean, square = 0.0, np.zeros(layout.channels), np.zeros(layout.channels)
    for n, m, s in zip(counts, means, squares, strict=True):
        delta = m - mean if count else m
        square = square + s + delta**2 * (count * n / (count + n))
        mean = mean + delta * (n / (count + n)) if count else m
        count += n
    return mean, np.maximum(square, 0.0) / count


def _like(view: np.ndarray, x: np.ndarray, layout: Rows | Planes) -> np.ndarray:
    """Return a layout's view as an array of the shape and memory format of x."""
    if x.ndim == 4 and isinstance(layout, Rows):
        N, C, H, W = x.shape
        return view.reshape(N, H, W, C).transpose(0, 3, 1, 2)
    return view.reshape(x.shape)
