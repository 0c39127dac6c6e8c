"""Launches of kernels/max_pool_ties.cu."""

from __future__ import annotations

from typing import Any

from ..shapes import PoolSizes
from .device import device_of
from .kernel import Kernel, cover
from .layout import elements, empty_images, in_own_format, stored
from .pool import pool_index, pool_shape

_DIRECT = Kernel("max_pool_ties.cu", "max_pool_backward_ties_direct")


def max_pool_backward_ties(dy: Any, x: Any, y: Any, sizes: PoolSizes, *, split: bool) -> Any:
    z = sizes
    device = device_of(dy)
    x, channels_last = in_own_format(x)
    dy, y = stored(dy, channels_last=channels_last), stored(y, channels_last=channels_last)
    dx, dx_stored = empty_images(device, (z.N, z.C, z.H, z.W), dy.dtype, channels_last=channels_last)
    templates = (dy.dtype, split, channels_last, pool_index(z))
    _DIRECT(device, templates, cover(device, elements(x.shape)), dy, x, y, dx_stored, pool_shape(_DIRECT, z))
    return dx
