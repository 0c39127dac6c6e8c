"""Rectified linear unit: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import checks
from ..backend import backend_of
from ..typing import Array
from ._cache import Cache


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ReluCache(Cache):
    """What relu_backward needs: the output, by reference (positive exactly where the input was)."""

    y: Any
    marks: dict[str, bytes] | None


def relu_forward(x: Array) -> tuple[Array, ReluCache]:
    """Return (max(x, 0), cache) for an array of any shape, in its memory format.  NaN stays NaN.

    >>> y, cache = gpuconv.relu_forward(np.array([-2.0, 0.0, 3.0]))
    >>> y
    array([0., 0., 3.])
    """
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    y = backend.relu_forward(x)
    return y, ReluCache(y, checks.mark(y=y))


def relu_backward(dy: Array, cache: ReluCache) -> Array:
    """Return dx: dy where the input was above 0, else 0 (at 0 itself, too).

    >>> y, cache = gpuconv.relu_forward(np.array([-2.0, 0.0, 3.0]))
    >>> gpuconv.relu_backward(np.ones(3), cache)
    array([0., 0., 1.])
    """
    checks.cache_of(cache, ReluCache, "relu_forward")
    backend = backend_of(dy=dy, y=cache.y)
    checks.upstream(dy, cache.y.shape, cache.y.dtype)
    checks.unchanged(cache.marks, y=cache.y)
    return backend.relu_backward(dy, cache.y)
