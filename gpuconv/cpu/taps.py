"""Pooling windows one tap at a time: which pixels of the image tap (r, s) of all windows reads."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from ..shapes import PoolSizes
from .parallel import ranges

_BLOCK_ELEMENTS = 64 * 1024

Index = tuple[slice, slice, slice, slice]


def taps(z: PoolSizes) -> Iterator[tuple[int, Index, Index]]:
    """Yield (r S + s, index into the image, index into the output) for every tap; the padding is left out."""
    for r in range(z.R):
        p0, p1, h = _inside(r, z.P, z.stride[0], z.pad[0], z.H)
        for s in range(z.S):
            q0, q1, w = _inside(s, z.Q, z.stride[1], z.pad[1], z.W)
            if p0 < p1 and q0 < q1:
                everything = slice(None)
                yield (
                    r * z.S + s,
                    (everything, everything, h, w),
                    (everything, everything, slice(p0, p1), slice(q0, q1)),
                )


def image_ranges(x: np.ndarray) -> list[tuple[int, int]]:
    """Cut a batch into ranges of whole images that fit the L2 cache."""
    return ranges(x.shape[0], max(1, _BLOCK_ELEMENTS // prod(x.shape[1:])))


def _inside(tap: int, windows: int, stride: int, pad: int, size: int) -> tuple[int, int, slice]:
    """Return the first and past-the-last window whose tap lies in the image, and the pixels they read there."""
    first = max(0, -(-(pad - tap) // stride))
    last = min(windows, (size - 1 + pad - tap) // stride + 1)
    start = first * stride - pad + tap
    return first, last, slice(start, start + (last - first - 1) * stride + 1, stride)
