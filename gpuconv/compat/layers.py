"""Layers and losses with the course's signatures: dicts of parameters, caches as tuples, NumPy arrays in and out."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backend, ops
from ..ops.affine import AffineCache
from ..ops.dropout import DropoutCache
from ..ops.relu import ReluCache
from . import border, params

# Affine and ReLU ----------------------------------------------------------------------------------------------------


@border.forward
def affine_forward(x: Any, w: Any, b: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return (x.reshape(N, D) @ w + b, cache).   x: (N, d1, ..., dk)   w: (D, M)   b: (M,)."""
    return ops.affine_forward(x, w, b)[0], (x, w, b)


@border.backward
def affine_backward(dout: Any, cache: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """Return (dx, dw, db) in the shapes of x, w and b."""
    x, w, _ = params.unpacked(cache, 3, "affine_forward")
    x, w = border.inward(x, w)
    return ops.affine_backward(dout, AffineCache(x, w, True, None))


@border.forward
def relu_forward(x: Any) -> tuple[Any, Any]:
    """Return (max(x, 0), cache); the cache is x."""
    return ops.relu_forward(x)[0], x


@border.backward
def relu_backward(dout: Any, cache: Any) -> Any:
    """Return dx: dout where x was above 0."""
    (x,) = border.inward(cache)
    return ops.relu_backward(dout, ReluCache(x, None))


# Normalisation ------------------------------------------------------------------------------------------------------


def batchnorm_forward(x: Any, gamma: Any, beta: Any, bn_param: dict[str, Any]) -> tuple[Any, Any]:
    """Normalise every column of x (N, D) over the batch; return (out, cache).

    bn_param: mode "train" or "test", eps (1e-5), momentum (0.9, the weight of the old value), running_mean and
    running_var (zeros at first), which are replaced in the dict.
    """
    return params.batchnorm(ops.batchnorm_forward, x, gamma, beta, bn_param)


@border.backward
def batchnorm_backward(dout: Any, cache: Any) -> tuple[Any, Any, Any]:
    """Return (dx, dgamma, dbeta)."""
    return ops.batchnorm_backward(dout, cache)


batchnorm_backward_alt = batchnorm_backward


@border.forward
def layernorm_forward(x: Any, gamma: Any, beta: Any, ln_param: dict[str, Any]) -> tuple[Any, Any]:
    """Normalise every row of x (N, D); return (out, cache).   ln_param: eps (1e-5); anything else is ignored."""
    return ops.layernorm_forward(x, gamma, beta, eps=ln_param.get("eps", 1e-5))


@border.backward
def layernorm_backward(dout: Any, cache: Any) -> tuple[Any, Any, Any]:
    """Return (dx, dgamma, dbeta)."""
    return ops.layernorm_backward(dout, cache)


# Dropout ------------------------------------------------------------------------------------------------------------


def dropout_forward(x: Any, dropout_param: dict[str, Any], *, p_is: str | None = None) -> tuple[Any, tuple[Any, ...]]:
    """Keep some elements, scaled by 1 / (probability to keep), zero the others; return (out, cache).

    dropout_param: p, mode "train" or "test" (x as it is), seed (optional).  As in the course, the numbers are those of
    NumPy's global generator, which seed resets: notebooks rely on both.  p_is: "keep" or "drop", what p is the
    probability of; None is what compat.install was told.
    """
    training, keep = params.trains("dropout", dropout_param), params.keep_probability(dropout_param["p"], p_is)
    if "seed" in dropout_param:
        np.random.seed(dropout_param["seed"])  # noqa: NPY002 - the course's own generator, so its numbers come out
    if not training:
        return (x if backend.on_gpu(x) else np.array(x)), (dropout_param, None)
    kept = np.random.rand(*x.shape) < keep  # noqa: NPY002
    cache = dropout_param, kept / keep
    return dropout_backward(x, cache), cache


def dropout_backward(dout: Any, cache: tuple[Any, ...]) -> Any:
    """Return dx: dout times what forward multiplied."""
    _, mask = params.unpacked(cache, 2, "dropout_forward")
    if mask is None:
        return dout

    @border.forward
    def across(dout: Any) -> tuple[Any, None]:
        kept = backend.asarray(mask != 0, beside=dout)
        applied = DropoutCache(dout, kept, float(mask.max(initial=0.0)), tuple(dout.shape), dout.dtype)
        return ops.dropout_backward(dout, applied), None

    return across(dout)[0]


# Losses -------------------------------------------------------------------------------------------------------------


def softmax_loss(x: Any, y: Any) -> tuple[float, Any]:
    """Return (loss, dx), means over the batch.   x: (N, C) scores   y: (N,) labels."""
    return _loss(ops.softmax_cross_entropy, x, y)


def svm_loss(x: Any, y: Any) -> tuple[float, Any]:
    """Return (loss, dx) of the hinge loss with margin 1, means over the batch.   x: (N, C) scores   y: (N,) labels."""
    return _loss(ops.svm_loss, x, y)


def _loss(operator: Any, x: Any, y: Any) -> tuple[float, Any]:
    (scores,) = border.inward(x)
    value, dx = operator(scores, border.labels_beside(scores, y))
    return float(border.outward(value)), dx if backend.on_gpu(x) else border.outward(dx)
