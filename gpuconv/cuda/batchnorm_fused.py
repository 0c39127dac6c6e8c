"""Launches of kernels/batchnorm_fused.cu: batch norm with what follows it in one pass, and the gradients of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .batchnorm import batchnorm_backward_into, merge_gradients, moments
from .conv_tensor import Moments
from .copy import contiguous
from .device import device_of
from .kernel import Kernel, cover
from .layout import elements, empty_images, empty_results, index_type, stored
from .reduce import Channels, channels_of, seen_by_channel, sum_type

_FORWARD = Kernel("batchnorm_fused.cu", "batchnorm_forward_fused")
_POOLED = Kernel("batchnorm_fused.cu", "batchnorm_forward_pooled")
_JOINED = Kernel("batchnorm_fused.cu", "batchnorm_backward_joined")
_SUMS_MASKED = Kernel("batchnorm_fused.cu", "batchnorm_backward_sums_masked")
_DATA_MASKED = Kernel("batchnorm_fused.cu", "batchnorm_backward_data_masked")
_SUMS_GELU = Kernel("batchnorm_fused.cu", "batchnorm_backward_sums_gelu")
_DATA_GELU = Kernel("batchnorm_fused.cu", "batchnorm_backward_data_gelu")
_SUMS_POOLED = Kernel("batchnorm_fused.cu", "batchnorm_backward_sums_pooled")
_DATA_POOLED = Kernel("batchnorm_fused.cu", "batchnorm_backward_data_pooled")

# Activation and Join of the kernels.
ACTIVATIONS = {"identity": 0, "relu": 1, "gelu": 2, "gelu-tanh": 3}
JOINS = {"alone": 0, "before": 1, "after": 2}
_BYTE = np.dtype(np.uint8)

Vectors = tuple[Any, Any, Any, Any, Any]  # gamma, mean, inv_std, dgamma (or None), dbeta


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Where the values of an array were above 0: a byte for each pack of `pack` of them, in its memory format."""

    bits: Any
    pack: int
    channels_last: bool


def fused_forward(
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Any,
    running_var: Any,
    *,
    training: bool,
    momentum: float,
    eps: float,
    activation: str,
    other: Any,
    join: str,
    given: Moments | None = None,
) -> tuple[Any, Any, Any, Mask | None]:
    """Return (y, mean, inv_std, mask); the mask where a backward wants one: in training, with ReLU."""
    device = device_of(x)
    shape = tuple(x.shape)
    x, channels_last, z = seen_by_channel(x)
    gamma, beta = contiguous(gamma), contiguous(beta)
    other = None if other is None else _stored(other, channels_last=channels_last)
    how: dict[str, Any] = {"training": training, "momentum": momentum, "eps": eps, "given": given}
    mean, inv_std = moments(x, z, gamma.dtype, running_mean, running_var, **how)
    y, target = empty_results(device, shape, x.dtype, channels_last=channels_last)
    bits = device.empty((z.packs,), _BYTE) if training and activation == "relu" else None
    templates = (x.dtype, gamma.dtype, *z.templates, ACTIVATIONS[activation], JOINS[join], z.index)
    _FORWARD(device, templates, cover(device, z.packs), x, mean, inv_std, gamma, beta, other, target, bits, *z.walk)
    return y, mean, inv_std, None if bits is None else Mask(bits, z.pack, channels_last)


