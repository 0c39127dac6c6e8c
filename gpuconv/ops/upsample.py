"""Upsampling of signals, images and volumes by whole factors: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..backend import backend_of
from ..elsewhere import says_ours
from ..shapes import as_image, with_axes_of
from ..typing import Array
from ..upsample_shapes import check_mode, upsampled
from ._cache import Cache


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class UpsampleCache(Cache):
    """What upsample_backward needs: the shape of y, the options, and an empty array that says where forward ran."""

    like: Any
    dtype: np.dtype
    shape: tuple[int, ...]
    factor: tuple[int, ...]
    mode: str
    align_corners: bool


@says_ours(size="factor says how many times as many pixels y has as x")
def upsample_forward(
    x: Array, *, factor: int | tuple[int, ...] = 2, mode: str = "nearest", align_corners: bool = False
) -> tuple[Array, UpsampleCache]:
    """Enlarge by whole factors; return (y, cache).

    x: (N, C, H, W)      ->   y: (N, C, P, Q)   with P = factor H, Q = factor W
    x: (N, C, L)         ->   y: (N, C, Q)
    x: (N, C, D, H, W)   ->   y: (N, C, Z, P, Q)

    factor (others say scale_factor) is an int, or a tuple of one for each axis after the channels.
    mode: "nearest" repeats each pixel; "linear" goes in a straight line from each pixel's middle to the next one's,
    along every axis, and goes on as it is beyond the first and the last.  Others call that bilinear for images and
    trilinear for volumes.  align_corners=True lays the middles of the first and last pixels of y onto those of x.
    A pixel of weight 0 takes no part: NaN and infinities reach what they are near alone.  y has the dtype and memory
    format of x.
    Raises ShapeError, ParamError, DTypeError, ArgTypeError or SizeLimitError before any work.

    >>> x = np.array([[[[1.0, 5.0]]]])
    >>> y, cache = gpuconv.upsample_forward(x, factor=2)
    >>> y[0, 0]
    array([[1., 1., 5., 5.],
           [1., 1., 5., 5.]])
    >>> gpuconv.upsample_forward(x, factor=(1, 2), mode="linear")[0][0, 0]
    array([[1., 2., 4., 5.]])
    """
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    factor, shape = upsampled(x, factor)
    mode, align_corners = check_mode(mode, align_corners)
    y = backend.upsample_forward(as_image(x), _of_images(factor), mode=mode, align_corners=align_corners)
    y = with_axes_of(x, y)
    return y, UpsampleCache(checks.nothing_like(y), x.dtype, shape, factor, mode, align_corners)


def upsample_backward(dy: Array, cache: UpsampleCache) -> Array:
    """Return dx: each pixel gets dy of all that was made of it, times its weight there.

    dy: (N, C, P, Q)   ->   dx: (N, C, H, W); of signals and volumes in their shapes

    >>> y, cache = gpuconv.upsample_forward(np.ones((1, 1, 1, 2)), factor=2)
    >>> gpuconv.upsample_backward(np.array([[[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]]]), cache)[0, 0]
    array([[14., 22.]])
    """
    checks.cache_of(cache, UpsampleCache, "upsample_forward")
    backend = backend_of(dy=dy, cache=cache.like)
    checks.upstream(dy, cache.shape, cache.dtype)
    options = {"mode": cache.mode, "align_corners": cache.align_corners}
    return with_axes_of(dy, backend.upsample_backward(as_image(dy), _of_images(cache.factor), **options))


def _of_images(factor: tuple[int, ...]) -> tuple[int, ...]:
    """Return the factors of a signal as those of an image of one row; others as they are."""
    return (1, *factor) if len(factor) == 1 else factor
