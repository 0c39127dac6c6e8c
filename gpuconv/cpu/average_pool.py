"""Average pooling, rows first and then columns, and over whole images."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..shapes import PoolSizes, is_channels_last
from .layout import accumulator, empty, scratch_images, scratch_like
from .parallel import for_each, quiet
from .runs import FEW, RunningSum
from .taps import column_taps, column_taps_tile, image_ranges, row_taps, row_taps_tile, taps

_ALL = slice(None)


def average_pool_forward(x: np.ndarray, sizes: PoolSizes, *, count_pad: bool) -> np.ndarray:
    z = sizes
    kind = accumulator(x.dtype)
    channels_last = is_channels_last(x)
    y = empty((z.N, z.C, z.P, z.Q), x.dtype, channels_last=channels_last)
    share = _shares(z, count_pad=count_pad).astype(kind)

    def work(images: tuple[int, int]) -> None:
        part = slice(*images)
        # Rows first: whole rows are long runs, and leave less for the columns.
        shape = (images[1] - images[0], z.C, z.P, z.W)
        rows = scratch_images("rows", shape, kind, channels_last=channels_last)
        total = y[part] if y.dtype == kind else scratch_like("total", y[part], kind)
        _add_up([((..., p, _ALL), x[part, :, h]) for _, h, p in row_taps(z)], rows)
        _add_up([((..., q), rows[..., w]) for _, w, q in column_taps(z)], total)
        np.multiply(total, share, out=total)
        if total.dtype != y.dtype:
            np.copyto(y[part], total, casting="same_kind")

    for_each(work, image_ranges(x))
    return y


def average_pool_backward(dy: np.ndarray, sizes: PoolSizes, *, count_pad: bool) -> np.ndarray:
    z = sizes
    kind = accumulator(dy.dtype)
    channels_last = is_channels_last(dy)
    dx = empty((z.N, z.C, z.H, z.W), dy.dtype, channels_last=channels_last)
    share = _shares(z, count_pad=count_pad).astype(kind)

    def work(images: tuple[int, int]) -> None:
        part = slice(*images)
        gradient = scratch_like("gradient", dy[part], kind)
        np.multiply(dy[part], share, out=gradient)
        shape = (images[1] - images[0], z.C, z.P, z.W)
        rows = scratch_images("rows", shape, kind, channels_last=channels_last)
        total = dx[part] if dx.dtype == kind else scratch_like("total", dx[part], kind)
        _add_up([((..., w), gradient[..., q]) for _, w, q in column_taps(z)], rows, tiled=column_taps_tile(z))
        _add_up([((..., h, _ALL), rows[:, :, p]) for _, h, p in row_taps(z)], total, tiled=row_taps_tile(z))
        if total.dtype != dx.dtype:
            np.copyto(dx[part], total, casting="same_kind")

    for_each(work, image_ranges(dx))
    return dx


def _add_up(terms: list[tuple[Any, np.ndarray]], total: np.ndarray, *, tiled: bool = False) -> None:
    """Set total to the sum of the terms, each (index into total, values to add there); tiled: every place gets one."""
    if tiled:
        for index, values in terms:
            np.copyto(total[index], values)
        return
    few = len(terms) <= FEW
    if few and len(terms) > 1 and all(values.shape == total.shape for _, values in terms):  # each covers everything
        np.add(terms[0][1], terms[1][1], out=total, dtype=total.dtype)
        terms = terms[2:]
    else:
        total.fill(0)
    added = RunningSum(total, len(terms))
    for index, values in terms:
        part = added.next()[index]
        np.add(part, values, out=part)
    added.close()


@quiet
def global_average_pool_forward(x: np.ndarray) -> np.ndarray:
    mean = x.sum(axis=(2, 3), dtype=np.float64) / prod(x.shape[2:])
    return mean.astype(x.dtype)


@quiet
def global_average_pool_backward(
    dy: np.ndarray, shape: tuple[int, int, int, int], *, channels_last: bool
) -> np.ndarray:
    dx = empty(shape, dy.dtype, channels_last=channels_last)
    dx[...] = (dy.astype(accumulator(dy.dtype)) / prod(shape[2:]))[:, :, None, None]
    return dx


def _shares(z: PoolSizes, *, count_pad: bool) -> np.ndarray:
    """Return 1 / (number of pixels averaged) for every window, float64: (1, 1) or (P, Q)."""
    if count_pad:
        return np.full((1, 1), 1.0 / (z.R * z.S))
    counts = np.zeros((1, 1, z.P, z.Q))
    for _, _, target in taps(z):
        counts[target] += 1
    return 1.0 / counts[0, 0]
