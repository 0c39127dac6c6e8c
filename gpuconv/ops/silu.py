"""Sigmoid linear unit: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import checks
from ..backend import backend_of
from ..elsewhere import says_ours
from ..typing import Array
from ._cache import Cache


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SiluCache(Cache):
    """What silu_backward needs: the input, by reference."""

    x: Any
    marks: dict[str, bytes] | None


@says_ours()
def silu_forward(x: Array) -> tuple[Array, SiluCache]:
    """Return (x / (1 + exp(-x)), cache) for an array of any shape, in its memory format.  Others call it swish.

    Minus infinity gives NaN, its limit being no product of numbers.
    Source: Elfwing, Uchibe and Doya, Sigmoid-weighted linear units, arXiv 1702.03118.

    >>> y, cache = gpuconv.silu_forward(np.array([-1.0, 0.0, 1.0]))
    >>> y.round(4)
    array([-0.2689,  0.    ,  0.7311])
    """
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    return backend.silu_forward(x), SiluCache(x, checks.mark(x=x))


def silu_backward(dy: Array, cache: SiluCache) -> Array:
    """Return dx: dy times s + x s (1 - s), s = 1 / (1 + exp(-x)).

    >>> y, cache = gpuconv.silu_forward(np.array([-1.0, 0.0, 1.0]))
    >>> gpuconv.silu_backward(np.ones(3), cache).round(4)
    array([0.0723, 0.5   , 0.9277])
    """
    checks.cache_of(cache, SiluCache, "silu_forward")
    backend = backend_of(dy=dy, x=cache.x)
    checks.upstream(dy, cache.x.shape, cache.x.dtype)
    checks.unchanged(cache.marks, x=cache.x)
    return backend.silu_backward(dy, cache.x)
