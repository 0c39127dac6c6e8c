"""What the launchers of both kinds of pooling share; the counterpart of kernels/pool.cuh."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from math import prod

import numpy as np

from ..pool_shapes import PoolSizes, VolumePoolSizes
from .kernel import Kernel
from .layout import index_type


@functools.lru_cache(maxsize=1024)
def pool_shape(kernel: Kernel, z: PoolSizes) -> np.void:
    """Return PoolShape of kernels/pool.cuh, which every kernel of pooling calls z."""
    fields = {name: getattr(z, name) for name in ("N", "C", "H", "W", "R", "S", "P", "Q")}
    for name in ("stride", "pad", "behind", "dilation"):
        fields[f"{name}_v"], fields[f"{name}_h"] = getattr(z, name)
    return kernel.pack("z", fields)


def pool_index(z: PoolSizes) -> np.dtype:
    """Return the type that counts the elements and the places of a pooling call."""
    return index_type(prod(z.image), prod(z.out), *reach(z))


def reach(z: PoolSizes | VolumePoolSizes) -> Iterator[int]:
    """Yield how far windows reach along each axis, with room to spare."""
    axes = zip(z.image[2:], z.pad, z.behind, z.stride, z.dilation, z.window, strict=True)
    return (n + before + behind + step + apart * taps for n, before, behind, step, apart, taps in axes)


def is_dilated(z: PoolSizes | VolumePoolSizes) -> bool:
    """Return DILATED of kernels: whether taps of a window lie apart."""
    return max(z.dilation) > 1


def places_type(places: int) -> np.dtype:
    """Return the dtype that counts the places of a window: a byte where it has room for them."""
    return np.dtype(np.uint8 if places <= 256 else np.int32)


def pack_of(dtype: np.dtype, count: int) -> int:
    """Return how many neighbours a thread takes at once: 16 bytes where they divide `count`, else one."""
    width = 16 // dtype.itemsize
    return width if count % width == 0 else 1
