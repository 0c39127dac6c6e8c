"""Batch normalisation: planes (n, C, pixels), or rows (pixels, C) as one flat run.

Sums are kept in float64, which costs these loops little, so that they hold at any size, and statistics take one pass:
of the squares of what deviates from a channel's first value, float64 can lose the 29 digits that float32 lacks before
one is missed.  A channel of one value deviates by exactly 0.

Vectors per channel are repeated along a run of rows, so that the inner loop is long.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from numba import float64

from ...shapes import is_channels_last
from ..layout import empty_as, stored
from ..parallel import for_each, ranges, scratch
from .jit import compiled_pass, loop, read, write
from .pieces import add_products, add_row, add_row_products, add_up, fill

_BLOCK = 128 * 1024
_WIDE = 1024  # rows of fewer channels are joined to runs of about so many values
_FLOAT64 = np.dtype(np.float64)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and biased variance per channel, float64 (C,)."""
    cut = _Cut(x)
    (view,), C = cut.views(x), x.shape[1]
    first = x[0] if x.ndim == 2 else x[0, :, 0, 0]
    pivot = np.where(np.isfinite(first), first, 0).astype(x.dtype)
    offset, square = cut.sums(_row_moments if cut.width else _plane_moments, [view], pivot) / (x.size // C)
    return pivot + offset, np.maximum(square - offset**2, 0.0)


def normalise(x: np.ndarray, mean: np.ndarray, scale: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Return (x - mean) scale + beta."""
    y, cut = empty_as(x), _Cut(x)
    cut.apply(_row_normalise if cut.width else _plane_normalise, cut.views(x, y), mean, scale, beta)
    return y


def sums(dy: np.ndarray, x: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums per channel of dy and of dy (x - mean), float64 (C,)."""
    cut = _Cut(x)
    total, weighted = cut.sums(_row_sums if cut.width else _plane_sums, cut.views(dy, x), mean)
    return total, weighted


def propagate(
    dy: np.ndarray, x: np.ndarray, mean: np.ndarray, slope: np.ndarray, level: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Return (dy - level - (x - mean) slope) scale."""
    dx, cut = empty_as(x), _Cut(x)
    run = _row_propagate if cut.width else _plane_propagate
    cut.apply(run, cut.views(dy, x, dx), mean, slope, level, scale)
    return dx


def scaled(dy: np.ndarray, like: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return dy scale, in the memory format of another array."""
    dx, cut = empty_as(like), _Cut(like)
    cut.apply(_row_scaled if cut.width else _plane_scaled, cut.views(dy, dx), scale)
    return dx


class _Cut:
    """How arrays like x are walked over: as planes (width 0), or as rows of pixels, so many values in a run."""

    def __init__(self, x: np.ndarray) -> None:
        self._like = x
        self._C = x.shape[1]
        if x.ndim == 2 or is_channels_last(x):
            self.width = self._C * max(1, _WIDE // self._C)
            self._blocks = ranges(x.size, self.width * max(1, _BLOCK // self.width))
        else:
            self.width = 0
            self._blocks = ranges(x.shape[0], max(1, _BLOCK // prod(x.shape[1:])))

    def views(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Return arrays (N, C, pixels), or flat; those in another memory format as copies."""
        shape = (-1,) if self.width else (*self._like.shape[:2], prod(self._like.shape[2:]))
        return [array.reshape(shape) for array in stored(self._like, *arrays)]

    def sums(self, run: Callable[..., None], views: list[np.ndarray], vector: np.ndarray) -> np.ndarray:
        """Call run(*blocks, vector, two sums per channel) and return the sums of all blocks, (2, C)."""
        parts = np.zeros((len(self._blocks), 2, self._C))
        repeated = self._repeated(vector)

        def work(number: int) -> None:
            blocks = [view[slice(*self._blocks[number])] for view in views]
            wide = scratch("wide", (2, self.width), _FLOAT64)
            run(*blocks, repeated, *parts[number], *(wide if self.width else ()))

        for_each(work, range(len(parts)))
        return parts.sum(axis=0)

    def apply(self, run: Callable[..., None], views: list[np.ndarray], *vectors: np.ndarray) -> None:
        """Call run(*blocks, *vectors): backwards, for what the pass before read last is still in the cache."""
        repeated = [self._repeated(vector) for vector in vectors]
        for_each(lambda block: run(*(view[slice(*block)] for view in views), *repeated), self._blocks[::-1])

    def _repeated(self, vector: np.ndarray) -> np.ndarray:
        """Return a vector (C,) in the dtype of the data, repeated along a run."""
        return np.tile(vector.astype(self._like.dtype), max(1, self.width // max(1, self._C)))


@compiled_pass(read(3), read(1), write(1, float64), write(1, float64))
def _plane_moments(x, pivot, first, second):
    n, C, _ = x.shape
    for i in range(n):
        for c in range(C):
            a, b = add_up(x[i, c], float64(pivot[c]))
            first[c] += a
            second[c] += b


@compiled_pass(read(3), read(3), read(1), write(1, float64), write(1, float64))
def _plane_sums(dy, x, centre, total, weighted):
    n, C, _ = x.shape
    for i in range(n):
        for c in range(C):
            a, b = add_products(dy[i, c], x[i, c], float64(centre[c]))
            total[c] += a
            weighted[c] += b


@loop
def _fold(wide, total):
    """Add a run of sums, of several pixels side by side, to total (C,)."""
    C = len(total)
    for start in range(0, len(wide), C):
        for c in range(C):
            total[c] += wide[start + c]


@compiled_pass(read(1), read(1), *[write(1, float64)] * 4)
def _row_moments(x, pivot, first, second, wide_first, wide_second):
    size, width = len(x), len(pivot)
    fill(wide_first, 0.0)
    fill(wide_second, 0.0)
    for start in range(0, size, width):
        add_row(x[start : min(start + width, size)], pivot, wide_first, wide_second)
    _fold(wide_first, first)
    _fold(wide_second, second)


@compiled_pass(read(1), read(1), read(1), *[write(1, float64)] * 4)
def _row_sums(dy, x, centre, total, weighted, wide_total, wide_weighted):
    size, width = len(x), len(centre)
    fill(wide_total, 0.0)
    fill(wide_weighted, 0.0)
    for start in range(0, size, width):
        stop = min(start + width, size)
        add_row_products(dy[start:stop], x[start:stop], centre, wide_total, wide_weighted)
    _fold(wide_total, total)
    _fold(wide_weighted, weighted)


@compiled_pass(read(3), write(3), read(1), read(1), read(1))
def _plane_normalise(x, y, centre, scale, shift):
    n, C, pixels = x.shape
    for i in range(n):
        for c in range(C):
            a, b, d = centre[c], scale[c], shift[c]
            source, target = x[i, c], y[i, c]
            for j in range(pixels):
                target[j] = (source[j] - a) * b + d


@compiled_pass(read(1), write(1), read(1), read(1), read(1))
def _row_normalise(x, y, centre, scale, shift):
    size, width = len(x), len(centre)
    for start in range(0, size, width):
        source, target = x[start:], y[start:]
        for j in range(min(width, size - start)):
            target[j] = (source[j] - centre[j]) * scale[j] + shift[j]


@compiled_pass(read(3), read(3), write(3), read(1), read(1), read(1), read(1))
def _plane_propagate(dy, x, dx, centre, slope, level, scale):
    n, C, pixels = x.shape
    for i in range(n):
        for c in range(C):
            m, a, b, d = centre[c], slope[c], level[c], scale[c]
            g, v, target = dy[i, c], x[i, c], dx[i, c]
            for j in range(pixels):
                target[j] = (g[j] - b - (v[j] - m) * a) * d


@compiled_pass(read(1), read(1), write(1), read(1), read(1), read(1), read(1))
def _row_propagate(dy, x, dx, centre, slope, level, scale):
    size, width = len(x), len(centre)
    for start in range(0, size, width):
        g, v, target = dy[start:], x[start:], dx[start:]
        for j in range(min(width, size - start)):
            target[j] = (g[j] - level[j] - (v[j] - centre[j]) * slope[j]) * scale[j]


@compiled_pass(read(3), write(3), read(1))
def _plane_scaled(dy, dx, scale):
    n, C, pixels = dy.shape
    for i in range(n):
        for c in range(C):
            for j in range(pixels):
                dx[i, c, j] = dy[i, c, j] * scale[c]


@compiled_pass(read(1), write(1), read(1))
def _row_scaled(dy, dx, scale):
    size, width = len(dy), len(scale)
    for start in range(0, size, width):
        source, target = dy[start:], dx[start:]
        for j in range(min(width, size - start)):
            target[j] = source[j] * scale[j]
