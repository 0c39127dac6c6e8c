"""Gaussian error linear unit: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import checks
from ..backend import backend_of
from ._cache import Cache


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GeluCache(Cache):
    """What gelu_backward needs: the input, by reference."""

    x: Any
    approximate: str
    marks: dict[str, bytes] | None


def gelu_forward(x: Any, *, approximate: str = "none") -> tuple[Any, GeluCache]:
    """Return (x * Phi(x), cache) for an array of any shape; Phi is the normal distribution function.

    approximate="none" is exact; "tanh" is 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv 1606.08415.
    """
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    approximate = checks.choice("approximate", approximate, ("none", "tanh"))
    y = backend.gelu_forward(x, approximate=approximate)
    return y, GeluCache(x, approximate, checks.mark(x=x))


def gelu_backward(dy: Any, cache: GeluCache) -> Any:
    """Return dx, the gradient of sum(dy * y); the shape of dy is that of x."""
    checks.cache_of(cache, GeluCache, "gelu_forward")
    backend = backend_of(dy=dy, x=cache.x)
    checks.upstream(dy, cache.x.shape, cache.x.dtype)
    checks.unchanged(cache.marks, x=cache.x)
    return backend.gelu_backward(dy, cache.x, approximate=cache.approximate)
