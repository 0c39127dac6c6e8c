"""What the launchers of both kinds of pooling share; the counterpart of kernels/pool.cuh."""

from __future__ import annotations

import functools

import numpy as np

from ..shapes import PoolSizes
from .kernel import Kernel
from .layout import index_type


@functools.lru_cache(maxsize=1024)
def pool_shape(kernel: Kernel, z: PoolSizes) -> np.void:
    """Return PoolShape of kernels/pool.cuh, which every kernel of pooling calls z."""
    fields = {name: getattr(z, name) for name in ("N", "C", "H", "W", "R", "S", "P", "Q")}
    for name in ("stride", "pad"):
        fields[f"{name}_v"], fields[f"{name}_h"] = getattr(z, name)
    return kernel.pack("z", fields)


def pool_index(z: PoolSizes) -> np.dtype:
    """Return the type that counts the elements and the places of a pooling call."""
    reach = (n + 2 * p + step + r for n, p, step, r in zip((z.H, z.W), z.pad, z.stride, (z.R, z.S), strict=True))
    return index_type(z.N * z.C * z.H * z.W, z.N * z.C * z.P * z.Q, *reach)


def places_type(places: int) -> np.dtype:
    """Return the dtype that counts the places of a window: a byte where it has room for them."""
    return np.dtype(np.uint8 if places <= 256 else np.int32)


def pack_of(dtype: np.dtype, count: int) -> int:
    """Return how many neighbours a thread takes at once: 16 bytes where they divide `count`, else one."""
    width = 16 // dtype.itemsize
    return width if count % width == 0 else 1
