"""2-D average pooling, over windows and over whole images: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..backend import backend_of
from ..shapes import PoolSizes, is_channels_last, pool_sizes


@dataclass(frozen=True, slots=True, eq=False)
class AveragePoolCache:
    """What average_pool_backward needs: sizes, and an empty array that says where forward ran."""

    like: Any
    dtype: np.dtype
    sizes: PoolSizes
    count_pad: bool


@dataclass(frozen=True, slots=True, eq=False)
class GlobalAveragePoolCache:
    """What global_average_pool_backward needs: the input's shape, dtype, memory format and place."""

    like: Any
    shape: tuple[int, int, int, int]
    dtype: np.dtype
    channels_last: bool


def average_pool_forward(
    x: Any, *, window: Any = 2, stride: Any = None, pad: Any = 0, count_pad: bool = True
) -> tuple[Any, AveragePoolCache]:
    """Take the mean of every window; return (y, cache).

    x: (N, C, H, W)   ->   y: (N, C, P, Q)   with P = (H + 2 pad - R) // stride + 1 for a window (R, S)

    window, stride and pad are those of max_pool_forward (others say kernel_size, stride, padding), given by name.
    count_pad=True divides by R S everywhere, zeros of the padding included (PyTorch's default); False divides by the
    number of real pixels under the window.  Sums are kept in float32 or wider.
    """
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    sizes = pool_sizes(x, window=window, stride=stride, pad=pad)
    count_pad = checks.flag("count_pad", count_pad)
    y = backend.average_pool_forward(x, sizes, count_pad=count_pad)
    return y, AveragePoolCache(checks.nothing_like(y), x.dtype, sizes, count_pad)


def average_pool_backward(dy: Any, cache: AveragePoolCache) -> Any:
    """Return dx: each entry of dy is shared equally among the pixels it averaged.

    dy: (N, C, P, Q)   ->   dx: (N, C, H, W)
    """
    checks.cache_of(cache, AveragePoolCache, "average_pool_forward")
    backend = backend_of(dy=dy, cache=cache.like)
    z = cache.sizes
    checks.upstream(dy, (z.N, z.C, z.P, z.Q), cache.dtype)
    return backend.average_pool_backward(dy, z, count_pad=cache.count_pad)


def global_average_pool_forward(x: Any) -> tuple[Any, GlobalAveragePoolCache]:
    """Take the mean of every channel of every image; return (y, cache).   x: (N, C, H, W)  ->  y: (N, C)."""
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    checks.ndim("x", x, 4, "(N, C, H, W)")
    checks.not_empty("x", x, "(N, C, H, W)")
    y = backend.global_average_pool_forward(x)
    return y, GlobalAveragePoolCache(checks.nothing_like(y), tuple(x.shape), x.dtype, is_channels_last(x))


def global_average_pool_backward(dy: Any, cache: GlobalAveragePoolCache) -> Any:
    """Return dx: each entry of dy spread evenly over its image.   dy: (N, C)  ->  dx: (N, C, H, W)."""
    checks.cache_of(cache, GlobalAveragePoolCache, "global_average_pool_forward")
    backend = backend_of(dy=dy, cache=cache.like)
    checks.upstream(dy, cache.shape[:2], cache.dtype)
    return backend.global_average_pool_backward(dy, cache.shape, channels_last=cache.channels_last)
