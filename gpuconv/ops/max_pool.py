"""2-D max-pooling: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..backend import backend_of
from ..shapes import PoolSizes, pool_sizes


@dataclass(frozen=True, slots=True, eq=False)
class MaxPoolCache:
    """What max_pool_backward needs: for each output, the place of its maximum in the window, counted in row order."""

    argmax: Any
    dtype: np.dtype
    sizes: PoolSizes


def max_pool_forward(x: Any, *, window: Any = 2, stride: Any = None, pad: Any = 0) -> tuple[Any, MaxPoolCache]:
    """Take the maximum of every window; return (y, cache).

    x: (N, C, H, W)   ->   y: (N, C, P, Q)   with P = (H + 2 pad - R) // stride + 1 for a window (R, S)

    window, stride (None: the window) and pad are an int or a pair (vertical, horizontal).  Padding never wins, NaN
    wins over every number, and of equal maxima the first in row order gets the gradient.
    Raises ShapeError, ParamError (pad above half the window), DTypeError or ArgTypeError before any work.
    """
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    sizes = pool_sizes(x, window=window, stride=stride, pad=pad)
    y, argmax = backend.max_pool_forward(x, sizes)
    return y, MaxPoolCache(argmax, x.dtype, sizes)


def max_pool_backward(dy: Any, cache: MaxPoolCache) -> Any:
    """Return dx: each entry of dy goes to the place its maximum came from; overlapping windows add up.

    dy: (N, C, P, Q)   ->   dx: (N, C, H, W)
    """
    checks.cache_of(cache, MaxPoolCache, "max_pool_forward")
    backend = backend_of(dy=dy, cache=cache.argmax)
    z = cache.sizes
    checks.upstream(dy, (z.N, z.C, z.P, z.Q), cache.dtype)
    return backend.max_pool_backward(dy, cache.argmax, z)
