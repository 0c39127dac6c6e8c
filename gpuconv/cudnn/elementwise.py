"""Activations and softmax: array expressions, which CuPy arrays compute through NumPy's dispatch of ufuncs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import quiet
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
def activation_forward(x: Any, mode: int, coef: float = 0.0) -> Any:
    """Return an activation of x, as a new array; coef is the cap of a clipped ReLU, or ELU's factor.

    >>> x = np.array([-1.0, 3.0, 9.0])
    >>> cudnn.activation_forward(x, cudnn.CUDNN_ACTIVATION_RELU)
    array([0., 3., 9.])
    >>> cudnn.activation_forward(x, cudnn.CUDNN_ACTIVATION_CLIPPED_RELU, 6.0)
    array([0., 3., 6.])
    """
    (x,), dtype, coef = _wide(x=x), x.dtype, float(coef)
    if mode == CUDNN_ACTIVATION_SIGMOID:
        small = np.exp(-np.abs(x))  # which never overflows
        y = np.where(x < 0, small, 1) / (1 + small)
    elif mode == CUDNN_ACTIVATION_RELU:
        y = np.maximum(x, 0)
    elif mode == CUDNN_ACTIVATION_TANH:
        y = np.tanh(x)
    elif mode == CUDNN_ACTIVATION_CLIPPED_RELU:
        y = np.minimum(np.maximum(x, 0), coef)
    elif mode == CUDNN_ACTIVATION_ELU:
        y = np.where(x > 0, x, coef * np.expm1(x))
    else:
        raise CuDNNError(BAD_PARAM, f"mode must be an activation, 0 to 4, got {mode!r}")
    return y.astype(dtype, copy=False)


@quiet
def activation_backward(x: Any, y: Any, gy: Any, mode: int, coef: float = 0.0) -> Any:
    """Return the gradient for x of an activation.  Of x no more than the sign is used by ReLU: callers pass y for it.

    >>> x, mode = np.array([-1.0, 3.0]), cudnn.CUDNN_ACTIVATION_RELU
    >>> y = cudnn.activation_forward(x, mode)
    >>> cudnn.activation_backward(x, y, np.array([5.0, 5.0]), mode)
    array([0., 5.])
    """
    (x, y, gy), dtype, coef = _wide(x=x, y=y, gy=gy), x.dtype, float(coef)
    if mode == CUDNN_ACTIVATION_SIGMOID:
        gx = gy * y * (1 - y)
    elif mode == CUDNN_ACTIVATION_RELU:
        gx = np.where(x > 0, gy, 0)
    elif mode == CUDNN_ACTIVATION_TANH:
        gx = gy * (1 - y * y)
    elif mode == CUDNN_ACTIVATION_CLIPPED_RELU:
        gx = np.where((x > 0) & (x < coef), gy, 0)
    elif mode == CUDNN_ACTIVATION_ELU:
        gx = np.where(x > 0, gy, gy * (y + coef))
    else:
        raise CuDNNError(BAD_PARAM, f"mode must be an activation, 0 to 4, got {mode!r}")
    return gx.astype(dtype, copy=False)


@quiet
def softmax_forward(x: Any, axis: int, algorithm: int) -> Any:
    """Return the softmax of x over an axis, or its logarithm; FAST is computed as ACCURATE.

    >>> cudnn.softmax_forward(np.zeros((1, 4)), 1, cudnn.CUDNN_SOFTMAX_ACCURATE)
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    _check_algorithm(algorithm)
    (x,), dtype = _wide(x=x), x.dtype
    if x.size == 0:
        return x.astype(dtype)
    x = x - x.max(axis=axis, keepdims=True)
    e = np.exp(x)
    total = e.sum(axis=axis, keepdims=True)
    y = x - np.log(total) if algorithm == CUDNN_SOFTMAX_LOG else e / total
    return y.astype(dtype, copy=False)


@quiet
def softmax_backward(y: Any, gy: Any, axis: int, algorithm: int) -> Any:
    """Return the gradient for the input of softmax_forward, from its output alone.

    >>> y = cudnn.softmax_forward(np.zeros((1, 4)), 1, cudnn.CUDNN_SOFTMAX_ACCURATE)
    >>> cudnn.softmax_backward(y, np.array([[8.0, 0.0, 0.0, 0.0]]), 1, cudnn.CUDNN_SOFTMAX_ACCURATE)
    array([[ 1.5, -0.5, -0.5, -0.5]])
    """
    _check_algorithm(algorithm)
    (y, gy), dtype = _wide(y=y, gy=gy), y.dtype
    if algorithm == CUDNN_SOFTMAX_LOG:
        gx = gy - np.exp(y) * gy.sum(axis=axis, keepdims=True)
    else:
        gx = y * (gy - (gy * y).sum(axis=axis, keepdims=True))
    return gx.astype(dtype, copy=False)


def _check_algorithm(algorithm: int) -> None:
    if algorithm not in (CUDNN_SOFTMAX_FAST, CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_LOG):
        raise CuDNNError(BAD_PARAM, f"algorithm must be 0, 1 or 2, got {algorithm!r}")


def _wide(**arrays: Any) -> list[Any]:
    """Return arrays of one shape and dtype as they are computed with: float16 in float32."""
    floats(**arrays)
    if len({(tuple(a.shape), a.dtype) for a in arrays.values()}) > 1:
        raise CuDNNError(BAD_PARAM, "arrays must share shape and dtype", *lines(**arrays))
    return [a.astype(np.float32) if a.dtype == np.float16 else a for a in arrays.values()]
