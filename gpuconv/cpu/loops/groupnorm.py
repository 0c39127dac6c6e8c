"""Group normalisation of a block of images, as planes (n, C, pixels) or with channels last (n, pixels, C): rows, too.

Sums are kept in float64, and statistics take one pass, as in batchnorm.py.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64

from ...shapes import is_channels_last
from ..layout import stored
from ..parallel import scratch
from .jit import compiled_pass, read, write
from .pieces import add_products, add_row, add_row_products, add_up, fill

BLOCK = 128 * 1024
_FLOAT64 = np.dtype(np.float64)


def forward(
    x: np.ndarray,
    y: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    eps: float,
) -> None:
    """Fill y, and mean and inv_std (n, groups)."""
    if _is_last(y):
        _forward_last(*_last(y, x, y), scale, shift, mean, inv_std, eps, *_vectors(x, 3), *_sums(x))
    else:
        _forward_first(*_first(y, x, y), scale, shift, mean, inv_std, eps)


def backward(
    dy: np.ndarray,
    x: np.ndarray,
    dx: np.ndarray,
    scale: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    weighted: np.ndarray,
    total: np.ndarray,
) -> None:
    """Fill dx; add the sums per channel of dy x_hat to weighted and those of dy to total, float64 (C,)."""
    if _is_last(dx):
        views = _last(dx, dy, x, dx)
        _backward_last(*views, scale, mean, inv_std, weighted, total, *_vectors(x, 4), *_sums(x))
    else:
        _backward_first(*_first(dx, dy, x, dx), scale, mean, inv_std, weighted, total)


def _is_last(x: np.ndarray) -> bool:
    return x.ndim == 2 or is_channels_last(x)


def _first(like: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    return [array.reshape(*array.shape[:2], -1) for array in stored(like, *arrays)]


def _last(like: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    return [array.reshape(len(array), -1, like.shape[1]) for array in stored(like, *arrays)]


def _vectors(x: np.ndarray, count: int) -> np.ndarray:
    """Return memory for vectors per channel, of one image."""
    return scratch("vectors", (count, x.shape[1]), x.dtype)


def _sums(x: np.ndarray) -> np.ndarray:
    """Return memory for two sums per channel, of one image."""
    return scratch("wide", (2, x.shape[1]), _FLOAT64)


@compiled_pass(read(3), write(3), read(1), read(1), write(2), write(2), float64)
def _forward_first(x, y, scale, shift, mean, inv_std, eps):
    n, C, pixels = x.shape
    size = C // mean.shape[1]  # channels of a group
    for i in range(n):
        for g in range(mean.shape[1]):
            pivot = float64(x[i, g * size, 0])
            first = second = 0.0
            for c in range(g * size, (g + 1) * size):
                a, b = add_up(x[i, c], pivot)
                first += a
                second += b
            first /= size * pixels
            mean[i, g] = pivot + first
            inv_std[i, g] = 1.0 / math.sqrt(max(second / (size * pixels) - first * first, 0.0) + eps)
            m, factor = mean[i, g], inv_std[i, g]
            for c in range(g * size, (g + 1) * size):
                slope, level = factor * scale[c], shift[c]
                source, target = x[i, c], y[i, c]
                for j in range(pixels):
                    target[j] = (source[j] - m) * slope + level


@compiled_pass(read(3), read(3), write(3), read(1), read(2), read(2), write(1, float64), write(1, float64))
def _backward_first(dy, x, dx, scale, mean, inv_std, weighted, total):
    n, C, pixels = x.shape
    size = C // mean.shape[1]
    for i in range(n):
        for g in range(mean.shape[1]):
            m, factor = mean[i, g], inv_std[i, g]
            level = slope = 0.0  # the means of gamma dy and of gamma dy x_hat
            for c in range(g * size, (g + 1) * size):
                a, b = add_products(dy[i, c], x[i, c], float64(m))
                b *= factor
                total[c] += a
                weighted[c] += b
                level += scale[c] * a
                slope += scale[c] * b
            low = dx.dtype.type(level / (size * pixels))
            tilt = dx.dtype.type(slope / (size * pixels) * factor)
            for c in range(g * size, (g + 1) * size):
                gamma = scale[c]
                up, source, target = dy[i, c], x[i, c], dx[i, c]
                for j in range(pixels):
                    target[j] = (gamma * up[j] - low - (source[j] - m) * tilt) * factor


@compiled_pass(
    read(3), write(3), read(1), read(1), write(2), write(2), float64, *[write(1)] * 3, *[write(1, float64)] * 2
)
def _forward_last(x, y, scale, shift, mean, inv_std, eps, pivots, means, slopes, first, second):
    n, pixels, C = x.shape
    size = C // mean.shape[1]
    for i in range(n):
        for c in range(C):
            pivots[c] = x[i, 0, c // size * size]
        fill(first, 0.0)
        fill(second, 0.0)
        for j in range(pixels):
            add_row(x[i, j], pivots, first, second)
        for g in range(mean.shape[1]):
            a = b = 0.0
            for c in range(g * size, (g + 1) * size):
                a += first[c]
                b += second[c]
            a /= size * pixels
            mean[i, g] = pivots[g * size] + a
            inv_std[i, g] = 1.0 / math.sqrt(max(b / (size * pixels) - a * a, 0.0) + eps)
            for c in range(g * size, (g + 1) * size):
                means[c] = mean[i, g]
                slopes[c] = inv_std[i, g] * scale[c]
        for j in range(pixels):
            source, target = x[i, j], y[i, j]
            for c in range(C):
                target[c] = (source[c] - means[c]) * slopes[c] + shift[c]


@compiled_pass(
    read(3),
    read(3),
    write(3),
    read(1),
    read(2),
    read(2),
    *[write(1, float64)] * 2,
    *[write(1)] * 4,
    *[write(1, float64)] * 2,
)
def _backward_last(dy, x, dx, scale, mean, inv_std, weighted, total, means, factors, lows, tilts, sums, products):
    n, pixels, C = x.shape
    size = C // mean.shape[1]
    for i in range(n):
        for c in range(C):
            means[c] = mean[i, c // size]
            factors[c] = inv_std[i, c // size]
        fill(sums, 0.0)
        fill(products, 0.0)
        for j in range(pixels):
            add_row_products(dy[i, j], x[i, j], means, sums, products)
        for g in range(mean.shape[1]):
            level = slope = 0.0
            for c in range(g * size, (g + 1) * size):
                b = products[c] * factors[c]
                total[c] += sums[c]
                weighted[c] += b
                level += scale[c] * sums[c]
                slope += scale[c] * b
            for c in range(g * size, (g + 1) * size):
                lows[c] = level / (size * pixels)
                tilts[c] = slope / (size * pixels) * factors[c]
        for j in range(pixels):
            up, source, target = dy[i, j], x[i, j], dx[i, j]
            for c in range(C):
                target[c] = (scale[c] * up[c] - lows[c] - (source[c] - means[c]) * tilts[c]) * factors[c]
