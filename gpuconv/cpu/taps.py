"""Pooling windows one tap at a time: which pixels of the image tap (r, s) of all windows reads, or (t, r, s) of volumes."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from ..shapes import PoolSizes, VolumePoolSizes
from .parallel import ranges

Sizes = PoolSizes | VolumePoolSizes
Index = tuple[slice, ...]
_ALL = slice(None)


def plane_taps(z: Sizes) -> list[tuple[int, Index, Index]]:
    """Return (t, index of the volume's planes, of the output's) for every tap in depth; of an image one without any."""
    if isinstance(z, PoolSizes):
        return [(0, (), ())]
    return [(t, (d,), (o,)) for t, d, o in _axis_taps(z.T, z.Z, z.stride[0], z.pad[0], z.D)]


def row_taps(z: Sizes) -> list[tuple[int, slice, slice]]:
    """Return (r, rows of the image, rows of the output) for every vertical tap; the padding is left out."""
    return _axis_taps(z.R, z.P, z.stride[-2], z.pad[-2], z.H)


def column_taps(z: Sizes) -> list[tuple[int, slice, slice]]:
    """Return (s, columns of the image, columns of the output) for every horizontal tap."""
    return _axis_taps(z.S, z.Q, z.stride[-1], z.pad[-1], z.W)


def row_taps_tile(z: PoolSizes) -> bool:
    """True if every row of the image is under exactly one window."""
    return z.stride[0] == z.R and z.pad[0] == 0 and z.P * z.R == z.H


def column_taps_tile(z: PoolSizes) -> bool:
    """True if every column of the image is under exactly one window."""
    return z.stride[1] == z.S and z.pad[1] == 0 and z.Q * z.S == z.W


def taps(z: Sizes) -> Iterator[tuple[int, Index, Index]]:
    """Yield ((t R + r) S + s, index into the image, index into the output) for every tap, in row order; t = 0 of images."""
    for t, d, o in plane_taps(z):
        for r, h, p in row_taps(z):
            for s, w, q in column_taps(z):
                yield (t * z.R + r) * z.S + s, (_ALL, _ALL, *d, h, w), (_ALL, _ALL, *o, p, q)


def first_taps(z: PoolSizes) -> np.ndarray:
    """Return the number of the first tap inside the image for every window, (P, Q)."""
    rows = np.maximum(0, z.pad[0] - np.arange(z.P) * z.stride[0])
    columns = np.maximum(0, z.pad[1] - np.arange(z.Q) * z.stride[1])
    return rows[:, None] * z.S + columns


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
