"""Group normalisation, of planes (N, C, pixels) or with channels last (N, pixels, C): rows, too.

Sums are kept in float64, and statistics take one pass, as in batchnorm.py.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64

from ...shapes import is_channels_last
from ..layout import stored
from ..parallel import scratch, share_out
from .atomic import COUNTER, take
from .jit import NUMBER, compiled_pass, read, write
from .pieces import add_products, add_row, add_row_products, add_up, fill, part

_BLOCK = 32 * 1024
_LEAST = 4  # blocks that are worth another thread
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
    """Fill y, and mean and inv_std (N, groups)."""
    channels_last, views, size = _cut(y, x, y)

    def work(counter: np.ndarray) -> None:
        if channels_last:
            _forward_last(counter, size, *views, scale, shift, mean, inv_std, eps, *_memory(x))
        else:
            _forward_first(counter, size, *views, scale, shift, mean, inv_std, eps)

    share_out(work, -(-len(x) // size), _LEAST)


def backward(
    dy: np.ndarray, x: np.ndarray, dx: np.ndarray, scale: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fill dx; return the sums per channel of dy x_hat and of dy, float64 (C,)."""
    channels_last, views, size = _cut(dx, dy, x, dx)
    count = -(-len(x) // size)
    sums = np.zeros((count, 2, x.shape[1]))

    def work(counter: np.ndarray) -> None:
        if channels_last:
            _backward_last(counter, size, *views, scale, mean, inv_std, sums, *_memory(x))
        else:
            _backward_first(counter, size, *views, scale, mean, inv_std, sums)

    share_out(work, count, _LEAST)
    weighted, total = sums.sum(axis=0)
    return weighted, total


def _cut(like: np.ndarray, *arrays: np.ndarray) -> tuple[bool, list[np.ndarray], int]:
    """Return whether channels are last, arrays with one axis of pixels, and how many images make a block."""
    N, C, *image = like.shape
    pixels = math.prod(image)
    channels_last = like.ndim == 2 or is_channels_last(like)
    shape = (N, pixels, C) if channels_last else (N, C, pixels)
    return channels_last, [array.reshape(shape) for array in stored(like, *arrays)], max(1, _BLOCK // (C * pixels))


def _memory(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return memory for four vectors and two sums per channel, of one image."""
    C = x.shape[1]
    return scratch("vectors", (4, C), x.dtype), scratch("wide", (2, C), _FLOAT64)


@compiled_pass(COUNTER, NUMBER, read(3), write(3), read(1), read(1), write(2), write(2), float64)
def _forward_first(counter, size, x, y, scale, shift, mean, inv_std, eps):
    N, C, pixels = x.shape
    channels = C // mean.shape[1]  # of a group
    count = channels * pixels
    while True:
        start = take(counter) * size
        if start >= N:
            return
        for i in range(start, min(start + size, N)):
            for g in range(mean.shape[1]):
                group = (i * C + g * channels) * pixels
                first, second = add_up(part(x, group, count), float64(x[i, g * channels, 0]))
                first /= count
                mean[i, g] = float64(x[i, g * channels, 0]) + first
                inv_std[i, g] = 1.0 / math.sqrt(max(second / count - first * first, 0.0) + eps)
                for c in range(channels):
                    m, slope, level = mean[i, g], inv_std[i, g] * scale[g * channels + c], shift[g * channels + c]
                    source, target = part(x, group + c * pixels, pixels), part(y, group + c * pixels, pixels)
                    for j in range(pixels):
                        target[j] = (source[j] - m) * slope + level


@compiled_pass(COUNTER, NUMBER, read(3), read(3), write(3), read(1), read(2), read(2), write(3, float64))
def _backward_first(counter, size, dy, x, dx, scale, mean, inv_std, sums):
    N, C, pixels = x.shape
    channels = C // mean.shape[1]
    count = channels * pixels
    while True:
        block = take(counter)
        if block * size >= N:
            return
        for i in range(block * size, min((block + 1) * size, N)):
            for g in range(mean.shape[1]):
                m, factor = mean[i, g], inv_std[i, g]
                level = slope = 0.0  # the means of gamma dy and of gamma dy x_hat
                for c in range(g * channels, (g + 1) * channels):
                    plane = (i * C + c) * pixels
                    total, weighted = add_products(part(dy, plane, pixels), part(x, plane, pixels), float64(m))
                    weighted *= factor
                    sums[block, 0, c] += weighted
                    sums[block, 1, c] += total
                    level += scale[c] * total
                    slope += scale[c] * weighted
                low, tilt = dx.dtype.type(level / count), dx.dtype.type(slope / count * factor)
                for c in range(g * channels, (g + 1) * channels):
                    gamma, plane = scale[c], (i * C + c) * pixels
                    up, source, target = part(dy, plane, pixels), part(x, plane, pixels), part(dx, plane, pixels)
                    for j in range(pixels):
                        target[j] = (gamma * up[j] - low - (source[j] - m) * tilt) * factor


_MEMORY = write(2), write(2, float64)


@compiled_pass(COUNTER, NUMBER, read(3), write(3), read(1), read(1), write(2), write(2), float64, *_MEMORY)
def _forward_last(counter, size, x, y, scale, shift, mean, inv_std, eps, vectors, sums):
    N, pixels, C = x.shape
    channels = C // mean.shape[1]
    count = channels * pixels
    pivots, means, slopes = part(vectors, 0, C), part(vectors, C, C), part(vectors, 2 * C, C)
    first, second = part(sums, 0, C), part(sums, C, C)
    while True:
        start = take(counter) * size
        if start >= N:
            return
        for i in range(start, min(start + size, N)):
            for c in range(C):
                pivots[c] = x[i, 0, c // channels * channels]
            fill(part(sums, 0, 2 * C), 0.0)
            for j in range(pixels):
                add_row(part(x, (i * pixels + j) * C, C), pivots, first, second)
            for g in range(mean.shape[1]):
                a = b = 0.0
                for c in range(g * channels, (g + 1) * channels):
                    a += first[c]
                    b += second[c]
                a /= count
                mean[i, g] = pivots[g * channels] + a
                inv_std[i, g] = 1.0 / math.sqrt(max(b / count - a * a, 0.0) + eps)
                for c in range(g * channels, (g + 1) * channels):
                    means[c] = mean[i, g]
                    slopes[c] = inv_std[i, g] * scale[c]
            for j in range(pixels):
                source, target = part(x, (i * pixels + j) * C, C), part(y, (i * pixels + j) * C, C)
                for c in range(C):
                    target[c] = (source[c] - means[c]) * slopes[c] + shift[c]


@compiled_pass(COUNTER, NUMBER, read(3), read(3), write(3), read(1), read(2), read(2), write(3, float64), *_MEMORY)
def _backward_last(counter, size, dy, x, dx, scale, mean, inv_std, sums, vectors, wide):
    N, pixels, C = x.shape
    channels = C // mean.shape[1]
    count = channels * pixels
    means, factors = part(vectors, 0, C), part(vectors, C, C)
    lows, tilts = part(vectors, 2 * C, C), part(vectors, 3 * C, C)
    totals, products = part(wide, 0, C), part(wide, C, C)
    while True:
        block = take(counter)
        if block * size >= N:
            return
        for i in range(block * size, min((block + 1) * size, N)):
            for c in range(C):
                means[c] = mean[i, c // channels]
                factors[c] = inv_std[i, c // channels]
            fill(part(wide, 0, 2 * C), 0.0)
            for j in range(pixels):
                row = (i * pixels + j) * C
                add_row_products(part(dy, row, C), part(x, row, C), means, totals, products)
            for g in range(mean.shape[1]):
                level = slope = 0.0
                for c in range(g * channels, (g + 1) * channels):
                    weighted = products[c] * factors[c]
                    sums[block, 0, c] += weighted
                    sums[block, 1, c] += totals[c]
                    level += scale[c] * totals[c]
                    slope += scale[c] * weighted
                for c in range(g * channels, (g + 1) * channels):
                    lows[c] = level / count
                    tilts[c] = slope / count * factors[c]
            for j in range(pixels):
                row = (i * pixels + j) * C
                up, source, target = part(dy, row, C), part(x, row, C), part(dx, row, C)
                for c in range(C):
                    target[c] = (scale[c] * up[c] - lows[c] - (source[c] - means[c]) * tilts[c]) * factors[c]
