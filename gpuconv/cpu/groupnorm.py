"""Group normalisation, a block of images at a time: all passes but the first and the last run in the cache."""

from __future__ import annotations

from math import prod

import numpy as np

from .layout import accumulator, empty_as
from .parallel import BLOCK_ELEMENTS, for_each, quiet, ranges, scratch


@quiet
def groupnorm_forward(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, *, groups: int, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    N, kind = x.shape[0], accumulator(x.dtype)
    y = empty_as(x)
    mean, inv_std = np.empty((N, groups), kind), np.empty((N, groups), kind)
    scale, shift = _by_channel(gamma.astype(kind), x.ndim), _by_channel(beta.astype(kind), x.ndim)

    def work(images: tuple[int, int]) -> None:
        part = slice(*images)
        values = _images("values", x[part], kind)
        rows = values.reshape(-1, values[0].size // groups)
        # Deviations from a first value, then from their mean: nothing cancels, and equal values end at exactly 0.
        first = rows[:, :1].copy()
        np.subtract(rows, first, out=rows)
        offset = _row_means(rows)
        np.subtract(rows, offset, out=rows)
        square = scratch("square", rows.shape, kind)
        np.multiply(rows, rows, out=square)
        factor = (1.0 / np.sqrt(_row_means(square).astype(np.float64) + eps)).astype(kind)
        mean[part], inv_std[part] = (first + offset).reshape(-1, groups), factor.reshape(-1, groups)
        np.multiply(rows, factor, out=rows)
        np.multiply(values, scale, out=values)
        np.add(values, shift, out=values)
        np.copyto(y[part], values.reshape(y[part].shape), casting="same_kind")

    for_each(work, _blocks(x))
    return y, mean, inv_std


@quiet
def groupnorm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    C, groups, kind = x.shape[1], mean.shape[1], accumulator(x.dtype)
    dx, blocks = empty_as(x), _blocks(x)
    scale = _by_channel(gamma.astype(kind), x.ndim)
    sums = np.zeros((2, len(blocks), C))  # of dy x_hat and of dy

    def work(block: tuple[int, tuple[int, int]]) -> None:
        index, images = block
        part = slice(*images)
        x_hat, gradient = _images("values", x[part], kind), _images("gradient", dy[part], kind)
        size = x_hat[0].size // groups
        rows, factor = x_hat.reshape(-1, size), inv_std[part].reshape(-1, 1)
        np.subtract(rows, mean[part].reshape(-1, 1), out=rows)
        np.multiply(rows, factor, out=rows)
        product = scratch("square", x_hat.shape, kind)
        np.multiply(gradient, x_hat, out=product)
        sums[0, index], sums[1, index] = _channel_sums(product), _channel_sums(gradient)

        np.multiply(gradient, scale, out=gradient)
        np.multiply(product, scale, out=product)
        np.multiply(rows, _row_means(product.reshape(-1, size)), out=rows)
        through = gradient.reshape(-1, size)
        np.subtract(through, _row_means(through), out=through)
        np.subtract(through, rows, out=through)
        np.multiply(through, factor, out=through)
        np.copyto(dx[part], gradient.reshape(dx[part].shape), casting="same_kind")

    for_each(work, list(enumerate(blocks)))
    dgamma, dbeta = sums.sum(axis=1)
    return dx, dgamma.astype(gamma.dtype), dbeta.astype(gamma.dtype)


def _blocks(x: np.ndarray) -> list[tuple[int, int]]:
    return ranges(x.shape[0], max(1, BLOCK_ELEMENTS // prod(x.shape[1:])))


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
