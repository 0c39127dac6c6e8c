"""Average pooling over windows, R + S passes over a block of images, rows first; and over whole images."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ...pool_shapes import PoolSizes, VolumePoolSizes
from ...shapes import is_channels_last
from .. import pool_volume
from ..layout import accumulator, scratch_images, scratch_like
from ..parallel import BLOCK_ELEMENTS, for_each
from ..runs import RunningSum
from ..taps import Sizes, column_taps, columns_apart, image_ranges, row_taps, rows_apart

_ALL = slice(None)


def forward(x: np.ndarray, y: np.ndarray, share: np.ndarray, z: Sizes) -> None:
    """Fill y with the sums of x over windows, times share."""
    if isinstance(z, VolumePoolSizes):
        pool_volume.average_pool_forward(x, y, share, z)
        return

    def work(images: slice) -> None:
        _forward(x[images], y[images], share, z)

    for_each(work, image_ranges(x, BLOCK_ELEMENTS))


def backward(dy: np.ndarray, dx: np.ndarray, share: np.ndarray, z: Sizes) -> None:
    """Fill dx: each pixel gets the sum of dy times share over the windows it lies in."""
    if isinstance(z, VolumePoolSizes):
        pool_volume.average_pool_backward(dy, dx, share, z)
        return

    def work(images: slice) -> None:
        _backward(dy[images], dx[images], share, z)

    for_each(work, image_ranges(dx, BLOCK_ELEMENTS))


def global_forward(x: np.ndarray, y: np.ndarray) -> None:
    """Fill y (N, C) with the means of images."""

    def work(images: slice) -> None:
        total = x[images].sum(axis=(2, 3), dtype=np.float64)
        np.copyto(y[images], total / prod(x.shape[2:]), casting="same_kind")

    for_each(work, image_ranges(x, BLOCK_ELEMENTS))


def global_backward(dy: np.ndarray, dx: np.ndarray) -> None:
    """Fill each image of dx with its share of dy (N, C)."""

    def work(images: slice) -> None:
        dx[images] = (dy[images].astype(accumulator(dy.dtype)) / prod(dx.shape[2:]))[:, :, None, None]

    for_each(work, image_ranges(dx, BLOCK_ELEMENTS))


def _forward(x: np.ndarray, y: np.ndarray, share: np.ndarray, z: PoolSizes) -> None:
    """Average a block of images."""
    kind, channels_last = accumulator(x.dtype), is_channels_last(y)
    rows = scratch_images("rows", (len(x), z.C, z.P, z.W), kind, channels_last=channels_last)
    total = y if y.dtype == kind else scratch_like("total", y, kind)
    _add_up([((..., p, _ALL), x[:, :, h]) for _, h, p in row_taps(z)], rows)
    _add_up([((..., q), rows[..., w]) for _, w, q in column_taps(z)], total)
    np.multiply(total, share, out=total)
    if total is not y:
        np.copyto(y, total, casting="same_kind")


def _backward(dy: np.ndarray, dx: np.ndarray, share: np.ndarray, z: PoolSizes) -> None:
    """Fill dx of a block of images."""
    kind, channels_last = accumulator(dy.dtype), is_channels_last(dx)
    gradient = scratch_like("gradient", dy, kind)
    np.multiply(dy, share, out=gradient)
    rows = scratch_images("rows", (len(dy), z.C, z.P, z.W), kind, channels_last=channels_last)
    total = dx if dx.dtype == kind else scratch_like("total", dx, kind)
    _add_up([((..., w), gradient[..., q]) for _, w, q in column_taps(z)], rows, apart=columns_apart(z))
    _add_up([((..., h, _ALL), rows[:, :, p]) for _, h, p in row_taps(z)], total, apart=rows_apart(z))
    if total is not dx:
        np.copyto(dx, total, casting="same_kind")


def _add_up(terms: list[tuple[Any, np.ndarray]], total: np.ndarray, *, apart: bool = False) -> None:
    """Set total to the sum of the terms, each (index into total, values to add there); apart: no two meet."""
    total.fill(0)
    added = RunningSum(total, len(terms))
    for index, values in terms:
        part = added.next()[index]
        if apart:
            np.copyto(part, values)
        else:
            np.add(part, values, out=part)
    added.close()
