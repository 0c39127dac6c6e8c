"""Average pooling to a size, of signals, images and volumes: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .. import checks
from ..backend import backend_of
from ..elsewhere import says_ours
from ..pool_shapes import AdaptiveSizes, adaptive_sizes
from ..shapes import as_image, folded, is_channels_last, unfolded, with_axes_of
from ..typing import Array
from ._cache import Cache


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AdaptiveAveragePoolCache(Cache):
    """What adaptive_average_pool_backward needs: the shapes of x and y, the memory format of x, and where forward ran."""

    like: Any
    dtype: np.dtype
    image: tuple[int, ...]
    shape: tuple[int, ...]
    sizes: AdaptiveSizes
    channels_last: bool


@says_ours()
def adaptive_average_pool_forward(
    x: Array, size: int | tuple[int | None, ...]
) -> tuple[Array, AdaptiveAveragePoolCache]:
    """Take the mean of windows that share each image out evenly, as many as `size` says; return (y, cache).

    x: (N, C, H, W)      ->   y: (N, C, P, Q)      for size=(P, Q), or an int for both
    x: (N, C, L)         ->   y: (N, C, Q)         for (Q,), and
    x: (N, C, D, H, W)   ->   y: (N, C, Z, P, Q)   for (Z, P, Q) or an int

    Window p of P over H pixels has those from floor(p H / P) to before ceil((p + 1) H / P), as in PyTorch: windows
    differ by a pixel, and share one, where P does not divide H.  P may be larger than H.  None leaves an axis as it is.
    Sums are kept in float32 or wider.

    >>> x = np.arange(10.0).reshape(1, 1, 2, 5)
    >>> y, cache = gpuconv.adaptive_average_pool_forward(x, (1, 2))
    >>> y[0, 0]
    array([[3.5, 5.5]])
    """
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    sizes = adaptive_sizes(x, size)
    images = as_image(x)
    if sizes.whole:
        y = unfolded(backend.global_average_pool_forward(folded(x)), sizes.out)
    elif sizes.even:
        y = backend.average_pool_forward(images, sizes.windows, count_pad=True)
    else:
        y = backend.adaptive_average_pool_forward(images, sizes)
    y = with_axes_of(x, y)
    shapes = tuple(x.shape), tuple(y.shape)
    return y, AdaptiveAveragePoolCache(checks.nothing_like(y), x.dtype, *shapes, sizes, is_channels_last(images))


def adaptive_average_pool_backward(dy: Array, cache: AdaptiveAveragePoolCache) -> Array:
    """Return dx: each entry of dy is shared equally among the pixels it averaged.

    dy: (N, C, P, Q)   ->   dx: (N, C, H, W); of signals and volumes in their shapes

    >>> y, cache = gpuconv.adaptive_average_pool_forward(np.ones((1, 1, 1, 5)), (1, 2))
    >>> gpuconv.adaptive_average_pool_backward(np.array([[[[3.0, 6.0]]]]), cache)[0, 0]
    array([[1., 1., 3., 2., 2.]])
    """
    checks.cache_of(cache, AdaptiveAveragePoolCache, "adaptive_average_pool_forward")
    backend = backend_of(dy=dy, cache=cache.like)
    checks.upstream(dy, cache.shape, cache.dtype)
    sizes, gradient = cache.sizes, as_image(dy)
    if sizes.whole:
        means, (N, C, *rows, W) = folded(dy)[:, :, 0, 0], sizes.image
        dx = backend.global_average_pool_backward(means, (N, C, prod(rows), W), channels_last=cache.channels_last)
        return unfolded(dx, cache.image)
    if sizes.even:
        dx = backend.average_pool_backward(gradient, sizes.windows, count_pad=True)
    else:
        dx = backend.adaptive_average_pool_backward(gradient, sizes)
    return with_axes_of(dy, dx)
