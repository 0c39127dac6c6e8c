"""Batch normalisation of rows (N, C), and of signals, images and volumes (N, C, ...): what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from .. import checks
from ..backend import asnumpy, backend_of, fill, on_gpu
from ..elsewhere import says_ours
from ..errors import CacheError, DTypeError, ParamError, ShapeError
from ..shapes import SPATIAL, folded, unfolded
from ..typing import AnyArray, Array
from ._cache import Cache

_ROWS = {2: "(N, C)"}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BatchNormCache(Cache):
    """What the backward needs: the input by reference, and the mean and 1 / sqrt(variance + eps) it was scaled by."""

    x: Any
    gamma: Any
    mean: Any
    inv_std: Any
    training: bool
    marks: dict[str, bytes] | None
    across: Across | None = None


class Across(Protocol):
    """Other processes that each have a share of the rows or images that are normalised together.

    rank: the number of this one.   images: how many each has.   gather(array): the arrays of all, in their order, where this one is, (processes, *shape).
    """

    rank: int
    images: tuple[int, ...]

    def gather(self, array: Any) -> Any: ...


@says_ours()
def batchnorm_forward(
    x: Array,
    gamma: AnyArray,
    beta: AnyArray,
    running_mean: AnyArray,
    running_var: AnyArray,
    *,
    training: bool = True,
    momentum: float = 0.9,
    eps: float = 1e-5,
) -> tuple[Array, BatchNormCache]:
    """Normalise every column over the batch, scale by gamma, shift by beta; return (y, cache).

    x: (N, C)   gamma, beta, running_mean, running_var: (C,)   ->   y: (N, C)

    training=True uses the batch's mean and (biased) variance and updates the running ones in place:
    running = momentum * running + (1 - momentum) * batch.  training=False uses the running ones and changes nothing.
    The four vectors share one dtype: that of x, or float32 where x has 16 bits.  An empty batch in training changes
    no running statistic.
    Raises ShapeError (a training batch of one row, too), ParamError, DTypeError, AliasError before any work.

    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> mean, var = np.zeros(2), np.ones(2)
    >>> y, cache = gpuconv.batchnorm_forward(x, np.ones(2), np.zeros(2), mean, var, momentum=0.5)
    >>> y.round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> mean, var
    (array([ 1., 10.]), array([ 1. , 50.5]))
    """
    return _forward(_ROWS, x, gamma, beta, running_mean, running_var, training=training, momentum=momentum, eps=eps)


def batchnorm_backward(dy: Array, cache: BatchNormCache) -> tuple[Array, Array, Array]:
    """Return (dx, dgamma, dbeta).   dy: (N, C)  ->  dx: (N, C)   dgamma, dbeta: (C,).

    >>> x = np.array([[1.0], [2.0], [3.0]])
    >>> y, cache = gpuconv.batchnorm_forward(x, np.ones(1), np.zeros(1), np.zeros(1), np.ones(1))
    >>> dx, dgamma, dbeta = gpuconv.batchnorm_backward(np.array([[0.0], [0.0], [2.0]]), cache)
    >>> dx.shape, dgamma.round(2), dbeta
    ((3, 1), array([2.45]), array([2.]))
    """
    return _backward(dy, cache, _ROWS, "batchnorm_forward")


@says_ours()
def spatial_batchnorm_forward(
    x: Array,
    gamma: AnyArray,
    beta: AnyArray,
    running_mean: AnyArray,
    running_var: AnyArray,
    *,
    training: bool = True,
    momentum: float = 0.9,
    eps: float = 1e-5,
) -> tuple[Array, BatchNormCache]:
    """Normalise every channel over the batch and all axes after the channels; otherwise as batchnorm_forward.

    x: (N, C, H, W)   gamma, beta, running_mean, running_var: (C,)   ->   y: (N, C, H, W), in the memory format of x

    x may be (N, C, L) or (N, C, D, H, W) as well, and y is then.  A channel of one constant value gives exactly beta.  In
    training there must be more than one value of a channel: N H W above 1.

    >>> x = np.array([1.0, 3.0, 5.0, 7.0]).reshape(1, 1, 2, 2)
    >>> gamma, beta, mean, var = np.ones(1), np.zeros(1), np.zeros(1), np.ones(1)
    >>> y, cache = gpuconv.spatial_batchnorm_forward(x, gamma, beta, mean, var)
    >>> y[0, 0].round(3)
    array([[-1.342, -0.447],
           [ 0.447,  1.342]])
    """
    return _forward(SPATIAL, x, gamma, beta, running_mean, running_var, training=training, momentum=momentum, eps=eps)


def spatial_batchnorm_backward(dy: Array, cache: BatchNormCache) -> tuple[Array, Array, Array]:
    """Return (dx, dgamma, dbeta).   dy: (N, C, H, W)  ->  dx: (N, C, H, W)   dgamma, dbeta: (C,).

    dy: (N, C, L) or (N, C, D, H, W), where x was, gives dx likewise.

    >>> x, one = np.arange(24.0).reshape(2, 3, 2, 2), np.ones(3)
    >>> y, cache = gpuconv.spatial_batchnorm_forward(x, one, np.zeros(3), np.zeros(3), np.ones(3))
    >>> dx, dgamma, dbeta = gpuconv.spatial_batchnorm_backward(np.ones_like(y), cache)
    >>> dx.shape, dgamma.shape, dbeta
    ((2, 3, 2, 2), (3,), array([8., 8., 8.]))
    """
    return _backward(dy, cache, SPATIAL, "spatial_batchnorm_forward")


def _forward(
    axes: dict[int, str],
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Any,
    running_var: Any,
    *,
    training: Any,
    momentum: Any,
    eps: Any,
) -> tuple[Any, BatchNormCache]:
    backend, settings = checked_forward(
        axes, x, gamma, beta, running_mean, running_var, training=training, momentum=momentum, eps=eps
    )
    y, mean, inv_std = backend.batchnorm_forward(folded(x), gamma, beta, running_mean, running_var, **settings)
    marks = checks.mark(x=x, gamma=gamma)
    return unfolded(y, x.shape), BatchNormCache(x, gamma, mean, inv_std, settings["training"], marks)


def checked_forward(
    axes: dict[int, str],
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Any,
    running_var: Any,
    *,
    training: Any,
    momentum: Any,
    eps: Any,
) -> tuple[ModuleType, dict[str, Any]]:
    """Return the backend and the settings of a forward whose arguments are right."""
    vectors = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
    checks.given(x=x, **vectors)
    backend = backend_of(x=x, **vectors)
    dtype = checks.common_dtype(x=x)
    vector_dtype = checks.common_dtype(**vectors)
    if vector_dtype != dtype and (dtype.itemsize, vector_dtype) != (2, np.float32):
        msg = f"gamma, beta and the running statistics must be {dtype} like x (float32 if x has 16 bits), got {vector_dtype}"
        raise DTypeError(msg)
    checks.ndim_among("x", x, axes)
    checks.not_empty("x", x, "(N, C, ...)")
    for name, vector in vectors.items():
        checks.per_channel(name, vector, x)
    training = checks.flag("training", training)
    momentum = checks.real("momentum", momentum, low=0.0, high=1.0)
    eps = checks.real("eps", eps, low=0.0, open_low=training)
    if training:
        count = x.size // x.shape[1]
        if count == 1:
            msg = f"training needs more than one value per channel, got x {tuple(x.shape)}"
            raise ShapeError(msg)
        checks.writable("running_mean", running_mean)
        checks.writable("running_var", running_var)
        checks.apart(
            "running_mean",
            "running_var",
            x=x,
            gamma=gamma,
            beta=beta,
            running_mean=running_mean,
            running_var=running_var,
        )
    elif checks.debug() and not bool((asnumpy(running_var) >= 0).all()):
        msg = "running_var has a negative or NaN entry"
        raise ParamError(msg)
    return backend, {"training": training, "momentum": momentum, "eps": eps}


def batchnorm_forward_across(
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Any,
    running_var: Any,
    *,
    momentum: float,
    eps: float,
    across: Across,
) -> tuple[Any, BatchNormCache]:
    """Normalise a share of a training batch by the statistics of the whole, which other processes have the rest of.

    The backward returns dx as of the whole batch, and of dgamma and dbeta what this share contributes.
    """
    backend = backend_of(x=x, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var)
    count = sum(across.images) * x[0, 0].size
    if count == 1:
        msg = f"training needs more than one value per channel, got x {tuple(x.shape)} of one process"
        raise ShapeError(msg)
    y, mean, inv_std = backend.across.batchnorm_forward(
        folded(x), gamma, beta, running_mean, running_var, momentum=momentum, eps=eps, across=across
    )
    return unfolded(y, x.shape), BatchNormCache(x, gamma, mean, inv_std, True, checks.mark(x=x, gamma=gamma), across)


def batchnorm_backward_into(dy: Any, cache: BatchNormCache, dgamma: Any, dbeta: Any) -> Any:
    """Return dx of rows or images, and fill dgamma and dbeta: what a net keeps, on a GPU C-contiguous and written there.

    dgamma may be None.
    """
    checks.cache_of(cache, BatchNormCache, "batchnorm_forward")
    axes = _ROWS if cache.x.ndim == 2 else SPATIAL
    backend = _checked(dy, cache, axes, "spatial_batchnorm_forward")
    x = cache.x
    if cache.across is not None:
        arrays = folded(dy), folded(x), cache.gamma, cache.mean, cache.inv_std, dgamma, dbeta
        return unfolded(backend.across.batchnorm_backward_into(*arrays, across=cache.across), x.shape)
    if on_gpu(x):
        arrays = folded(dy), folded(x), cache.gamma, cache.mean, cache.inv_std, dgamma, dbeta
        return unfolded(backend.batchnorm.batchnorm_backward_into(*arrays, training=cache.training), x.shape)
    dx, *made = _backward(dy, cache, axes, "spatial_batchnorm_forward")
    fill((dgamma, dbeta), (None if dgamma is None else made[0], made[1]))
    return dx


def _backward(dy: Any, cache: Any, axes: dict[int, str], forward: str) -> tuple[Any, Any, Any]:
    backend, x = _checked(dy, cache, axes, forward), cache.x
    dx, dgamma, dbeta = backend.batchnorm_backward(
        folded(dy), folded(x), cache.gamma, cache.mean, cache.inv_std, training=cache.training
    )
    return unfolded(dx, x.shape), dgamma, dbeta


def _checked(dy: Any, cache: Any, axes: dict[int, str], forward: str) -> ModuleType:
    """Return the backend where dy belongs to the cache of a forward with these axes."""
    checks.cache_of(cache, BatchNormCache, forward)
    if cache.x.ndim not in axes:
        msg = f"cache must be the one that {forward} returned, got that of an x {tuple(cache.x.shape)}"
        raise CacheError(msg)
    backend = backend_of(dy=dy, x=cache.x)
    x = cache.x
    checks.upstream(dy, x.shape, x.dtype)
    checks.unchanged(cache.marks, x=x, gamma=cache.gamma)
    return backend
