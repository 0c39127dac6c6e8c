"""Launches of kernels/conv.cu: which kernel a convolution and each of its gradients runs on."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..shapes import ConvSizes
from .copy import contiguous
from .device import Device, device_of
from .kernel import Kernel, cover
from .layout import elements, empty_images, in_own_format, index_type, stored

_FORWARD_DIRECT = Kernel("conv.cu", "conv_forward_direct")
_DATA_DIRECT = Kernel("conv.cu", "conv_backward_data_direct")
_WEIGHT_DIRECT = Kernel("conv.cu", "conv_backward_weight_direct")
_BIAS_PLANAR = Kernel("conv.cu", "conv_backward_bias_planar")
_BIAS_LAST = Kernel("conv.cu", "conv_backward_bias_last")
_SUM = Kernel("conv.cu", "conv_backward_sum")

# Slices of the pixels, each summed by itself: enough threads to fill any GPU, a number that depends on sizes alone, so
# that the order of adding never changes.
_LEAST_PIXELS = 64  # of a slice
_PARTIAL_SUMS = 2**18  # of all slices together, unless dw itself has more elements


def conv_forward(x: Any, w: Any, b: Any, sizes: ConvSizes) -> Any:
    return convolve(x, w, b, sizes, relu=False)


def convolve(x: Any, w: Any, b: Any, sizes: ConvSizes, *, relu: bool) -> Any:
    """Return conv_forward(x, w, b), or with relu its positive part: in the same pass over memory."""
    device = device_of(x)
    z = sizes
    x, channels_last = in_own_format(x)
    y, y_stored = empty_images(device, (z.N, z.K, z.P, z.Q), x.dtype, channels_last=channels_last)
    w, b = contiguous(w), None if b is None else contiguous(b)
    templates = (x.dtype, channels_last, relu, _index(z))
    _FORWARD_DIRECT(device, templates, cover(device, elements(y.shape)), x, w, b, y_stored, _shape(z))
    return y


def conv_backward(
    dy: Any, x: Any, w: Any, sizes: ConvSizes, *, input_grad: bool, bias_grad: bool
) -> tuple[Any, Any, Any]:
    device = device_of(x)
    x, channels_last = in_own_format(x)
    dy = stored(dy, channels_last=channels_last)
    dw = _weight_gradient(device, dy, x, tuple(w.shape), sizes, channels_last=channels_last)
    db = _bias_gradient(device, dy, sizes, channels_last=channels_last) if bias_grad else None
    dx = _data_gradient(device, dy, contiguous(w), sizes, channels_last=channels_last) if input_grad else None
    return dx, dw, db


def _data_gradient(device: Device, dy: Any, w: Any, z: ConvSizes, *, channels_last: bool) -> Any:
    dx, dx_stored = empty_images(device, (z.N, z.C, z.H, z.W), dy.dtype, channels_last=channels_last)
    templates = (dy.dtype, channels_last, _index(z))
    _DATA_DIRECT(device, templates, cover(device, elements(dx.shape)), dy, w, dx_stored, _shape(z))
    return dx


def _weight_gradient(
    device: Device, dy: Any, x: Any, shape: tuple[int, int, int, int], z: ConvSizes, *, channels_last: bool
) -> Any:
    size = elements(shape)
    slices, length = _slices(z.N * z.P * z.Q, size)
    partial = device.empty((slices, size), _sum_type(x.dtype))
    templates = (x.dtype, channels_last, _index(z))
    _WEIGHT_DIRECT(device, templates, cover(device, slices * size), dy, x, partial, _shape(z), slices, length)
    return _added(device, partial, shape, x.dtype)


def _bias_gradient(device: Device, dy: Any, z: ConvSizes, *, channels_last: bool) -> Any:
    pixels = z.P * z.Q
    slices, length = _slices(z.N * pixels, 32 * z.K)
    partial = device.empty((slices, z.K), _sum_type(dy.dtype))
    if channels_last:
        _BIAS_LAST(device, (dy.dtype,), slices * -(-z.K // 32), dy, partial, z.N * pixels, z.K, length)
    else:
        _BIAS_PLANAR(device, (dy.dtype,), slices * z.K, dy, partial, z.N, z.K, pixels, length)
    return _added(device, partial, (z.K,), dy.dtype)


def _added(device: Device, partial: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Return the sum over the slices of partial sums, (slices, size), as an array of the given shape and dtype."""
    slices, size = partial.shape
    total = device.empty(shape, dtype)
    _SUM(device, (dtype,), cover(device, size), partial, total, slices, size)
    return total


def _slices(pixels: int, sums: int) -> tuple[int, int]:
    """Return (number of slices, pixels in each) for `pixels` terms of each of `sums` sums."""
    wanted = max(1, min(-(-pixels // _LEAST_PIXELS), _PARTIAL_SUMS // sums))
    length = max(1, -(-pixels // wanted))
    return max(1, -(-pixels // length)), length


def _sum_type(dtype: np.dtype) -> np.dtype:
    """Return Accumulator<T>::type of kernels/common.cuh."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _index(z: ConvSizes) -> np.dtype:
    reach = ((n + 2 * p + d * r) for n, p, d, r in zip((z.H, z.W), z.pad, z.dilation, (z.R, z.S), strict=True))
    weights = z.K * (z.C // z.groups) * z.R * z.S
    return index_type(z.N * z.C * z.H * z.W, z.N * z.K * z.P * z.Q, weights, *reach)


def _shape(z: ConvSizes) -> dict[str, int]:
    """Return the fields of ConvShape in kernels/conv.cu."""
    return {
        **{name: getattr(z, name) for name in ("N", "C", "H", "W", "K", "R", "S", "P", "Q", "groups")},
        **{
            f"{name}_{axis}": getattr(z, name)[i]
            for name in ("stride", "pad", "dilation")
            for i, axis in enumerate("vh")
        },
    }
