"""Group normalisation of signals, images and volumes (N, C, ...), layer normalisation of rows (N, D): what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..backend import backend_of
from ..elsewhere import says_ours
from ..errors import CacheError, DTypeError, ParamError, ShapeError
from ..shapes import SPATIAL, folded, unfolded
from ..typing import AnyArray, Array
from ._cache import Cache

_ROWS = {2: "(N, D)"}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GroupNormCache(Cache):
    """What the backward needs: the input by reference, and (N, groups) means and 1 / sqrt(variance + eps)."""

    x: Any
    gamma: Any
    mean: Any
    inv_std: Any
    marks: dict[str, bytes] | None


@says_ours()
def groupnorm_forward(
    x: Array, gamma: AnyArray, beta: AnyArray, *, groups: int, eps: float = 1e-5
) -> tuple[Array, GroupNormCache]:
    """Normalise each image over groups of neighbouring channels, scale by gamma, shift by beta; return (y, cache).

    x: (N, C, H, W)   gamma, beta: (C,)   ->   y: (N, C, H, W), in the memory format of x

    x may be (N, C, L) or (N, C, D, H, W) as well, and y is then.  groups divides C.  The variance is the biased one; a group of one constant value gives exactly beta.  gamma and
    beta have the dtype of x, or float32 where x has 16 bits.
    Raises ShapeError (a group of one value, too), ParamError, DTypeError before any work.
    Source: Wu and He, Group normalization, arXiv 1803.08494.

    >>> x = np.array([1.0, 3.0, 10.0, 30.0]).reshape(1, 4, 1, 1)
    >>> y, cache = gpuconv.groupnorm_forward(x, np.ones(4), np.zeros(4), groups=2)
    >>> y.ravel().round(3)
    array([-1.,  1., -1.,  1.])
    """
    return _forward(SPATIAL, x, gamma, beta, groups=groups, eps=eps)


def groupnorm_backward(dy: Array, cache: GroupNormCache) -> tuple[Array, Array, Array]:
    """Return (dx, dgamma, dbeta).   dy: (N, C, H, W)  ->  dx: (N, C, H, W)   dgamma, dbeta: (C,).

    >>> x = np.arange(16.0).reshape(1, 4, 2, 2)
    >>> y, cache = gpuconv.groupnorm_forward(x, np.ones(4), np.zeros(4), groups=2)
    >>> dx, dgamma, dbeta = gpuconv.groupnorm_backward(np.ones_like(y), cache)
    >>> dx.shape, dgamma.shape, dbeta
    ((1, 4, 2, 2), (4,), array([4., 4., 4., 4.]))
    """
    return _backward(dy, cache, SPATIAL, "groupnorm_forward")


@says_ours()
def layernorm_forward(x: Array, gamma: AnyArray, beta: AnyArray, *, eps: float = 1e-5) -> tuple[Array, GroupNormCache]:
    """Normalise each row, scale by gamma, shift by beta; otherwise as groupnorm_forward.

    x: (N, D)   gamma, beta: (D,)   ->   y: (N, D)

    Source: Ba, Kiros and Hinton, Layer normalization, arXiv 1607.06450.

    >>> y, cache = gpuconv.layernorm_forward(np.array([[1.0, 3.0], [10.0, 30.0]]), np.ones(2), np.zeros(2))
    >>> y.round(3)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    return _forward(_ROWS, x, gamma, beta, groups=1, eps=eps)


def layernorm_backward(dy: Array, cache: GroupNormCache) -> tuple[Array, Array, Array]:
    """Return (dx, dgamma, dbeta).   dy: (N, D)  ->  dx: (N, D)   dgamma, dbeta: (D,).

    >>> y, cache = gpuconv.layernorm_forward(np.arange(6.0).reshape(2, 3), np.ones(3), np.zeros(3))
    >>> dx, dgamma, dbeta = gpuconv.layernorm_backward(np.ones((2, 3)), cache)
    >>> dx.shape, dgamma.shape, dbeta
    ((2, 3), (3,), array([2., 2., 2.]))
    """
    return _backward(dy, cache, _ROWS, "layernorm_forward")


def _forward(
    axes: dict[int, str], x: Any, gamma: Any, beta: Any, *, groups: Any, eps: Any
) -> tuple[Any, GroupNormCache]:
    checks.given(x=x, gamma=gamma, beta=beta)
    backend = backend_of(x=x, gamma=gamma, beta=beta)
    dtype = checks.common_dtype(x=x)
    vector_dtype = checks.common_dtype(gamma=gamma, beta=beta)
    if vector_dtype != dtype and (dtype.itemsize, vector_dtype) != (2, np.float32):
        msg = f"gamma and beta must be {dtype} like x (float32 if x has 16 bits), got {vector_dtype}"
        raise DTypeError(msg)
    checks.ndim_among("x", x, axes)
    checks.not_empty("x", x, axes[x.ndim])
    for name, vector in (("gamma", gamma), ("beta", beta)):
        checks.per_channel(name, vector, x, "column" if x.ndim == 2 else "channel")
    groups = checks.integer("groups", groups, least=1)
    if x.shape[1] % groups:
        msg = f"groups must divide the channels of x, got groups={groups}, C={x.shape[1]}"
        raise ParamError(msg)
    if int(np.prod(x.shape[1:], dtype=np.int64)) == groups:
        msg = f"normalising needs more than one value per {'row' if x.ndim == 2 else 'group'}, got x {tuple(x.shape)}"
        raise ShapeError(msg if x.ndim == 2 else f"{msg} with groups={groups}")
    eps = checks.real("eps", eps, low=0.0, open_low=True)
    y, mean, inv_std = backend.groupnorm_forward(folded(x), gamma, beta, groups=groups, eps=eps)
    return unfolded(y, x.shape), GroupNormCache(x, gamma, mean, inv_std, checks.mark(x=x, gamma=gamma))


def _backward(dy: Any, cache: Any, axes: dict[int, str], forward: str) -> tuple[Any, Any, Any]:
    checks.cache_of(cache, GroupNormCache, forward)
    if cache.x.ndim not in axes:
        msg = f"cache must be the one that {forward} returned, got that of an x {tuple(cache.x.shape)}"
        raise CacheError(msg)
    backend = backend_of(dy=dy, x=cache.x)
    x = cache.x
    checks.upstream(dy, x.shape, x.dtype)
    checks.unchanged(cache.marks, x=x, gamma=cache.gamma)
    dx, dgamma, dbeta = backend.groupnorm_backward(folded(dy), folded(x), cache.gamma, cache.mean, cache.inv_std)
    return unfolded(dx, x.shape), dgamma, dbeta
