"""Pooling windows one tap at a time: which pixels of the image tap (r, s) of all windows reads."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from ..shapes import PoolSizes
from .parallel import ranges

Index = tuple[slice, slice, slice, slice]
_ALL = slice(None)


def row_taps(z: PoolSizes) -> list[tuple[int, slice, slice]]:
    """Return (r, rows of the image, rows of the output) for every vertical tap; the padding is left out."""
    return _axis_taps(z.R, z.P, z.stride[0], z.pad[0], z.H)


def column_taps(z: PoolSizes) -> list[tuple[int, slice, slice]]:
    """Return (s, columns of the image, columns of the output) for every horizontal tap."""
    return _axis_taps(z.S, z.Q, z.stride[1], z.pad[1], z.W)


def row_taps_tile(z: PoolSizes) -> bool:
    """True if every row of the image is under exactly one window."""
    return z.stride[0] == z.R and z.pad[0] == 0 and z.P * z.R == z.H


def column_taps_tile(z: PoolSizes) -> bool:
    """True if every column of the image is under exactly one window."""
    return z.stride[1] == z.S and z.pad[1] == 0 and z.Q * z.S == z.W


def taps(z: PoolSizes) -> Iterator[tuple[int, Index, Index]]:
    """Yield (r S + s, index into the image, index into the output) for every tap, in row order."""
    for r, h, p in row_taps(z):
        for s, w, q in column_taps(z):
            yield r * z.S + s, (_ALL, _ALL, h, w), (_ALL, _ALL, p, q)


def image_ranges(x: np.ndarray, block: int) -> list[slice]:
    """Cut a batch into ranges of whole images, of about so many elements."""
    return [slice(*images) for images in ranges(x.shape[0], max(1, block // prod(x.shape[1:])))]


def _axis_taps(count: int, windows: int, stride: int, pad: int, size: int) -> list[tuple[int, slice, slice]]:
    taps = []
    for tap in range(count):
        first = max(0, -(-(pad - tap) // stride))  # the first and past-the-last window whose tap lies in the image
        last = min(windows, (size - 1 + pad - tap) // stride + 1)
        if first < last:
            start = first * stride - pad + tap
            taps.append((tap, slice(start, start + (last - first - 1) * stride + 1, stride), slice(first, last)))
    return taps
