"""Batch normalisation of a batch that several processes share, by kernels/across.cu between those of batchnorm.cu."""

from __future__ import annotations

from typing import Any

from .batchnorm import _BACKWARD_SUMS, _DATA, _NORMALISE, _step, moments
from .copy import contiguous
from .device import device_of
from .kernel import Kernel, cover
from .layout import empty_results, stored
from .reduce import merge_chunks, seen_by_channel, sum_type

_ALL_MOMENTS = Kernel("across.cu", "across_moments", strided=("running_mean", "running_var"))
_COEFFICIENTS = Kernel("across.cu", "across_coefficients")
_SUM = Kernel("across.cu", "across_sum")


def batchnorm_forward(
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Any,
    running_var: Any,
    *,
    momentum: float,
    eps: float,
    across: Any,
) -> tuple[Any, Any, Any]:
    device = device_of(x)
    shape = tuple(x.shape)
    x, channels_last, z = seen_by_channel(x)
    gamma, beta = contiguous(gamma), contiguous(beta)
    sums, kinds = sum_type(x.dtype), (x.dtype, gamma.dtype)
    own = device.zeros((2, z.channels), sums)  # in place of running statistics, none of whose old ones stays
    mean, inv_std = moments(x, z, sums, own[0], own[1], training=True, momentum=0.0, eps=eps)
    gathered = across.gather(own)
    steps = _step(running_mean), _step(running_var)
    vectors = gathered, mean, inv_std, running_mean, running_var, *steps
    of_all = z.channels, sum(across.images), len(across.images)
    _ALL_MOMENTS(device, (sums, gamma.dtype), _blocks(z.channels), *vectors, *of_all, momentum, eps)
    y, target = empty_results(device, shape, x.dtype, channels_last=channels_last)
    templates = (*kinds, *z.templates, z.index)
    _NORMALISE(device, templates, cover(device, z.packs), x, mean, inv_std, gamma, beta, target, *z.walk)
    return y, mean, inv_std


def batchnorm_backward_into(
    dy: Any, x: Any, gamma: Any, mean: Any, inv_std: Any, dgamma: Any, dbeta: Any, *, across: Any
) -> Any:
    """Return dx, and fill dgamma, unless it is None, and dbeta with what this share contributes; C-contiguous."""
    device = device_of(x)
    dgamma = device.empty(tuple(gamma.shape), gamma.dtype) if dgamma is None else dgamma
    shape = tuple(x.shape)
    x, channels_last, z = seen_by_channel(x)
    dy = stored(dy, channels_last=channels_last) if dy.ndim == 4 else contiguous(dy)
    gamma, sums = contiguous(gamma), sum_type(x.dtype)
    partial = device.empty((2, z.chunks, z.channels), sums)
    _BACKWARD_SUMS(device, (x.dtype, *z.templates, z.index), z.blocks, dy, x, mean, partial, *z.sizes, z.chunks)
    own = device.empty((2, z.channels), sums)
    for part, total in zip((partial[0], partial[1]), (own[0], own[1]), strict=True):
        merge_chunks(device, part, total, z)
    gathered = across.gather(own)
    coefficients = device.empty((3, z.channels), sums)
    count = sum(across.images) * (z.count // across.images[across.rank])
    arrays = gathered, gamma, inv_std, dgamma, dbeta, coefficients
    sizes = z.channels, count, len(across.images), across.rank
    _COEFFICIENTS(device, (sums, gamma.dtype), _blocks(z.channels), *arrays, *sizes)
    dx, target = empty_results(device, shape, x.dtype, channels_last=channels_last)
    templates = (x.dtype, *z.templates, True, z.index)
    _DATA(device, templates, cover(device, z.packs), dy, x, mean, coefficients, target, *z.walk)
    return dx


def add_pieces(own: Any, pieces: Any, *, ranks: int, rank: int) -> None:
    """Add what the other processes have of a stretch to this one's, (count,), in their order.   pieces: (ranks, count)."""
    device = device_of(own)
    _SUM(device, (own.dtype,), cover(device, own.size), own, pieces, own.size, ranks, rank)


def _blocks(channels: int) -> int:
    return -(-channels // _ALL_MOMENTS.block[0])
