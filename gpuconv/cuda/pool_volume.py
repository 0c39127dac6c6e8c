"""Launches of kernels/pool_volume.cu: both kinds of pooling of volumes."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..pool_shapes import VolumePoolSizes
from ..shapes import is_channels_last
from .device import device_of
from .kernel import Kernel, cover
from .layout import elements, empty_images, in_own_format, index_type, stored
from .pool import is_dilated, places_type, reach

_MAX_FORWARD = Kernel("pool_volume.cu", "max_pool_volume_forward_direct")
_MAX_BACKWARD = Kernel("pool_volume.cu", "max_pool_volume_backward_direct")
_MAX_BACKWARD_TIES = Kernel("pool_volume.cu", "max_pool_volume_backward_ties_direct")
_AVERAGE_FORWARD = Kernel("pool_volume.cu", "average_pool_volume_forward_direct")
_AVERAGE_BACKWARD = Kernel("pool_volume.cu", "average_pool_volume_backward_direct")


def volume_max_pool_forward(x: Any, z: VolumePoolSizes) -> tuple[Any, Any]:
    device, place = device_of(x), places_type(z.places)
    x, last = in_own_format(x)
    y, y_stored = empty_images(device, z.out, x.dtype, channels_last=last)
    argmax, argmax_stored = empty_images(device, z.out, place, channels_last=last)
    blocks, templates = cover(device, elements(z.out)), (x.dtype, place, last, volume_pool_index(z))
    _MAX_FORWARD(device, templates, blocks, x, y_stored, argmax_stored, _shape(_MAX_FORWARD, z))
    return y, argmax


def volume_max_pool_backward(dy: Any, argmax: Any, z: VolumePoolSizes) -> Any:
    device, last = device_of(dy), is_channels_last(argmax)
    dy, argmax = stored(dy, channels_last=last), stored(argmax, channels_last=last)
    dx, dx_stored = empty_images(device, z.image, dy.dtype, channels_last=last)
    blocks, templates = (
        cover(device, elements(z.image)),
        (dy.dtype, argmax.dtype, last, is_dilated(z), volume_pool_index(z)),
    )
    _MAX_BACKWARD(device, templates, blocks, dy, argmax, dx_stored, _shape(_MAX_BACKWARD, z))
    return dx


def volume_max_pool_backward_ties(dy: Any, x: Any, y: Any, z: VolumePoolSizes, *, split: bool) -> Any:
    """Return the gradient of which all of a window's equal maxima have a part."""
    device = device_of(dy)
    x, last = in_own_format(x)
    dy, y = stored(dy, channels_last=last), stored(y, channels_last=last)
    dx, dx_stored = empty_images(device, z.image, dy.dtype, channels_last=last)
    blocks, templates = cover(device, elements(z.image)), (dy.dtype, split, last, is_dilated(z), volume_pool_index(z))
    _MAX_BACKWARD_TIES(device, templates, blocks, dy, x, y, dx_stored, _shape(_MAX_BACKWARD_TIES, z))
    return dx


def volume_average_pool_forward(x: Any, z: VolumePoolSizes, *, count_pad: bool) -> Any:
    device = device_of(x)
    x, last = in_own_format(x)
    y, y_stored = empty_images(device, z.out, x.dtype, channels_last=last)
    blocks, templates = cover(device, elements(z.out)), (x.dtype, last, count_pad, volume_pool_index(z))
    _AVERAGE_FORWARD(device, templates, blocks, x, y_stored, _shape(_AVERAGE_FORWARD, z))
    return y


def volume_average_pool_backward(dy: Any, z: VolumePoolSizes, *, count_pad: bool) -> Any:
    device = device_of(dy)
    dy, last = in_own_format(dy)
    dx, dx_stored = empty_images(device, z.image, dy.dtype, channels_last=last)
    blocks, templates = (
        cover(device, elements(z.image)),
        (dy.dtype, last, count_pad, is_dilated(z), volume_pool_index(z)),
    )
    _AVERAGE_BACKWARD(device, templates, blocks, dy, dx_stored, _shape(_AVERAGE_BACKWARD, z))
    return dx


@functools.lru_cache(maxsize=1024)
def _shape(kernel: Kernel, z: VolumePoolSizes) -> np.void:
    """Return VolumePoolShape of kernels/pool_volume.cu, which every kernel there calls z."""
    fields = {name: getattr(z, name) for name in ("N", "C", "D", "H", "W", "T", "R", "S", "Z", "P", "Q")}
    for name in ("stride", "pad", "behind", "dilation"):
        fields[f"{name}_d"], fields[f"{name}_v"], fields[f"{name}_h"] = getattr(z, name)
    return kernel.pack("z", fields)


def volume_pool_index(z: VolumePoolSizes) -> np.dtype:
    """Return the type that counts the elements and the places of a pooling call."""
    return index_type(elements(z.image), elements(z.out), *reach(z))
