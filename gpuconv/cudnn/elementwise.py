"""Activations and softmax: array expressions, which CuPy arrays compute through NumPy's dispatch of ufuncs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import quiet
from ..typing import Array
from .checks import floats, lines
from .constants import (
    CUDNN_ACTIVATION_CLIPPED_RELU,
    CUDNN_ACTIVATION_ELU,
    CUDNN_ACTIVATION_RELU,
    CUDNN_ACTIVATION_SIGMOID,
    CUDNN_ACTIVATION_TANH,
    CUDNN_SOFTMAX_ACCURATE,
    CUDNN_SOFTMAX_FAST,
    CUDNN_SOFTMAX_LOG,
)
from .errors import BAD_PARAM, CuDNNError


@quiet
def activation_forward(x: Array, mode: int, coef: float = 0.0) -> Array:
    """Return an activation of x, as a new array; coef is the cap of a clipped ReLU, or ELU's factor.

    >>> x = np.array([-1.0, 3.0, 9.0])
    >>> cudnn.activation_forward(x, cudnn.CUDNN_ACTIVATION_RELU)
    array([0., 3., 9.])
    >>> cudnn.activation_forward(x, cudnn.CUDNN_ACTIVATION_CLIPPED_RELU, 6.0)
    array([0., 3., 6.])
    """
    (wide,) = _wide(x=x)
    return _activation(wide, mode, float(coef)).astype(x.dtype, copy=False)


def _activation(x: Any, mode: int, coef: float) -> Any:
    if mode == CUDNN_ACTIVATION_SIGMOID:
        small = np.exp(-np.abs(x))  # which never overflows
        return np.where(x < 0, small, 1) / (1 + small)
    if mode == CUDNN_ACTIVATION_RELU:
        return np.maximum(x, 0)
    if mode == CUDNN_ACTIVATION_TANH:
        return np.tanh(x)
    if mode == CUDNN_ACTIVATION_CLIPPED_RELU:
        return np.minimum(np.maximum(x, 0), coef)
    if mode == CUDNN_ACTIVATION_ELU:
        return np.where(x > 0, x, coef * np.expm1(x))
    raise CuDNNError(BAD_PARAM, f"mode must be an activation, 0 to 4, got {mode!r}")


@quiet
def activation_backward(x: Array, y: Array, gy: Array, mode: int, coef: float = 0.0) -> Array:
    """Return the gradient for x of an activation.  Of x no more than the sign is used by ReLU: callers pass y for it.

    >>> x, mode = np.array([-1.0, 3.0]), cudnn.CUDNN_ACTIVATION_RELU
    >>> y = cudnn.activation_forward(x, mode)
    >>> cudnn.activation_backward(x, y, np.array([5.0, 5.0]), mode)
    array([0., 5.])
    """
    wide_x, wide_y, upstream = _wide(x=x, y=y, gy=gy)
    return _activation_gradient(wide_x, wide_y, upstream, mode, float(coef)).astype(x.dtype, copy=False)


def _activation_gradient(x: Any, y: Any, gy: Any, mode: int, coef: float) -> Any:
    if mode == CUDNN_ACTIVATION_SIGMOID:
        return gy * y * (1 - y)
    if mode == CUDNN_ACTIVATION_RELU:
        return np.where(x > 0, gy, 0)
    if mode == CUDNN_ACTIVATION_TANH:
        return gy * (1 - y * y)
    if mode == CUDNN_ACTIVATION_CLIPPED_RELU:
        return np.where((x > 0) & (x < coef), gy, 0)
    if mode == CUDNN_ACTIVATION_ELU:
        return np.where(x > 0, gy, gy * (y + coef))
    raise CuDNNError(BAD_PARAM, f"mode must be an activation, 0 to 4, got {mode!r}")


@quiet
def softmax_forward(x: Array, axis: int, algorithm: int) -> Array:
    """Return the softmax of x over an axis, or its logarithm; FAST is computed as ACCURATE.

    >>> cudnn.softmax_forward(np.zeros((1, 4)), 1, cudnn.CUDNN_SOFTMAX_ACCURATE)
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    _check_algorithm(algorithm)
    (wide,) = _wide(x=x)
    if wide.size == 0:
        return wide.astype(x.dtype)
    wide = wide - wide.max(axis=axis, keepdims=True)
    e = np.exp(wide)
    total = e.sum(axis=axis, keepdims=True)
    y = wide - np.log(total) if algorithm == CUDNN_SOFTMAX_LOG else e / total
    return y.astype(x.dtype, copy=False)


@quiet
def softmax_backward(y: Array, gy: Array, axis: int, algorithm: int) -> Array:
    """Return the gradient for the input of softmax_forward, from its output alone.

    >>> y = cudnn.softmax_forward(np.zeros((1, 4)), 1, cudnn.CUDNN_SOFTMAX_ACCURATE)
    >>> cudnn.softmax_backward(y, np.array([[8.0, 0.0, 0.0, 0.0]]), 1, cudnn.CUDNN_SOFTMAX_ACCURATE)
    array([[ 1.5, -0.5, -0.5, -0.5]])
    """
    _check_algorithm(algorithm)
    wide, upstream = _wide(y=y, gy=gy)
    if algorithm == CUDNN_SOFTMAX_LOG:
        gx = upstream - np.exp(wide) * upstream.sum(axis=axis, keepdims=True)
    else:
        gx = wide * (upstream - (upstream * wide).sum(axis=axis, keepdims=True))
    return gx.astype(y.dtype, copy=False)


def _check_algorithm(algorithm: int) -> None:
    if algorithm not in (CUDNN_SOFTMAX_FAST, CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_LOG):
        raise CuDNNError(BAD_PARAM, f"algorithm must be 0, 1 or 2, got {algorithm!r}")


def _wide(**arrays: Any) -> list[Any]:
    """Return arrays of one shape and dtype as they are computed with: float16 in float32."""
    floats(**arrays)
    if len({(tuple(a.shape), a.dtype) for a in arrays.values()}) > 1:
        raise CuDNNError(BAD_PARAM, "arrays must share shape and dtype", *lines(**arrays))
    return [a.astype(np.float32) if a.dtype == np.float16 else a for a in arrays.values()]
