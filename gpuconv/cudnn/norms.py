"""Batch normalisation with cuDNN's conventions: the running variance is the unbiased one."""

from __future__ import annotations

from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from ..backend import backend_of, quiet, zeros
from ..checks import given
from ..shapes import folded, unfolded
from ..typing import AnyArray, Array
from .checks import channels_second, floats, layout, lines
from .constants import (
    CUDNN_BATCHNORM_PER_ACTIVATION,
    CUDNN_BATCHNORM_SPATIAL,
    CUDNN_BATCHNORM_SPATIAL_PERSISTENT,
    CUDNN_TENSOR_NCHW,
    CUDNN_TENSOR_NHWC,
)
from .errors import BAD_PARAM, CuDNNError


@quiet
def batch_normalization_forward_training(
    x: AnyArray,
    gamma: AnyArray,
    beta: AnyArray,
    running_mean: AnyArray | None,
    running_var: AnyArray | None,
    mean: AnyArray | None,
    inv_std: AnyArray | None,
    eps: float,
    decay: float,
    is_for_conv2d: bool,
    cudnn_mode: int,
    debug: bool,
    d_layout: int = CUDNN_TENSOR_NCHW,
) -> Any:
    """Return y, and the batch's mean and 1 / sqrt(variance + eps), which are filled in place where both are given.

    y uses the biased variance.  running = decay * running + (1 - decay) * batch is for the unbiased one, of which one
    value per channel counts as one; decay=1 leaves the running arrays alone, and they may then be beta, too.  Both may
    be None, which cupy.cudnn did not take.
    is_for_conv2d says that channels are second, or last by d_layout; otherwise the last axis is the channel.

    >>> x = np.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    >>> gamma, beta, mean, var = (np.full((1, 1, 1, 1), value) for value in (1.0, 0.0, 0.0, 1.0))
    >>> settings = 1e-5, 0.5, True, cudnn.CUDNN_BATCHNORM_SPATIAL, False
    >>> y, *_ = cudnn.batch_normalization_forward_training(x, gamma, beta, mean, var, None, None, *settings)
    >>> y.ravel().round(3), mean.item(), var.item()
    (array([-1.,  1.]), 1.0, 1.5)
    """
    del debug
    running = _both_or_none(running_mean=running_mean, running_var=running_var)
    saved = _both_or_none(mean=mean, inv_std=inv_std)
    vectors = {"gamma": gamma, "beta": beta, **running, **saved}
    backend, data, vector_dtype = _checked(x, is_for_conv2d, cudnn_mode, d_layout, vectors)
    channels = data.shape[1]
    batch_mean, batch_var = (zeros((channels,), vector_dtype, beside=x) for _ in range(2))
    if x.size:
        scale, shift = _vector(gamma, vector_dtype), _vector(beta, vector_dtype)
        images = folded(data)
        y, saved_mean, saved_inv_std = backend.batchnorm_forward(
            images, scale, shift, batch_mean, batch_var, training=True, momentum=0.0, eps=float(eps)
        )
        y = _as_given(unfolded(y, data.shape), x, is_for_conv2d, d_layout)
        if running and decay != 1.0:
            count = x.size // channels
            _update(running_mean, batch_mean, decay)
            _update(running_var, batch_var * (count / max(count - 1, 1)), decay)
    else:
        y, saved_mean, saved_inv_std = zeros(tuple(x.shape), x.dtype, beside=x), batch_mean, batch_var
    if not saved:
        return y, *(v.astype(vector_dtype).reshape(gamma.shape) for v in (saved_mean, saved_inv_std))
    for target, value in zip(saved.values(), (saved_mean, saved_inv_std), strict=True):
        target[...] = value.reshape(target.shape)
    return y


