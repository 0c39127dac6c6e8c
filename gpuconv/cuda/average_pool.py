"""Launches of kernels/average_pool.cu; those over volumes stand in pool_volume.py."""

from __future__ import annotations

from typing import Any

from ..pool_shapes import PoolSizes, VolumePoolSizes
from ..shapes import is_channels_last
from .copy import contiguous
from .device import device_of
from .kernel import Kernel, cover
from .layout import elements, empty_images, in_own_format, index_type, stored
from .pool import is_dilated, pack_of, pool_index, pool_shape
from .pool_volume import volume_average_pool_backward, volume_average_pool_forward

_FORWARD = Kernel("average_pool.cu", "average_pool_forward_direct")
_BACKWARD = Kernel("average_pool.cu", "average_pool_backward_direct")
_GLOBAL_PLANAR = Kernel("average_pool.cu", "global_average_pool_forward_planar")
_GLOBAL_LAST = Kernel("average_pool.cu", "global_average_pool_forward_last")
_GLOBAL_BACKWARD = Kernel("average_pool.cu", "global_average_pool_backward_direct")

_WARP, _BLOCK = 32, 256
_LARGE_PLANE = 512  # pixels from which on a whole block reads a plane


def average_pool_forward(x: Any, sizes: PoolSizes | VolumePoolSizes, *, count_pad: bool) -> Any:
    if isinstance(sizes, VolumePoolSizes):
        return volume_average_pool_forward(x, sizes, count_pad=count_pad)
    z = sizes
    device = device_of(x)
    x, channels_last = in_own_format(x)
    y, y_stored = empty_images(device, (z.N, z.C, z.P, z.Q), x.dtype, channels_last=channels_last)
    pack = pack_of(x.dtype, z.C) if channels_last else 1
    templates = (x.dtype, channels_last, count_pad, pack, pool_index(z))
    _FORWARD(device, templates, cover(device, elements(y.shape) // pack), x, y_stored, pool_shape(_FORWARD, z))
    return y


def average_pool_backward(dy: Any, sizes: PoolSizes | VolumePoolSizes, *, count_pad: bool) -> Any:
    if isinstance(sizes, VolumePoolSizes):
        return volume_average_pool_backward(dy, sizes, count_pad=count_pad)
    z = sizes
    device = device_of(dy)
    dy, channels_last = in_own_format(dy)
    dx, dx_stored = empty_images(device, (z.N, z.C, z.H, z.W), dy.dtype, channels_last=channels_last)
    pack = pack_of(dy.dtype, z.C) if channels_last else 1
    templates = (dy.dtype, channels_last, count_pad, is_dilated(z), pack, pool_index(z))
    _BACKWARD(device, templates, cover(device, elements(dx.shape) // pack), dy, dx_stored, pool_shape(_BACKWARD, z))
    return dx


def global_average_pool_forward(x: Any) -> Any:
    device = device_of(x)
    N, C, H, W = x.shape
    y = device.empty((N, C), x.dtype)
    if is_channels_last(x):
        blocks = N * -(-C // _WARP)
        _GLOBAL_LAST(device, (x.dtype,), blocks, stored(x, channels_last=True), y, H * W, C)
        return y
    threads = _BLOCK if H * W >= _LARGE_PLANE else _WARP
    blocks = -(-N * C // (_BLOCK // threads))
    _GLOBAL_PLANAR(device, (x.dtype, threads), blocks, contiguous(x), y, N * C, H * W)
    return y


def global_average_pool_backward(dy: Any, shape: tuple[int, int, int, int], *, channels_last: bool) -> Any:
    device = device_of(dy)
    N, C, H, W = shape
    dx, dx_stored = empty_images(device, shape, dy.dtype, channels_last=channels_last)
    pack = pack_of(dy.dtype, C if channels_last else H * W)
    templates = (dy.dtype, channels_last, pack, index_type(elements(shape)))
    _GLOBAL_BACKWARD(device, templates, cover(device, elements(shape) // pack), contiguous(dy), dx_stored, N, C, H * W)
    return dx
