"""Launches of kernels/max_pool.cu, and of max_pool_ties.cu where equal maxima share the gradient; volumes: pool_volume.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pool_shapes import PoolSizes, VolumePoolSizes
from ..shapes import is_channels_last
from .device import device_of
from .kernel import Kernel, cover
from .layout import elements, empty_images, in_own_format, stored
from .pool import is_dilated, pack_of, places_type, pool_index, pool_shape
from .pool_volume import volume_max_pool_backward, volume_max_pool_backward_ties, volume_max_pool_forward

_FORWARD_DIRECT = Kernel("max_pool.cu", "max_pool_forward_direct")
_BACKWARD_DIRECT = Kernel("max_pool.cu", "max_pool_backward_direct")
_FORWARD_HALVING = Kernel("max_pool.cu", "max_pool_forward_halving")
_BACKWARD_HALVING = Kernel("max_pool.cu", "max_pool_backward_halving")
_BACKWARD_TIES = Kernel("max_pool_ties.cu", "max_pool_backward_ties_direct")

_BYTE = np.dtype(np.uint8)
_UNROLLED = (2, 3)  # square windows that have a kernel of their own


def max_pool_forward(x: Any, sizes: PoolSizes | VolumePoolSizes) -> tuple[Any, Any]:
    if isinstance(sizes, VolumePoolSizes):
        return volume_max_pool_forward(x, sizes)
    z = sizes
    device = device_of(x)
    x, channels_last = in_own_format(x)
    place = places_type(z.places)
    shape = (z.N, z.C, z.P, z.Q)
    y, y_stored = empty_images(device, shape, x.dtype, channels_last=channels_last)
    argmax, argmax_stored = empty_images(device, shape, place, channels_last=channels_last)
    if _halves(z, x.dtype, channels_last=channels_last):
        blocks = cover(device, elements(x.shape) * x.dtype.itemsize // 32)
        _FORWARD_HALVING(device, (x.dtype, pool_index(z)), blocks, x, y, argmax, z.N * z.C, z.H, z.W)
        return y, argmax
    pack = pack_of(x.dtype, z.C) if channels_last and place == _BYTE else 1
    window = z.R if z.R == z.S and z.R in _UNROLLED and not is_dilated(z) else 0
    templates = (x.dtype, place, channels_last, pack, window, pool_index(z))
    _FORWARD_DIRECT(
        device,
        templates,
        cover(device, elements(shape) // pack),
        x,
        y_stored,
        argmax_stored,
        pool_shape(_FORWARD_DIRECT, z),
    )
    return y, argmax


def max_pool_backward(
    dy: Any, argmax: Any, sizes: PoolSizes | VolumePoolSizes, *, ties: str = "first", x: Any = None, y: Any = None
) -> Any:
    if isinstance(sizes, VolumePoolSizes):
        if ties != "first":
            return volume_max_pool_backward_ties(dy, x, y, sizes, split=ties == "split")
        return volume_max_pool_backward(dy, argmax, sizes)
    if ties != "first":
        return _shared(dy, x, y, sizes, split=ties == "split")
    z = sizes
    device = device_of(dy)
    channels_last = is_channels_last(argmax)
    dy = stored(dy, channels_last=channels_last)
    argmax = stored(argmax, channels_last=channels_last)
    dx, dx_stored = empty_images(device, (z.N, z.C, z.H, z.W), dy.dtype, channels_last=channels_last)
    if _halves(z, dy.dtype, channels_last=channels_last):
        blocks = cover(device, z.N * z.C * -(-z.H // 2) * z.W * dy.dtype.itemsize // 16)
        _BACKWARD_HALVING(device, (dy.dtype, pool_index(z)), blocks, dy, argmax, dx, z.N * z.C, z.H, z.W)
        return dx
    pack = pack_of(dy.dtype, z.C) if channels_last and argmax.dtype == _BYTE else 1
    templates = (dy.dtype, argmax.dtype, channels_last, is_dilated(z), pack, pool_index(z))
    blocks = cover(device, elements(dx.shape) // pack)
    _BACKWARD_DIRECT(device, templates, blocks, dy, argmax, dx_stored, pool_shape(_BACKWARD_DIRECT, z))
    return dx


def _shared(dy: Any, x: Any, y: Any, z: PoolSizes, *, split: bool) -> Any:
    """Return the gradient of which all of a window's equal maxima have a part."""
    device = device_of(dy)
    x, channels_last = in_own_format(x)
    dy, y = stored(dy, channels_last=channels_last), stored(y, channels_last=channels_last)
    dx, dx_stored = empty_images(device, (z.N, z.C, z.H, z.W), dy.dtype, channels_last=channels_last)
    templates = (dy.dtype, split, channels_last, is_dilated(z), pool_index(z))
    blocks = cover(device, elements(x.shape))
    _BACKWARD_TIES(device, templates, blocks, dy, x, y, dx_stored, pool_shape(_BACKWARD_TIES, z))
    return dx


def _halves(z: PoolSizes, dtype: np.dtype, *, channels_last: bool) -> bool:
    """True for whole 2 x 2 windows side by side on rows of whole 16 bytes."""
    tiles = z.window == z.stride == (2, 2) and z.pad == (0, 0) and z.dilation == (1, 1)
    return tiles and (z.P, z.Q) == (z.H // 2, z.W // 2) and not channels_last and z.W % (16 // dtype.itemsize) == 0
