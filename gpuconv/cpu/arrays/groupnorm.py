"""Group normalisation, a block of images at a time: all passes but the first and the last run in the cache."""

from __future__ import annotations

import numpy as np

from ..parallel import BLOCK_ELEMENTS, for_each, scratch
from ..taps import image_ranges


def forward(
    x: np.ndarray,
    y: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    eps: float,
) -> None:
    """Fill y, and mean and inv_std (N, groups)."""

    def work(images: slice) -> None:
        _forward(x[images], y[images], scale, shift, mean[images], inv_std[images], eps)

    for_each(work, image_ranges(x, BLOCK_ELEMENTS))


def backward(
    dy: np.ndarray, x: np.ndarray, dx: np.ndarray, scale: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fill dx; return the sums per channel of dy x_hat and of dy, float64 (C,)."""
    blocks = image_ranges(x, BLOCK_ELEMENTS)
    sums = np.zeros((len(blocks), 2, x.shape[1]))

    def work(index: int) -> None:
        images = blocks[index]
        sums[index] = _backward(dy[images], x[images], dx[images], scale, mean[images], inv_std[images])

    for_each(work, range(len(blocks)))
    weighted, total = sums.sum(axis=0)
    return weighted, total


def _forward(
    x: np.ndarray,
    y: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    eps: float,
) -> None:
    """Fill y, and mean and inv_std (n, groups), of a block of images."""
    groups, kind = mean.shape[1], scale.dtype
    values = _images("values", x, kind)
    rows = values.reshape(-1, values[0].size // groups)
    # Deviations from a first value, then from their mean: nothing cancels, and equal values end at exactly 0.
    first = rows[:, :1].copy()
    np.subtract(rows, first, out=rows)
    offset = _row_means(rows)
    np.subtract(rows, offset, out=rows)
    square = scratch("square", rows.shape, kind)
    np.multiply(rows, rows, out=square)
    factor = (1.0 / np.sqrt(_row_means(square).astype(np.float64) + eps)).astype(kind)
    mean[...], inv_std[...] = (first + offset).reshape(-1, groups), factor.reshape(-1, groups)
    np.multiply(rows, factor, out=rows)
    np.multiply(values, _by_channel(scale, x.ndim), out=values)
    np.add(values, _by_channel(shift, x.ndim), out=values)
    np.copyto(y, values.reshape(y.shape), casting="same_kind")


def _backward(
    dy: np.ndarray, x: np.ndarray, dx: np.ndarray, scale: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fill dx of a block of images; return the sums per channel of dy x_hat and of dy, float64 (C,)."""
    kind = scale.dtype
    x_hat, gradient = _images("values", x, kind), _images("gradient", dy, kind)
    size = x_hat[0].size // mean.shape[1]
    rows, factor = x_hat.reshape(-1, size), inv_std.reshape(-1, 1)
    np.subtract(rows, mean.reshape(-1, 1), out=rows)
    np.multiply(rows, factor, out=rows)
    product = scratch("square", x_hat.shape, kind)
    np.multiply(gradient, x_hat, out=product)
    sums = _channel_sums(product), _channel_sums(gradient)

    by_channel = _by_channel(scale, x.ndim)
    np.multiply(gradient, by_channel, out=gradient)
    np.multiply(product, by_channel, out=product)
    np.multiply(rows, _row_means(product.reshape(-1, size)), out=rows)
    through = gradient.reshape(-1, size)
    np.subtract(through, _row_means(through), out=through)
    np.subtract(through, rows, out=through)
    np.multiply(through, factor, out=through)
    np.copyto(dx, gradient.reshape(dx.shape), casting="same_kind")
    return sums


def _images(slot: str, piece: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Return a copy in scratch memory, (n, C) or (n, C, pixels) without gaps: a group is then one row."""
    copy = scratch(slot, piece.shape, kind)
    np.copyto(copy, piece)
    return copy if piece.ndim == 2 else copy.reshape(*piece.shape[:2], -1)


def _by_channel(vector: np.ndarray, ndim: int) -> np.ndarray:
    """Return one value per channel in the form that broadcasts against _images."""
    return vector if ndim == 2 else vector[:, None]


def _row_means(rows: np.ndarray) -> np.ndarray:
    """Return the means of rows, (n, 1); NumPy adds up along a row in pairs, so the error hardly grows."""
    return np.add.reduce(rows, axis=1, keepdims=True) / rows.dtype.type(rows.shape[1])


def _channel_sums(values: np.ndarray) -> np.ndarray:
    """Return the sums over all axes but the second, float64 (C,)."""
    per_image = np.add.reduce(values, axis=2) if values.ndim == 3 else values
    return np.add.reduce(per_image, axis=0, dtype=np.float64)