def pooled_forward(
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Any,
    running_var: Any,
    *,
    training: bool,
    momentum: float,
    eps: float,
    relu: bool,
    given: Moments | None = None,
) -> tuple[Any, Any, Any, Any]:
    """Return (y, mean, inv_std, places); y: (N, C, H / 2, W / 2); places: None without training."""
    device = device_of(x)
    N, C, H, W = x.shape
    x, channels_last, z = seen_by_channel(x)
    gamma, beta = contiguous(gamma), contiguous(beta)
    how: dict[str, Any] = {"training": training, "momentum": momentum, "eps": eps, "given": given}
    mean, inv_std = moments(x, z, gamma.dtype, running_mean, running_var, **how)
    shape = (N, C, H // 2, W // 2)
    y, target = empty_images(device, shape, x.dtype, channels_last=channels_last)
    places, places_target = None, None
    if training:
        places, places_target = empty_images(device, shape, _BYTE, channels_last=channels_last)
    v = channels_of((N, C, H, W), x.dtype, rows=channels_last, together=W)
    total = elements(shape) // (v.pack if v.rows or v.pack == 1 else v.pack // 2)
    blocks = cover(device, total)
    # Threads step beyond the end by less than a step of all before they see it.
    index = index_type(elements(x.shape), total + blocks * _POOLED.block[0])
    templates = (x.dtype, gamma.dtype, *v.templates, ACTIVATIONS["relu" if relu else "identity"], index)
    _POOLED(device, templates, blocks, x, mean, inv_std, gamma, beta, target, places_target, total, C, H, W)
    return y, mean, inv_std, places


def masked_backward_into(dy: Any, mask: Mask, x: Any, vectors: Vectors) -> Any:
    """Return dx, and fill the gradients among the vectors: where the output was above 0, dy is its gradient."""
    shape = tuple(x.shape)
    x, channels_last, z = seen_by_channel(x)
    if mask.channels_last != channels_last:
        given = joined(dy, mask, None), x if x.ndim == 2 or not channels_last else x.transpose(0, 3, 1, 2)
        return batchnorm_backward_into(*given, *vectors, training=True)
    given = _stored(dy, channels_last=channels_last), mask.bits
    passes = (_SUMS_MASKED, _DATA_MASKED), (x.dtype, *z.templates, z.index)
    return _backward(passes, given, _empty(shape, x, channels_last=channels_last), x, z, vectors)


def gelu_backward_into(dy: Any, beta: Any, x: Any, vectors: Vectors, *, approximate: str) -> Any:
    """Return dx, and fill the gradients among the vectors, of a GELU of the normalised values."""
    shape, (gamma, _, inv_std, _, _) = tuple(x.shape), vectors
    x, channels_last, z = seen_by_channel(x)
    given = _stored(dy, channels_last=channels_last), inv_std, contiguous(gamma), contiguous(beta)
    passes = (_SUMS_GELU, _DATA_GELU), (x.dtype, gamma.dtype, *z.templates, approximate == "tanh", z.index)
    return _backward(passes, given, _empty(shape, x, channels_last=channels_last), x, z, vectors)


def pooled_backward_into(dy: Any, places: Any, x: Any, vectors: Vectors) -> Any:
    """Return dx, and fill the gradients among the vectors, of the maxima of windows of normalised values."""
    shape = tuple(x.shape)
    x, channels_last, z = seen_by_channel(x)
    given = *(stored(array, channels_last=channels_last) for array in (dy, places)), *shape[2:]
    passes = (_SUMS_POOLED, _DATA_POOLED), (x.dtype, *z.templates, z.index)
    return _backward(passes, given, _empty(shape, x, channels_last=channels_last), x, z, vectors)


def joined(dy: Any, mask: Mask, other: Any) -> Any:
    """Return dy where the mask is set, else 0, plus another array of its shape unless that is None."""
    device = device_of(dy)
    shape = tuple(dy.shape)
    dy = _stored(dy, channels_last=mask.channels_last)
    other = None if other is None else _stored(other, channels_last=mask.channels_last)
    out, target = empty_results(device, shape, dy.dtype, channels_last=mask.channels_last)
    packs = mask.bits.size
    _JOINED(device, (dy.dtype, mask.pack), cover(device, packs), dy, mask.bits, other, target, packs)
    return out


def _backward(
    passes: tuple[tuple[Kernel, Kernel], tuple[Any, ...]],
    given: tuple[Any, ...],
    made: tuple[Any, Any],
    x: Any,
    z: Channels,
    vectors: Vectors,
) -> Any:
    """Launch both passes over a stored x; given: what tells the gradient of the normalised values, pack by pack."""
    device = device_of(x)
    (sums, data), templates = passes
    gamma, mean, inv_std, dgamma, dbeta = vectors
    partial = device.empty((2, z.chunks, z.channels), sum_type(x.dtype))
    sums(device, templates, z.blocks, *given, x, mean, partial, *z.sizes, z.chunks)
    coefficients = merge_gradients(x.dtype, partial, z, contiguous(gamma), inv_std, dgamma, dbeta)
    dx, target = made
    data(device, templates, cover(device, z.packs), *given, x, mean, coefficients, target, *z.walk)
    return dx


def _empty(shape: tuple[int, ...], x: Any, *, channels_last: bool) -> tuple[Any, Any]:
    return empty_results(device_of(x), shape, x.dtype, channels_last=channels_last)


def _stored(array: Any, *, channels_last: bool) -> Any:
    return stored(array, channels_last=channels_last) if array.ndim == 4 else contiguous(array)
