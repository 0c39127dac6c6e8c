"""The course's sandwiches: several layers in one call.  On a GPU what lies between the layers stays there."""

from __future__ import annotations

from typing import Any

from . import border
from .conv_layers import spatial_batchnorm_backward, spatial_batchnorm_forward
from .fast_layers import conv_backward_fast, conv_forward_fast, max_pool_backward_fast, max_pool_forward_fast
from .layers import (
    affine_backward,
    affine_forward,
    batchnorm_backward,
    batchnorm_forward,
    relu_backward,
    relu_forward,
)
from .params import unpacked

Param = dict[str, Any]


@border.forward
def affine_relu_forward(x: Any, w: Any, b: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return (relu(affine(x)), cache)."""
    a, fc_cache = affine_forward(x, w, b)
    out, relu_cache = relu_forward(a)
    return out, (fc_cache, relu_cache)


@border.backward
def affine_relu_backward(dout: Any, cache: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """Return (dx, dw, db)."""
    fc_cache, relu_cache = unpacked(cache, 2, "affine_relu_forward")
    return affine_backward(relu_backward(dout, relu_cache), fc_cache)


@border.forward
def affine_bn_relu_forward(
    x: Any, w: Any, b: Any, gamma: Any, beta: Any, bn_param: Param
) -> tuple[Any, tuple[Any, ...]]:
    """Return (relu(batchnorm(affine(x))), cache)."""
    a, fc_cache = affine_forward(x, w, b)
    normed, bn_cache = batchnorm_forward(a, gamma, beta, bn_param)
    out, relu_cache = relu_forward(normed)
    return out, (fc_cache, bn_cache, relu_cache)


@border.backward
def affine_bn_relu_backward(dout: Any, cache: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return (dx, dw, db, dgamma, dbeta)."""
    fc_cache, bn_cache, relu_cache = unpacked(cache, 3, "affine_bn_relu_forward")
    da, dgamma, dbeta = batchnorm_backward(relu_backward(dout, relu_cache), bn_cache)
    return *affine_backward(da, fc_cache), dgamma, dbeta


@border.forward
def conv_relu_forward(x: Any, w: Any, b: Any, conv_param: Param) -> tuple[Any, tuple[Any, ...]]:
    """Return (relu(conv(x)), cache)."""
    a, conv_cache = conv_forward_fast(x, w, b, conv_param)
    out, relu_cache = relu_forward(a)
    return out, (conv_cache, relu_cache)


@border.backward
def conv_relu_backward(dout: Any, cache: tuple[Any, ...], *, input_grad: bool = True) -> tuple[Any, Any, Any]:
    """Return (dx, dw, db); dx is None with input_grad=False."""
    conv_cache, relu_cache = unpacked(cache, 2, "conv_relu_forward")
    return conv_backward_fast(relu_backward(dout, relu_cache), conv_cache, input_grad=input_grad)


@border.forward
def conv_bn_relu_forward(
    x: Any, w: Any, b: Any, gamma: Any, beta: Any, conv_param: Param, bn_param: Param
) -> tuple[Any, tuple[Any, ...]]:
    """Return (relu(spatial_batchnorm(conv(x))), cache)."""
    a, conv_cache = conv_forward_fast(x, w, b, conv_param)
    normed, bn_cache = spatial_batchnorm_forward(a, gamma, beta, bn_param)
    out, relu_cache = relu_forward(normed)
    return out, (conv_cache, bn_cache, relu_cache)


@border.backward
def conv_bn_relu_backward(dout: Any, cache: tuple[Any, ...], *, input_grad: bool = True) -> tuple[Any, ...]:
    """Return (dx, dw, db, dgamma, dbeta); dx is None with input_grad=False."""
    conv_cache, bn_cache, relu_cache = unpacked(cache, 3, "conv_bn_relu_forward")
    da, dgamma, dbeta = spatial_batchnorm_backward(relu_backward(dout, relu_cache), bn_cache)
    return *conv_backward_fast(da, conv_cache, input_grad=input_grad), dgamma, dbeta


@border.forward
def conv_relu_pool_forward(x: Any, w: Any, b: Any, conv_param: Param, pool_param: Param) -> tuple[Any, tuple[Any, ...]]:
    """Return (max_pool(relu(conv(x))), cache)."""
    a, (conv_cache, relu_cache) = conv_relu_forward(x, w, b, conv_param)
    out, pool_cache = max_pool_forward_fast(a, pool_param)
    return out, (conv_cache, relu_cache, pool_cache)


@border.backward
def conv_relu_pool_backward(dout: Any, cache: tuple[Any, ...], *, input_grad: bool = True) -> tuple[Any, Any, Any]:
    """Return (dx, dw, db); dx is None with input_grad=False."""
    *inner, pool_cache = unpacked(cache, 3, "conv_relu_pool_forward")
    return conv_relu_backward(max_pool_backward_fast(dout, pool_cache), tuple(inner), input_grad=input_grad)


@border.forward
def conv_bn_relu_pool_forward(
    x: Any, w: Any, b: Any, gamma: Any, beta: Any, conv_param: Param, bn_param: Param, pool_param: Param
) -> tuple[Any, tuple[Any, ...]]:
    """Return (max_pool(relu(spatial_batchnorm(conv(x)))), cache)."""
    a, inner = conv_bn_relu_forward(x, w, b, gamma, beta, conv_param, bn_param)
    out, pool_cache = max_pool_forward_fast(a, pool_param)
    return out, (*inner, pool_cache)


@border.backward
def conv_bn_relu_pool_backward(dout: Any, cache: tuple[Any, ...], *, input_grad: bool = True) -> tuple[Any, ...]:
    """Return (dx, dw, db, dgamma, dbeta); dx is None with input_grad=False."""
    *inner, pool_cache = unpacked(cache, 4, "conv_bn_relu_pool_forward")
    return conv_bn_relu_backward(max_pool_backward_fast(dout, pool_cache), tuple(inner), input_grad=input_grad)