def batch_normalization_forward_training_ex(
    x: AnyArray,
    gamma: AnyArray,
    beta: AnyArray,
    running_mean: AnyArray | None,
    running_var: AnyArray | None,
    mean: AnyArray | None,
    inv_std: AnyArray | None,
    eps: float,
    decay: float,
    is_for_conv2d: bool,
    cudnn_mode: int,
    debug: bool,
    d_layout: int = CUDNN_TENSOR_NCHW,
) -> tuple[Any, ...]:
    """Return what batch_normalization_forward_training does, after the reserve space, which is None: none is needed.

    >>> x = np.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    >>> gamma, beta, mean, var = (np.full((1, 1, 1, 1), value) for value in (1.0, 0.0, 0.0, 1.0))
    >>> settings = 1e-5, 0.5, True, cudnn.CUDNN_BATCHNORM_SPATIAL, False
    >>> results = cudnn.batch_normalization_forward_training_ex(x, gamma, beta, mean, var, None, None, *settings)
    >>> results[0], results[1].ravel().round(3)
    (None, array([-1.,  1.]))
    """
    statistics = running_mean, running_var, mean, inv_std, eps, decay
    results = batch_normalization_forward_training(
        x, gamma, beta, *statistics, is_for_conv2d, cudnn_mode, debug, d_layout
    )
    return (None, *results) if isinstance(results, tuple) else (None, results)


@quiet
def batch_normalization_forward_inference(
    x: Array,
    gamma: AnyArray,
    beta: AnyArray,
    mean: AnyArray,
    var: AnyArray,
    eps: float,
    is_for_conv2d: bool,
    cudnn_mode: int,
    d_layout: int = CUDNN_TENSOR_NCHW,
) -> Array:
    """Return gamma (x - mean) / sqrt(var + eps) + beta.

    >>> x = np.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    >>> gamma, beta, mean, var = (np.full((1, 1, 1, 1), value) for value in (1.0, 10.0, 0.0, 1.0))
    >>> settings = 1e-5, True, cudnn.CUDNN_BATCHNORM_SPATIAL
    >>> cudnn.batch_normalization_forward_inference(x, gamma, beta, mean, var, *settings).ravel().round(3)
    array([11., 13.])
    """
    vectors = {"gamma": gamma, "beta": beta, "mean": mean, "var": var}
    backend, data, vector_dtype = _checked(x, is_for_conv2d, cudnn_mode, d_layout, vectors)
    if not x.size:
        return zeros(tuple(x.shape), x.dtype, beside=x)
    parameters = (_vector(vector, vector_dtype) for vector in vectors.values())
    y, _, _ = backend.batchnorm_forward(folded(data), *parameters, training=False, momentum=0.0, eps=float(eps))
    return _as_given(unfolded(y, data.shape), x, is_for_conv2d, d_layout)


@quiet
def batch_normalization_backward(
    x: Array,
    gamma: AnyArray,
    gy: AnyArray,
    mean: AnyArray,
    inv_std: AnyArray,
    eps: float,
    is_for_conv2d: bool,
    cudnn_mode: int,
    debug: bool,
    d_layout: int = CUDNN_TENSOR_NCHW,
    *,
    reserve_space: Any = None,
) -> tuple[Array, Array, Array]:
    """Return (gx, ggamma, gbeta); mean and inv_std are those that the training forward returned, eps is within them.

    >>> x, one = np.arange(4.0).reshape(4, 1, 1, 1), np.ones((1, 1, 1, 1))
    >>> forward, how = cudnn.batch_normalization_forward_training, (True, cudnn.CUDNN_BATCHNORM_SPATIAL, False)
    >>> y, mean, inv_std = forward(x, one, one, None, None, None, None, 1e-5, 1.0, *how)
    >>> gx, ggamma, gbeta = cudnn.batch_normalization_backward(x, one, np.ones_like(x), mean, inv_std, 1e-5, *how)
    >>> gx.shape, gbeta.ravel()
    ((4, 1, 1, 1), array([4.]))
    """
    del eps, debug, reserve_space
    vectors = {"gamma": gamma, "mean": mean, "inv_std": inv_std}
    backend, data, vector_dtype = _checked(x, is_for_conv2d, cudnn_mode, d_layout, vectors, gy=gy)
    given_dtype = vector_dtype if gamma.dtype == vector_dtype else x.dtype
    if not x.size:
        ggamma, gbeta = (zeros(tuple(gamma.shape), given_dtype, beside=x) for _ in range(2))
        return zeros(tuple(x.shape), x.dtype, beside=x), ggamma, gbeta
    upstream = _by_channel(gy, is_for_conv2d, d_layout)
    parameters = (_vector(vector, vector_dtype) for vector in vectors.values())
    gx, *sums = backend.batchnorm_backward(folded(upstream), folded(data), *parameters, training=True)
    ggamma, gbeta = (each.astype(given_dtype).reshape(gamma.shape) for each in sums)
    return _as_given(unfolded(gx, data.shape), x, is_for_conv2d, d_layout), ggamma, gbeta


