"""What the launchers of both kinds of pooling share; the counterpart of kernels/pool.cuh."""

from __future__ import annotations

import numpy as np

from ..shapes import PoolSizes
from .layout import index_type

_NAMES = ("N", "C", "H", "W", "R", "S", "P", "Q")


def pool_shape(z: PoolSizes) -> dict[str, int]:
    """Return the fields of PoolShape in kernels/pool.cuh."""
    return {
        **{name: getattr(z, name) for name in _NAMES},
        **{f"{name}_{axis}": getattr(z, name)[i] for name in ("stride", "pad") for i, axis in enumerate("vh")},
    }


def pool_index(z: PoolSizes) -> np.dtype:
    """Return the type that counts the elements and the places of a pooling call."""
    reach = (n + 2 * p + step + r for n, p, step, r in zip((z.H, z.W), z.pad, z.stride, (z.R, z.S), strict=True))
    return index_type(z.N * z.C * z.H * z.W, z.N * z.C * z.P * z.Q, *reach)


def pack_of(dtype: np.dtype, count: int) -> int:
    """Return how many neighbours a thread takes at once: 16 bytes where they divide `count`, else one."""
    width = 16 // dtype.itemsize
    return width if count % width == 0 else 1
