"""Batch normalisation: planes (N, C, pixels), or rows (pixels, C) as one flat run.

Sums are kept in float64, which costs these loops little, so that they hold at any size, and statistics take one pass:
of the squares of what deviates from a channel's first value, float64 can lose the 29 digits that float32 lacks before
one is missed.  A channel of one value deviates by exactly 0.

Vectors per channel are repeated along a run of rows, so that the inner loop is long, but not beyond the L1 cache.  What
applies vectors to all values takes its blocks from the end: what the pass before read last is still in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from numba import float64

from ...shapes import is_channels_last
from ..layout import empty_as, stored
from ..parallel import scratch, share_out
from .atomic import COUNTER, take
from .jit import NUMBER, compiled_pass, loop, read, write
from .pieces import add_products, add_row, add_row_products, add_up, fill, part

_BLOCK = 32 * 1024
_WIDE = 128  # rows of fewer channels are joined to runs of about so many values
_LEAST = 4  # blocks that are worth another thread
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
    zero = np.zeros(len(scale))
    # Less 0, times scale, plus -0: of both, no value knows anything.
    cut.apply(_row_normalise if cut.width else _plane_normalise, cut.views(dy, dx), zero, scale, -zero)
    return dx


class _Cut:
    """How arrays like x are walked over: as planes (width 0), or as rows of pixels, so many values in a run."""

    def __init__(self, x: np.ndarray) -> None:
        self._like = x
        self._C = x.shape[1]
        if x.ndim == 2 or is_channels_last(x):
            self.width = self._C * max(1, _WIDE // self._C)
            self._size, total = self.width * max(1, _BLOCK // self.width), x.size
        else:
            self.width = 0
            self._size, total = max(1, _BLOCK // prod(x.shape[1:])), x.shape[0]
        self._count = -(-total // self._size)  # blocks

    def views(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Return arrays (N, C, pixels), or flat; those in another memory format as copies."""
        shape = (-1,) if self.width else (*self._like.shape[:2], prod(self._like.shape[2:]))
        return [array.reshape(shape) for array in stored(self._like, *arrays)]

    def sums(self, run: Callable[..., None], views: list[np.ndarray], vector: np.ndarray) -> np.ndarray:
        """Call run(counter, size of a block, *views, vector, two sums per channel of each block); return the sums, (2, C)."""
        parts = np.zeros((self._count, 2, self._C))
        vectors = self._repeated(vector)

        def work(counter: np.ndarray) -> None:
            wide = (scratch("wide", (2, self.width), _FLOAT64),) if self.width else ()
            run(counter, self._size, *views, vectors, parts, *wide)

        share_out(work, self._count, _LEAST)
        return parts.sum(axis=0)

    def apply(self, run: Callable[..., None], views: list[np.ndarray], *vectors: np.ndarray) -> None:
        """Call run(counter, number of blocks, size of a block, *views, vectors)."""
        repeated = self._repeated(*vectors)
        share_out(lambda counter: run(counter, self._count, self._size, *views, repeated), self._count, _LEAST)

    def _repeated(self, *vectors: np.ndarray) -> np.ndarray:
        """Return vectors (C,) in the dtype of the data, each repeated along a run."""
        repeated = np.empty((len(vectors), max(1, self.width // self._C), self._C), self._like.dtype)
        for i, vector in enumerate(vectors):
            repeated[i] = vector
        return repeated.reshape(len(vectors), -1)


@compiled_pass(COUNTER, NUMBER, read(3), read(2), write(3, float64))
def _plane_moments(counter, size, x, pivots, sums):
    N, C, pixels = x.shape
    pivot = part(pivots, 0, C)
    while True:
        block = take(counter)
        if block * size >= N:
            return
        first, second = part(sums, 2 * block * C, C), part(sums, (2 * block + 1) * C, C)
        for i in range(block * size, min((block + 1) * size, N)):
            for c in range(C):
                a, b = add_up(part(x, (i * C + c) * pixels, pixels), float64(pivot[c]))
                first[c] += a
                second[c] += b


@compiled_pass(COUNTER, NUMBER, read(3), read(3), read(2), write(3, float64))
def _plane_sums(counter, size, dy, x, centres, sums):
    N, C, pixels = x.shape
    centre = part(centres, 0, C)
    while True:
        block = take(counter)
        if block * size >= N:
            return
        total, weighted = part(sums, 2 * block * C, C), part(sums, (2 * block + 1) * C, C)
        for i in range(block * size, min((block + 1) * size, N)):
            for c in range(C):
                plane = (i * C + c) * pixels
                a, b = add_products(part(dy, plane, pixels), part(x, plane, pixels), float64(centre[c]))
                total[c] += a
                weighted[c] += b


@loop
def _fold(wide, sums):
    """Add a run of sums, of several pixels side by side, to those of channels."""
    for start in range(0, len(wide), len(sums)):
        for c in range(len(sums)):
            sums[c] += wide[start + c]


@compiled_pass(COUNTER, NUMBER, read(1), read(2), write(3, float64), write(2, float64))
def _row_moments(counter, size, x, pivots, sums, wide):
    width, C = pivots.shape[1], sums.shape[2]
    pivot = part(pivots, 0, width)
    first, second = part(wide, 0, width), part(wide, width, width)
    while True:
        block = take(counter)
        start = block * size
        if start >= len(x):
            return
        fill(part(wide, 0, 2 * width), 0.0)
        stop = min(start + size, len(x))
        for i in range(start, stop, width):
            add_row(part(x, i, min(width, stop - i)), pivot, first, second)
        _fold(first, part(sums, 2 * block * C, C))
        _fold(second, part(sums, (2 * block + 1) * C, C))


@compiled_pass(COUNTER, NUMBER, read(1), read(1), read(2), write(3, float64), write(2, float64))
def _row_sums(counter, size, dy, x, centres, sums, wide):
    width, C = centres.shape[1], sums.shape[2]
    centre = part(centres, 0, width)
    total, weighted = part(wide, 0, width), part(wide, width, width)
    while True:
        block = take(counter)
        start = block * size
        if start >= len(x):
            return
        fill(part(wide, 0, 2 * width), 0.0)
        stop = min(start + size, len(x))
        for i in range(start, stop, width):
            length = min(width, stop - i)
            add_row_products(part(dy, i, length), part(x, i, length), centre, total, weighted)
        _fold(total, part(sums, 2 * block * C, C))
        _fold(weighted, part(sums, (2 * block + 1) * C, C))


@compiled_pass(COUNTER, NUMBER, NUMBER, read(3), write(3), read(2))
def _plane_normalise(counter, count, size, x, y, vectors):
    N, C, pixels = x.shape
    while True:
        block = count - 1 - take(counter)
        if block < 0:
            return
        for i in range(block * size, min((block + 1) * size, N)):
            for c in range(C):
                centre, scale, shift = vectors[0, c], vectors[1, c], vectors[2, c]
                plane = (i * C + c) * pixels
                source, target = part(x, plane, pixels), part(y, plane, pixels)
                for j in range(pixels):
                    target[j] = (source[j] - centre) * scale + shift


@compiled_pass(COUNTER, NUMBER, NUMBER, read(1), write(1), read(2))
def _row_normalise(counter, count, size, x, y, vectors):
    width = vectors.shape[1]
    centre, scale, shift = part(vectors, 0, width), part(vectors, width, width), part(vectors, 2 * width, width)
    while True:
        block = count - 1 - take(counter)
        if block < 0:
            return
        stop = min((block + 1) * size, len(x))
        for start in range(block * size, stop, width):
            length = min(width, stop - start)
            source, target = part(x, start, length), part(y, start, length)
            for j in range(length):
                target[j] = (source[j] - centre[j]) * scale[j] + shift[j]


@compiled_pass(COUNTER, NUMBER, NUMBER, read(3), read(3), write(3), read(2))
def _plane_propagate(counter, count, size, dy, x, dx, vectors):
    N, C, pixels = x.shape
    while True:
        block = count - 1 - take(counter)
        if block < 0:
            return
        for i in range(block * size, min((block + 1) * size, N)):
            for c in range(C):
                centre, slope, level, scale = vectors[0, c], vectors[1, c], vectors[2, c], vectors[3, c]
                plane = (i * C + c) * pixels
                g, v, target = part(dy, plane, pixels), part(x, plane, pixels), part(dx, plane, pixels)
                for j in range(pixels):
                    target[j] = (g[j] - level - (v[j] - centre) * slope) * scale


@compiled_pass(COUNTER, NUMBER, NUMBER, read(1), read(1), write(1), read(2))
def _row_propagate(counter, count, size, dy, x, dx, vectors):
    width = vectors.shape[1]
    centre, slope = part(vectors, 0, width), part(vectors, width, width)
    level, scale = part(vectors, 2 * width, width), part(vectors, 3 * width, width)
    while True:
        block = count - 1 - take(counter)
        if block < 0:
            return
        stop = min((block + 1) * size, len(x))
        for start in range(block * size, stop, width):
            length = min(width, stop - start)
            g, v, target = part(dy, start, length), part(x, start, length), part(dx, start, length)
            for j in range(length):
                target[j] = (g[j] - level[j] - (v[j] - centre[j]) * slope[j]) * scale[j]
