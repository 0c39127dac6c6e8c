"""Gaussian error linear unit: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import checks
from ..backend import backend_of
from ..typing import Array
from ._cache import Cache


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GeluCache(Cache):
    """What gelu_backward needs: the input, by reference."""

    x: Any
    approximate: str
    marks: dict[str, bytes] | None


def gelu_forward(x: Array, *, approximate: str = "none") -> tuple[Array, GeluCache]:
    """Return (x * Phi(x), cache) for an array of any shape; Phi is the normal distribution function.

    approximate="none" is exact; "tanh" is 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv 1606.08415.

    >>> y, cache = gpuconv.gelu_forward(np.array([-1.0, 0.0, 1.0]))
    >>> y.round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    approximate = checks.choice("approximate", approximate, ("none", "tanh"))
    y = backend.gelu_forward(x, approximate=approximate)
    return y, GeluCache(x, approximate, checks.mark(x=x))


def gelu_backward(dy: Array, cache: GeluCache) -> Array:
    """Return dx, the gradient of sum(dy * y); the shape of dy is that of x.

    >>> y, cache = gpuconv.gelu_forward(np.array([-1.0, 0.0, 1.0]))
    >>> gpuconv.gelu_backward(np.ones(3), cache).round(4)
    array([-0.0833,  0.5   ,  1.0833])
    """
    checks.cache_of(cache, GeluCache, "gelu_forward")
    backend = backend_of(dy=dy, x=cache.x)
    checks.upstream(dy, cache.x.shape, cache.x.dtype)
    checks.unchanged(cache.marks, x=cache.x)
    return backend.gelu_backward(dy, cache.x, approximate=cache.approximate)