def _both_or_none(**pair: Any) -> dict[str, Any]:
    """Return the two vectors that are given, or none."""
    vectors = {name: vector for name, vector in pair.items() if vector is not None}
    if len(vectors) == 1:
        msg = f"{' and '.join(pair)} must be given together, or both be None"
        raise ValueError(msg)
    return vectors


def _checked(
    x: Any, is_for_conv2d: bool, cudnn_mode: int, d_layout: int, vectors: dict[str, Any], **like_x: Any
) -> tuple[ModuleType, Any, np.dtype]:
    """Return the backend, x with its channels second, and the dtype of parameters, when the arguments fit each other."""
    floats(x=x, **like_x)
    given(**vectors)
    backend = backend_of(x=x, **like_x, **vectors)
    modes = (CUDNN_BATCHNORM_PER_ACTIVATION, CUDNN_BATCHNORM_SPATIAL, CUDNN_BATCHNORM_SPATIAL_PERSISTENT)
    if cudnn_mode not in modes:
        raise CuDNNError(BAD_PARAM, f"cudnn_mode must be 0, 1 or 2, got {cudnn_mode!r}")
    layout("d_layout", d_layout)
    if x.ndim not in (3, 4, 5) if is_for_conv2d else x.ndim == 0:
        axes = "3 to 5 axes where is_for_conv2d is True" if is_for_conv2d else "an axis"
        raise CuDNNError(BAD_PARAM, f"x must have {axes}, got shape {tuple(x.shape)}")
    for name, array in like_x.items():
        if tuple(array.shape) != tuple(x.shape) or array.dtype != x.dtype:
            raise CuDNNError(BAD_PARAM, f"{name} must have the shape and dtype of x", *lines(x=x, **like_x))
    data = _by_channel(x, is_for_conv2d, d_layout)
    for name, vector in vectors.items():
        if vector.size != data.shape[1]:
            entries = f"{name} must have {data.shape[1]} entries, one per channel of x {tuple(x.shape)}"
            raise CuDNNError(BAD_PARAM, f"{entries}, got shape {tuple(vector.shape)}")
    return backend, data, np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def _by_channel(x: Any, is_for_conv2d: bool, d_layout: int) -> Any:
    """Return an array with its channels second: of rows where they are last on any number of axes."""
    return channels_second(x, d_layout) if is_for_conv2d else x.reshape(prod(x.shape[:-1]), x.shape[-1])


def _as_given(result: Any, x: Any, is_for_conv2d: bool, d_layout: int) -> Any:
    """Return a result in x's order of axes, C-contiguous."""
    if not is_for_conv2d:
        return result.reshape(x.shape)
    if d_layout == CUDNN_TENSOR_NHWC and x.ndim == 4:
        result = result.transpose(0, 2, 3, 1)
    return result if result.flags.c_contiguous else result.copy()


def _vector(parameter: Any, dtype: np.dtype) -> Any:
    """Return a parameter's entries in memory order, as they are computed with."""
    return parameter.reshape(-1).astype(dtype, copy=False)


def _update(running: Any, batch: Any, decay: float) -> None:
    """Move a running statistic towards a batch's, in place; it is of any dtype, and computed with in the batch's."""
    new = _vector(running, batch.dtype) * float(decay) + batch * (1.0 - float(decay))
    running[...] = new.reshape(running.shape)
