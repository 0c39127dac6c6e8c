"""The course's naive convolution and max-pooling, the oracle's loops on the host, and its spatial normalisations."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks, naive, ops
from ..errors import ShapeError
from ..pool_shapes import image_pool_sizes
from ..shapes import check_images, conv_sizes
from . import border
from .params import batchnorm, conv_options, pool_options, unpacked


def conv_forward_naive(x: Any, w: Any, b: Any, conv_param: dict[str, Any]) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Correlate images with filters, loop by loop; return (out, cache).

    x: (N, C, H, W)   w: (F, C, HH, WW)   b: (F,)   conv_param: stride, pad   ->   out: (N, F, H', W')
    """
    out = naive.conv_forward(x, w, b, conv_sizes(x, w, b, **conv_options(conv_param)))
    return out.astype(border.float_type(x, w, b)), (x, w, b, conv_param)


def conv_backward_naive(dout: Any, cache: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (dx, dw, db) of conv_forward_naive."""
    x, w, b, conv_param = unpacked(cache, 4, "conv_forward_naive")
    z = conv_sizes(x, w, b, **conv_options(conv_param))
    checks.same_shape("dout", dout, (z.N, z.K, z.P, z.Q), "the shape of the forward's output")
    grads: Any = naive.conv_backward(dout, x, w, z, input_grad=True, bias_grad=True)
    dx, dw, db = (grad.astype(border.float_type(dout, x, w)) for grad in grads)
    return dx, dw, db


def max_pool_forward_naive(x: Any, pool_param: dict[str, Any]) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Take the maximum of every window; return (out, cache).   x: (N, C, H, W)  ->  out: (N, C, H', W').

    pool_param: pool_height, pool_width, stride.  A window that would stick out is dropped.
    """
    out, _ = naive.max_pool_forward(x, image_pool_sizes(x, pad=0, **pool_options(pool_param)))
    return out.astype(x.dtype), (x, pool_param)


def max_pool_backward_naive(dout: Any, cache: tuple[Any, ...]) -> np.ndarray:
    """Return dx.  Every pixel that equals its window's maximum gets the window's whole gradient, ties included.

    A window whose maximum is NaN, which equals nothing, gives none.
    """
    x, pool_param = unpacked(cache, 2, "max_pool_forward_naive")
    z = image_pool_sizes(x, pad=0, **pool_options(pool_param))
    checks.same_shape("dout", dout, (z.N, z.C, z.P, z.Q), "the shape of the forward's output")
    top, _ = naive.max_pool_forward(x, z)
    return naive.max_pool_backward(dout, None, z, ties="every", x=x, y=top).astype(border.float_type(dout))


def spatial_batchnorm_forward(x: Any, gamma: Any, beta: Any, bn_param: dict[str, Any]) -> tuple[Any, Any]:
    """Normalise every channel of x (N, C, H, W) over the batch and the image; otherwise as batchnorm_forward."""
    check_images("x", x)
    return batchnorm(ops.spatial_batchnorm_forward, x, gamma, beta, bn_param)


@border.backward
def spatial_batchnorm_backward(dout: Any, cache: Any) -> tuple[Any, Any, Any]:
    """Return (dx, dgamma, dbeta)."""
    return ops.spatial_batchnorm_backward(dout, cache)


@border.forward
def spatial_groupnorm_forward(
    x: Any, gamma: Any, beta: Any, G: int, gn_param: dict[str, Any]
) -> tuple[Any, tuple[Any, ...]]:
    """Normalise each image over G groups of neighbouring channels; return (out, cache).

    x: (N, C, H, W)   gamma, beta: (1, C, 1, 1)   gn_param: eps (1e-5); anything else is ignored
    """
    shape = tuple(gamma.shape)
    if gamma.size != x.shape[1] or beta.size != x.shape[1]:
        msg = f"gamma and beta must have one entry per channel of x, {x.shape[1]}, got {shape} and {tuple(beta.shape)}"
        msg += checks.channels_first("x", x, gamma.size)
        raise ShapeError(msg)
    check_images("x", x)
    eps = gn_param.get("eps", 1e-5)
    out, cache = ops.groupnorm_forward(x, gamma.reshape(-1), beta.reshape(-1), groups=G, eps=eps)
    return out, (cache, shape)


@border.backward
def spatial_groupnorm_backward(dout: Any, cache: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """Return (dx, dgamma, dbeta), the latter in the shape of gamma."""
    inner, shape = unpacked(cache, 2, "spatial_groupnorm_forward")
    dx, dgamma, dbeta = ops.groupnorm_backward(dout, inner)
    return dx, dgamma.reshape(shape), dbeta.reshape(shape)
