"""Launches of kernels/batchnorm.cu."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .conv_tensor import Moments
from .copy import contiguous
from .device import device_of
from .kernel import Kernel, cover
from .layout import empty_results, stored
from .reduce import Channels, seen_by_channel, sum_type

_RUNNING = ("running_mean", "running_var")
_MOMENTS = Kernel("batchnorm.cu", "batchnorm_forward_moments")
_MERGE = Kernel("batchnorm.cu", "batchnorm_forward_moments_merge", strided=_RUNNING)
_STORED = Kernel("batchnorm.cu", "batchnorm_forward_moments_stored", strided=_RUNNING)
_NORMALISE = Kernel("batchnorm.cu", "batchnorm_forward_normalise")
_BACKWARD_SUMS = Kernel("batchnorm.cu", "batchnorm_backward_sums")
_BACKWARD_MERGE = Kernel("batchnorm.cu", "batchnorm_backward_sums_merge")
_DATA = Kernel("batchnorm.cu", "batchnorm_backward_data")


def batchnorm_forward(
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Any,
    running_var: Any,
    *,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Any, Any, Any]:
    how = {"training": training, "momentum": momentum, "eps": eps}
    return forward(x, gamma, beta, running_mean, running_var, **how, given=None)


def forward(
    x: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any, *, given: Moments | None, **settings: Any
) -> tuple[Any, Any, Any]:
    """Return (y, mean, inv_std); given: as in moments; settings: those of batchnorm_forward."""
    device = device_of(x)
    shape = tuple(x.shape)
    x, channels_last, z = seen_by_channel(x)
    gamma, beta = contiguous(gamma), contiguous(beta)
    mean, inv_std = moments(x, z, gamma.dtype, running_mean, running_var, **settings, given=given)
    y, target = empty_results(device, shape, x.dtype, channels_last=channels_last)
    templates = (x.dtype, gamma.dtype, *z.templates, z.index)
    _NORMALISE(device, templates, cover(device, z.packs), x, mean, inv_std, gamma, beta, target, *z.walk)
    return y, mean, inv_std


def moments(
    x: Any,
    z: Channels,
    dtype: np.dtype,
    running_mean: Any,
    running_var: Any,
    *,
    training: bool,
    momentum: float,
    eps: float,
    given: Moments | None = None,
) -> tuple[Any, Any]:
    """Return mean and 1 / sqrt(variance + eps) of the channels of a stored x, and update the running statistics.

    dtype: that of gamma and beta   given: what is known of x already, in training
    """
    device, sums, kinds = device_of(x), sum_type(x.dtype), (x.dtype, dtype)
    mean, inv_std = device.empty((z.channels,), sums), device.empty((z.channels,), sums)
    steps = _step(running_mean), _step(running_var)
    if training and z.count:
        if given is None:
            partial = device.empty((3, z.chunks, z.channels), sums)
            _MOMENTS(device, (x.dtype, *z.templates, z.index), z.blocks, x, partial, *z.sizes, z.chunks)
        else:
            partial, z = given.partial, dataclasses.replace(z, part=given.chunk, parts=1)
        vectors = mean, inv_std, running_mean, running_var
        sizes = z.channels, z.count, z.chunks, z.chunk, z.merge_lanes
        _MERGE(device, kinds, z.merge_blocks, partial, *vectors, *steps, *sizes, momentum, eps)
    else:
        blocks = -(-z.channels // _STORED.block[0])
        _STORED(device, kinds, blocks, running_mean, running_var, mean, inv_std, *steps, z.channels, eps)
    return mean, inv_std


def batchnorm_backward(dy: Any, x: Any, gamma: Any, mean: Any, inv_std: Any, *, training: bool) -> tuple[Any, Any, Any]:
    device = device_of(x)
    dgamma, dbeta = device.empty(tuple(gamma.shape), gamma.dtype), device.empty(tuple(gamma.shape), gamma.dtype)
    dx = batchnorm_backward_into(dy, x, gamma, mean, inv_std, dgamma, dbeta, training=training)
    return dx, dgamma, dbeta


def batchnorm_backward_into(
    dy: Any, x: Any, gamma: Any, mean: Any, inv_std: Any, dgamma: Any, dbeta: Any, *, training: bool
) -> Any:
    """Return dx, and fill dgamma, unless it is None, and dbeta, C-contiguous."""
    device = device_of(x)
    shape = tuple(x.shape)
    x, channels_last, z = seen_by_channel(x)
    dy = stored(dy, channels_last=channels_last) if dy.ndim == 4 else contiguous(dy)
    gamma = contiguous(gamma)
    partial = device.empty((2, z.chunks, z.channels), sum_type(x.dtype))
    _BACKWARD_SUMS(device, (x.dtype, *z.templates, z.index), z.blocks, dy, x, mean, partial, *z.sizes, z.chunks)
    coefficients = merge_gradients(x.dtype, partial, z, gamma, inv_std, dgamma, dbeta)
    dx, target = empty_results(device, shape, x.dtype, channels_last=channels_last)
    templates = (x.dtype, *z.templates, training, z.index)
    _DATA(device, templates, cover(device, z.packs), dy, x, mean, coefficients, target, *z.walk)
    return dx


def merge_gradients(
    dtype: np.dtype, partial: Any, z: Channels, gamma: Any, inv_std: Any, dgamma: Any, dbeta: Any
) -> Any:
    """Fill dgamma, unless it is None, and dbeta from the sums of chunks; return the coefficients (3, C) of dx.

    dtype: that of dx
    """
    device = device_of(partial)
    dgamma = device.empty(tuple(gamma.shape), gamma.dtype) if dgamma is None else dgamma
    coefficients = device.empty((3, z.channels), partial.dtype)
    arrays = partial, gamma, inv_std, dgamma, dbeta, coefficients
    sizes = z.channels, z.count, z.chunks, z.merge_lanes
    _BACKWARD_MERGE(device, (dtype, gamma.dtype), z.merge_blocks, *arrays, *sizes)
    return coefficients


def _step(vector: Any) -> int:
    """Return the distance between entries, in elements."""
    return vector.strides[0] // vector.dtype.itemsize
