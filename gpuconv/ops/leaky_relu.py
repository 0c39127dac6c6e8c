"""Leaky rectified linear unit: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import checks
from ..backend import backend_of
from ..elsewhere import says_ours
from ..typing import Array
from ._cache import Cache


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LeakyReluCache(Cache):
    """What leaky_relu_backward needs: the output, by reference (positive exactly where the input was)."""

    y: Any
    slope: float
    marks: dict[str, bytes] | None


@says_ours()
def leaky_relu_forward(x: Array, *, slope: float = 0.01) -> tuple[Array, LeakyReluCache]:
    """Return (x where x is above 0, else slope x; cache) for an array of any shape, in its memory format.

    slope is finite and at least 0; with 0 this is relu_forward, bit for bit.  NaN stays NaN.
    Source: Maas, Hannun and Ng, Rectifier Nonlinearities Improve Neural Network Acoustic Models (ICML 2013).

    >>> y, cache = gpuconv.leaky_relu_forward(np.array([-2.0, 0.0, 3.0]), slope=0.5)
    >>> y
    array([-1.,  0.,  3.])
    """
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    slope = checks.real("slope", slope, low=0.0)
    y = backend.leaky_relu_forward(x, slope=slope)
    return y, LeakyReluCache(y, slope, checks.mark(y=y))


def leaky_relu_backward(dy: Array, cache: LeakyReluCache) -> Array:
    """Return dx: dy where the input was above 0, else slope dy (at 0 itself and for NaN, too).

    >>> y, cache = gpuconv.leaky_relu_forward(np.array([-2.0, 0.0, 3.0]), slope=0.5)
    >>> gpuconv.leaky_relu_backward(np.ones(3), cache)
    array([0.5, 0.5, 1. ])
    """
    checks.cache_of(cache, LeakyReluCache, "leaky_relu_forward")
    backend = backend_of(dy=dy, y=cache.y)
    checks.upstream(dy, cache.y.shape, cache.y.dtype)
    checks.unchanged(cache.marks, y=cache.y)
    return backend.leaky_relu_backward(dy, cache.y, slope=cache.slope)
