"""Launches of kernels/groupnorm.cu."""

from __future__ import annotations

from math import prod
from typing import Any

from .copy import contiguous
from .device import device_of
from .kernel import Kernel
from .layout import elements, empty_results, in_own_format, index_type, stored
from .reduce import merge_chunks, seen_by_channel, sum_type

_FORWARD = Kernel("groupnorm.cu", "groupnorm_forward_direct")
_DATA = Kernel("groupnorm.cu", "groupnorm_backward_data")
_WEIGHTS = Kernel("groupnorm.cu", "groupnorm_backward_weights")


def groupnorm_forward(x: Any, gamma: Any, beta: Any, *, groups: int, eps: float) -> tuple[Any, Any, Any]:
    device = device_of(x)
    N, C, *image = x.shape
    x, channels_last = _stored(x)
    gamma, beta = contiguous(gamma), contiguous(beta)
    sums = sum_type(x.dtype)
    mean, inv_std = device.empty((N, groups), sums), device.empty((N, groups), sums)
    y, target = empty_results(device, (N, C, *image), x.dtype, channels_last=channels_last)
    templates = (x.dtype, gamma.dtype, channels_last, _index(x))
    _FORWARD(device, templates, N * groups, x, gamma, beta, target, mean, inv_std, C, prod(image), groups, eps)
    return y, mean, inv_std


def groupnorm_backward(dy: Any, x: Any, gamma: Any, mean: Any, inv_std: Any) -> tuple[Any, Any, Any]:
    device = device_of(x)
    N, C, *image = x.shape
    groups = mean.shape[1]
    _, _, z = seen_by_channel(x)
    x, channels_last = _stored(x)
    dy = stored(dy, channels_last=channels_last) if dy.ndim == 4 else contiguous(dy)
    gamma = contiguous(gamma)
    partial = device.empty((2, z.chunks, C), sum_type(x.dtype))
    arrays = dy, x, mean, inv_std, partial
    images, channels, pixels, lanes, parts = z.sizes
    sizes = images, channels, pixels, C * prod(image), groups, lanes, parts, z.chunks
    _WEIGHTS(device, (x.dtype, *z.templates, z.index), z.blocks, *arrays, *sizes)
    dgamma, dbeta = device.empty((C,), gamma.dtype), device.empty((C,), gamma.dtype)
    merge_chunks(device, partial[0], dgamma, z)
    merge_chunks(device, partial[1], dbeta, z)
    dx, target = empty_results(device, (N, C, *image), x.dtype, channels_last=channels_last)
    templates = (x.dtype, gamma.dtype, channels_last, _index(x))
    _DATA(device, templates, N * groups, dy, x, gamma, mean, inv_std, target, C, prod(image), groups)
    return dx, dgamma, dbeta


def _stored(x: Any) -> tuple[Any, bool]:
    """Return x without gaps and whether its channels lie together; rows are pixels of their own."""
    return (contiguous(x), True) if x.ndim == 2 else in_own_format(x)


def _index(x: Any) -> Any:
    """Return the type that counts the elements and, in steps of a block, a little beyond."""
    return index_type(elements(x.shape) + _FORWARD.block[0])
