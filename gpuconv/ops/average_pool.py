"""Average pooling of signals, images and volumes, and over whole images: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..backend import backend_of
from ..elsewhere import says_ours
from ..pool_shapes import PoolSizes, VolumePoolSizes, pool_sizes
from ..shapes import SPATIAL, as_image, folded, is_channels_last, unfolded, with_axes_of
from ..typing import Array
from ._cache import Cache


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AveragePoolCache(Cache):
    """What average_pool_backward needs: sizes, the shape of y, and an empty array that says where forward ran."""

    like: Any
    dtype: np.dtype
    shape: tuple[int, ...]
    sizes: PoolSizes | VolumePoolSizes
    count_pad: bool


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GlobalAveragePoolCache(Cache):
    """What global_average_pool_backward needs: the input's shape, its own and folded, dtype, memory format and place."""

    like: Any
    shape: tuple[int, ...]
    folded: tuple[int, int, int, int]
    dtype: np.dtype
    channels_last: bool


@says_ours()
def average_pool_forward(
    x: Array,
    *,
    window: int | tuple[int, ...] = 2,
    stride: int | tuple[int, ...] | None = None,
    pad: int | str | tuple[int | tuple[int, int], ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    ceil: bool = False,
    count_pad: bool = True,
) -> tuple[Array, AveragePoolCache]:
    """Take the mean of every window; return (y, cache).

    x: (N, C, H, W)      ->   y: (N, C, P, Q)   with P = (H + 2 pad - dilation (R - 1) - 1) // stride + 1 for (R, S)
    x: (N, C, L)         ->   y: (N, C, Q)      for a window (S,), and
    x: (N, C, D, H, W)   ->   y: (N, C, Z, P, Q)   for (T, R, S): the other axes likewise

    window, stride, pad, dilation and ceil are those of max_pool_forward, given by name.
    count_pad=True divides by R S (volumes: T R S), zeros of the padding included (PyTorch's default), but for what sticks
    out of the padding by ceil; False divides by the number of real pixels under the window.  Sums are kept in float32 or wider.

    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> y, cache = gpuconv.average_pool_forward(x, window=2)
    >>> y[0, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    sizes = pool_sizes(x, window=window, stride=stride, pad=pad, dilation=dilation, ceil=ceil)
    count_pad = checks.flag("count_pad", count_pad)
    y = with_axes_of(x, backend.average_pool_forward(as_image(x), sizes, count_pad=count_pad))
    return y, AveragePoolCache(checks.nothing_like(y), x.dtype, tuple(y.shape), sizes, count_pad)


def average_pool_backward(dy: Array, cache: AveragePoolCache) -> Array:
    """Return dx: each entry of dy is shared equally among the pixels it averaged.

    dy: (N, C, P, Q)   ->   dx: (N, C, H, W); of signals and volumes in their shapes

    >>> y, cache = gpuconv.average_pool_forward(np.ones((1, 1, 2, 4)), window=2)
    >>> gpuconv.average_pool_backward(np.array([[[[4.0, 8.0]]]]), cache)[0, 0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.]])
    """
    checks.cache_of(cache, AveragePoolCache, "average_pool_forward")
    backend = backend_of(dy=dy, cache=cache.like)
    checks.upstream(dy, cache.shape, cache.dtype)
    return with_axes_of(dy, backend.average_pool_backward(as_image(dy), cache.sizes, count_pad=cache.count_pad))


def global_average_pool_forward(x: Array) -> tuple[Array, GlobalAveragePoolCache]:
    """Take the mean of every channel of every image; return (y, cache).   x: (N, C, H, W)  ->  y: (N, C).

    x may be (N, C, L) or (N, C, D, H, W) as well.

    >>> x = np.arange(8.0).reshape(1, 2, 2, 2)
    >>> y, cache = gpuconv.global_average_pool_forward(x)
    >>> y
    array([[1.5, 5.5]])
    """
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    checks.ndim_among("x", x, SPATIAL)
    checks.not_empty("x", x, SPATIAL[x.ndim])
    images = folded(x)
    y = backend.global_average_pool_forward(images)
    shapes = tuple(x.shape), tuple(images.shape)
    return y, GlobalAveragePoolCache(checks.nothing_like(y), *shapes, x.dtype, is_channels_last(images))


def global_average_pool_backward(dy: Array, cache: GlobalAveragePoolCache) -> Array:
    """Return dx: each entry of dy spread evenly over its image.   dy: (N, C)  ->  dx: in the shape of x.

    >>> y, cache = gpuconv.global_average_pool_forward(np.ones((1, 1, 2, 2)))
    >>> gpuconv.global_average_pool_backward(np.array([[4.0]]), cache)[0, 0]
    array([[1., 1.],
           [1., 1.]])
    """
    checks.cache_of(cache, GlobalAveragePoolCache, "global_average_pool_forward")
    backend = backend_of(dy=dy, cache=cache.like)
    checks.upstream(dy, cache.shape[:2], cache.dtype)
    dx = backend.global_average_pool_backward(dy, cache.folded, channels_last=cache.channels_last)
    return unfolded(dx, cache.shape)
