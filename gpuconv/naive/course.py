"""The layer functions of the course (UCLA C147, Stanford CS231n) under its own names, on the oracle's loops.

Parameters come as the course's dicts, caches are its tuples.  Results have NumPy's promotion of the inputs' dtypes,
float64 for integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks
from ..errors import CacheError, ParamError
from ..shapes import ConvSizes, PoolSizes, conv_sizes, pool_sizes
from . import affine, batchnorm, conv, loss, max_pool, relu
from .loops import every, floats

# Convolution and pooling --------------------------------------------------------------------------------------------


def conv_forward_naive(x: Any, w: Any, b: Any, conv_param: dict[str, Any]) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Correlate images with filters; return (out, cache).

    x: (N, C, H, W)   w: (F, C, HH, WW)   b: (F,)   conv_param: stride, pad   ->   out: (N, F, H', W')

    pad may be a float of integral value: the course's nets pass (filter_size - 1) / 2.
    """
    out = conv.conv_forward(x, w, b, _conv_sizes(x, w, b, conv_param))
    return out.astype(_dtype(x, w, b)), (x, w, b, conv_param)


def conv_backward_naive(dout: Any, cache: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (dx, dw, db) of conv_forward_naive."""
    x, w, b, conv_param = _unpacked(cache, 4, "conv_forward_naive")
    z = _conv_sizes(x, w, b, conv_param)
    checks.same_shape("dout", dout, (z.N, z.K, z.P, z.Q), "the shape of the forward's output")
    grads: Any = conv.conv_backward(dout, x, w, z, input_grad=True, bias_grad=True)
    dx, dw, db = (grad.astype(_dtype(dout, x, w)) for grad in grads)
    return dx, dw, db


def max_pool_forward_naive(x: Any, pool_param: dict[str, Any]) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Take the maximum of every window; return (out, cache).   x: (N, C, H, W)  ->  out: (N, C, H', W').

    pool_param: pool_height, pool_width, stride.  A window that would stick out is dropped.
    """
    out, _ = max_pool.max_pool_forward(x, _pool_sizes(x, pool_param))
    return out.astype(x.dtype), (x, pool_param)


def max_pool_backward_naive(dout: Any, cache: tuple[Any, ...]) -> np.ndarray:
    """Return dx.  Every pixel that equals its window's maximum gets the window's whole gradient, ties included.

    A window whose maximum is NaN, which equals nothing, gives none.
    """
    x, pool_param = _unpacked(cache, 2, "max_pool_forward_naive")
    z = _pool_sizes(x, pool_param)
    checks.same_shape("dout", dout, (z.N, z.C, z.P, z.Q), "the shape of the forward's output")
    top = floats(max_pool.max_pool_forward(x, z)[0])
    values, grads, dx = floats(x), floats(dout), np.zeros(x.shape)
    for n, c, p, q in every(z.N, z.C, z.P, z.Q):
        for _, _, i, j in max_pool.window(p, q, z):
            if values[n][c][i][j] == top[n][c][p][q]:
                dx[n, c, i, j] += grads[n][c][p][q]
    return dx.astype(_dtype(dout))


# Batch normalisation and dropout ------------------------------------------------------------------------------------


def batchnorm_forward(x: Any, gamma: Any, beta: Any, bn_param: dict[str, Any]) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Normalise over the batch (and both image axes); return (out, cache).   x: (N, D) or (N, C, H, W).

    bn_param: mode "train" or "test", eps (1e-5), momentum (0.9, the weight of the old value), running_mean and
    running_var (zeros at first), which are written back into the dict.
    """
    mode = bn_param["mode"]
    if mode not in ("train", "test"):
        msg = f'Invalid forward batchnorm mode "{mode}"'
        raise ParamError(msg)
    start = np.zeros(x.shape[1], dtype=_dtype(x))
    running_mean = np.array(bn_param.get("running_mean", start))
    running_var = np.array(bn_param.get("running_var", start))
    out, mean, inv_std = batchnorm.batchnorm_forward(
        x,
        gamma,
        beta,
        running_mean,
        running_var,
        training=mode == "train",
        momentum=bn_param.get("momentum", 0.9),
        eps=bn_param.get("eps", 1e-5),
    )
    bn_param["running_mean"], bn_param["running_var"] = running_mean, running_var
    return out.astype(_dtype(x, gamma, beta)), (x, gamma, mean, inv_std, mode)


def batchnorm_backward(dout: Any, cache: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (dx, dgamma, dbeta)."""
    x, gamma, mean, inv_std, mode = _unpacked(cache, 5, "batchnorm_forward")
    checks.same_shape("dout", dout, x.shape, "the shape of the forward's output")
    grads = batchnorm.batchnorm_backward(dout, x, gamma, mean, inv_std, training=mode == "train")
    dx, dgamma, dbeta = (grad.astype(_dtype(dout, x)) for grad in grads)
    return dx, dgamma, dbeta


spatial_batchnorm_forward = batchnorm_forward
spatial_batchnorm_backward = batchnorm_backward


def dropout_forward(x: Any, dropout_param: dict[str, Any]) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Keep each element with probability p, scaled by 1 / p; return (out, cache).

    dropout_param: p, mode "train" or "test" (x as it is), seed (optional).  As in the course, the numbers are those of
    NumPy's global generator, which seed resets: notebooks rely on both.
    """
    mode, p = dropout_param["mode"], dropout_param["p"]
    if mode not in ("train", "test"):
        msg = f'Invalid forward dropout mode "{mode}"'
        raise ParamError(msg)
    if "seed" in dropout_param:
        np.random.seed(dropout_param["seed"])  # noqa: NPY002 - the course's own generator, so its numbers come out
    if mode == "test":
        return x.copy(), (dropout_param, None)
    drawn = np.random.rand(*x.shape)  # noqa: NPY002
    mask = np.zeros(x.shape)
    for place in every(*x.shape):
        mask[place] = (drawn[place] < p) / p
    return (x * mask).astype(_dtype(x)), (dropout_param, mask)


def dropout_backward(dout: Any, cache: tuple[Any, ...]) -> np.ndarray:
    """Return dx: dout times what forward multiplied."""
    _, mask = _unpacked(cache, 2, "dropout_forward")
    return dout.copy() if mask is None else (dout * mask).astype(_dtype(dout))


# The rest of a net --------------------------------------------------------------------------------------------------


def affine_forward(x: Any, w: Any, b: Any) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Return (x.reshape(N, D) @ w + b, cache).   x: (N, d1, ..., dk)   w: (D, M)   b: (M,)."""
    return affine.affine_forward(x, w, b).astype(_dtype(x, w, b)), (x, w, b)


def affine_backward(dout: Any, cache: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (dx, dw, db)."""
    x, w, _ = _unpacked(cache, 3, "affine_forward")
    grads: Any = affine.affine_backward(dout, x, w, input_grad=True, bias_grad=True)
    dx, dw, db = (grad.astype(_dtype(dout, x, w)) for grad in grads)
    return dx, dw, db


def relu_forward(x: Any) -> tuple[np.ndarray, Any]:
    """Return (max(x, 0), cache); the cache is x."""
    return relu.relu_forward(x).astype(x.dtype), x


def relu_backward(dout: Any, cache: Any) -> np.ndarray:
    """Return dx: dout where x was above 0."""
    return relu.relu_backward(dout, cache).astype(_dtype(dout))


def softmax_loss(x: Any, y: Any) -> tuple[float, np.ndarray]:
    """Return (loss, dx), means over the batch.   x: (N, C) scores   y: (N,) labels."""
    value, dx = loss.softmax_cross_entropy(x, y, label_smoothing=0.0)
    return float(value), dx.astype(_dtype(x))


def svm_loss(x: Any, y: Any) -> tuple[float, np.ndarray]:
    """Return (loss, dx) of the hinge loss with margin 1, means over the batch.   x: (N, C) scores   y: (N,) labels."""
    value, dx = loss.svm_loss(x, y, margin=1.0)
    return float(value), dx.astype(_dtype(x))


# Helpers ------------------------------------------------------------------------------------------------------------


def _conv_sizes(x: Any, w: Any, b: Any, conv_param: dict[str, Any]) -> ConvSizes:
    pad = conv_param["pad"]
    if isinstance(pad, (float, np.floating)) and float(pad).is_integer():
        pad = int(pad)
    return conv_sizes(x, w, b, stride=conv_param["stride"], pad=pad)


def _pool_sizes(x: Any, pool_param: dict[str, Any]) -> PoolSizes:
    window = (pool_param["pool_height"], pool_param["pool_width"])
    return pool_sizes(x, window=window, stride=pool_param["stride"], pad=0)


def _unpacked(cache: Any, length: int, forward: str) -> tuple[Any, ...]:
    if not isinstance(cache, tuple) or len(cache) != length:
        found = f"a tuple of {len(cache)}" if isinstance(cache, tuple) else type(cache).__qualname__
        msg = f"cache must be the tuple of {length} that {forward} returned, got {found}"
        raise CacheError(msg)
    return cache


def _dtype(*arrays: Any) -> np.dtype:
    """Return the dtype NumPy promotes the arrays to; float64 if that is no float."""
    dtype = np.result_type(*arrays)
    return dtype if dtype.kind == "f" else np.dtype(np.float64)
