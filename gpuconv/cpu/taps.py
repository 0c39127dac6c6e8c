"""Pooling windows one tap at a time: which pixels of the image tap (r, s) of all windows reads, or (t, r, s) of volumes."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd, prod

import numpy as np

from ..pool_shapes import PoolSizes, VolumePoolSizes
from .parallel import ranges

Sizes = PoolSizes | VolumePoolSizes
Index = tuple[slice, ...]
_ALL = slice(None)


def plane_taps(z: Sizes) -> list[tuple[int, Index, Index]]:
    """Return (t, index of the volume's planes, of the output's) for every tap in depth; of an image one without any."""
    if isinstance(z, PoolSizes):
        return [(0, (), ())]
    return [(t, (d,), (o,)) for t, d, o in _axis_taps(z.T, z.Z, z.stride[0], z.pad[0], z.dilation[0], z.D)]


def row_taps(z: Sizes) -> list[tuple[int, slice, slice]]:
    """Return (r, rows of the image, rows of the output) for every vertical tap; the padding is left out."""
    return _axis_taps(z.R, z.P, z.stride[-2], z.pad[-2], z.dilation[-2], z.H)


def column_taps(z: Sizes) -> list[tuple[int, slice, slice]]:
    """Return (s, columns of the image, columns of the output) for every horizontal tap."""
    return _axis_taps(z.S, z.Q, z.stride[-1], z.pad[-1], z.dilation[-1], z.W)


def meeting(z: Sizes) -> list[int]:
    """Return how many windows have a tap at one place of the image, along each axis, at most."""
    axes = zip(z.window, z.out[2:], z.stride, z.dilation, strict=True)
    return [min(windows, -(-taps * gcd(stride, apart) // stride)) for taps, windows, stride, apart in axes]


def rows_apart(z: PoolSizes) -> bool:
    """True if no row of the image is between the first and the last tap of two windows."""
    return z.stride[0] > (z.R - 1) * z.dilation[0]


def columns_apart(z: PoolSizes) -> bool:
    """True if no column of the image is between the first and the last tap of two windows."""
    return z.stride[1] > (z.S - 1) * z.dilation[1]


def windows_tile(z: Sizes) -> bool:
    """True if every pixel of the image is under exactly one window."""
    axes = zip(z.image[2:], z.out[2:], z.window, z.stride, z.pad, strict=True)
    return all(stride == taps and pad == 0 and windows * taps == size for size, windows, taps, stride, pad in axes)


def taps(z: Sizes) -> Iterator[tuple[int, Index, Index]]:
    """Yield ((t R + r) S + s, index into the image, index into the output) for every tap, in row order; t = 0 of images."""
    for t, d, o in plane_taps(z):
        for r, h, p in row_taps(z):
            for s, w, q in column_taps(z):
                yield (t * z.R + r) * z.S + s, (_ALL, _ALL, *d, h, w), (_ALL, _ALL, *o, p, q)


def first_taps(z: PoolSizes) -> np.ndarray:
    """Return the number of the first tap inside the image for every window, (P, Q)."""
    rows, columns = (_first(*axis) for axis in zip(z.out[2:], z.stride, z.pad, z.dilation, strict=True))
    return rows[:, None] * z.S + columns


def counts(z: Sizes, *, count_pad: bool) -> list[np.ndarray]:
    """Return how many pixels each window averages along each axis, float64: of the image, or of the padded one."""
    averaged = []
    axes = zip(z.image[2:], z.out[2:], z.window, z.stride, z.pad, z.behind, z.dilation, strict=True)
    for size, windows, many, stride, pad, behind, dilation in axes:
        left = size + (behind if count_pad else 0) + pad - np.arange(windows) * stride  # from each window's beginning
        end = np.minimum(many, -(-left // dilation))
        first = 0 if count_pad else _first(windows, stride, pad, dilation)
        averaged.append((end - first).astype(np.float64))
    return averaged


def _first(windows: int, stride: int, pad: int, dilation: int) -> np.ndarray:
    """Return the number of the first tap behind the padding for every window along an axis."""
    return -(-np.maximum(0, pad - np.arange(windows) * stride) // dilation)


def image_ranges(x: np.ndarray, block: int) -> list[slice]:
    """Cut a batch into ranges of whole images, of about so many elements."""
    return [slice(*images) for images in ranges(x.shape[0], max(1, block // prod(x.shape[1:])))]


def _axis_taps(
    count: int, windows: int, stride: int, pad: int, dilation: int, size: int
) -> list[tuple[int, slice, slice]]:
    taps = []
    for tap in range(count):
        before = pad - tap * dilation
        first = max(0, -(-before // stride))  # the first and past-the-last window whose tap lies in the image
        last = min(windows, (size - 1 + before) // stride + 1)
        if first < last:
            start = first * stride - before
            taps.append((tap, slice(start, start + (last - first - 1) * stride + 1, stride), slice(first, last)))
    return taps
