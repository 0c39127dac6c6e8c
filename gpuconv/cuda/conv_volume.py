"""Launches of kernels/conv_volume.cu: convolution of volumes; db and the sum over the slices of dw are in conv.py."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..shapes import VolumeConvSizes
from .copy import contiguous
from .device import Device, device_of
from .kernel import Kernel, cover
from .layout import elements, empty_images, in_own_format, index_type

_FORWARD = Kernel("conv_volume.cu", "conv_volume_forward_direct")
_DATA = Kernel("conv_volume.cu", "conv_volume_backward_data_direct")
_WEIGHT = Kernel("conv_volume.cu", "conv_volume_backward_weight_direct")


def volume_conv_forward(x: Any, w: Any, b: Any, z: VolumeConvSizes) -> Any:
    device = device_of(x)
    x, channels_last = in_own_format(x)
    y, y_stored = empty_images(device, z.out, x.dtype, channels_last=channels_last)
    w, b = contiguous(w), None if b is None else contiguous(b)
    templates, blocks = (x.dtype, channels_last, volume_conv_index(z)), cover(device, elements(z.out))
    _FORWARD(device, templates, blocks, x, w, b, y_stored, _shape(z))
    return y


def volume_data_gradient(device: Device, dy: Any, w: Any, z: VolumeConvSizes, *, channels_last: bool) -> Any:
    """Return dx for dy as it is stored and a C-contiguous w."""
    shape = (z.N, z.C, z.D, z.H, z.W)
    dx, dx_stored = empty_images(device, shape, dy.dtype, channels_last=channels_last)
    templates, blocks = (dy.dtype, channels_last, volume_conv_index(z)), cover(device, elements(shape))
    _DATA(device, templates, blocks, dy, w, dx_stored, _shape(z))
    return dx


def volume_weight_slices(
    device: Device, dy: Any, x: Any, partial: Any, z: VolumeConvSizes, length: int, *, channels_last: bool
) -> None:
    """Fill partial (slices, elements of dw), each slice with the sums over its `length` outputs."""
    templates, blocks = (x.dtype, channels_last, volume_conv_index(z)), cover(device, partial.size)
    _WEIGHT(device, templates, blocks, dy, x, partial, _shape(z), len(partial), length)


def volume_conv_index(z: VolumeConvSizes) -> np.dtype:
    """Return the type that counts every array's elements, and how far the taps reach along each axis."""
    axes = zip((z.D, z.H, z.W), z.pad, z.dilation, (z.T, z.R, z.S), strict=True)
    weights = z.K * (z.C // z.groups) * z.T * z.R * z.S
    return index_type(
        z.N * z.C * z.D * z.H * z.W, elements(z.out), weights, *(n + 2 * p + d * r for n, p, d, r in axes)
    )


@functools.lru_cache(maxsize=1024)
def _shape(z: VolumeConvSizes) -> np.void:
    """Return VolumeConvShape of kernels/conv_volume.cu."""
    names = ("N", "C", "D", "H", "W", "K", "T", "R", "S", "Z", "P", "Q", "groups")
    fields = {name: getattr(z, name) for name in names}
    for name in ("stride", "pad", "dilation"):
        fields[f"{name}_d"], fields[f"{name}_v"], fields[f"{name}_h"] = getattr(z, name)
    return _FORWARD.pack("z", fields)
