"""Max-pooling of signals, images and volumes: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..backend import backend_of
from ..elsewhere import says_ours
from ..pool_shapes import PoolSizes, VolumePoolSizes, pool_sizes
from ..shapes import as_image, with_axes_of
from ..typing import Array
from ._cache import Cache


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MaxPoolCache(Cache):
    """What max_pool_backward needs.

    argmax: for each output, the place of its maximum in the window, counted in row order (of volumes plane by plane);
    where ties share, None, and x and y are the input and output, by reference.
    """

    ties: str
    argmax: Any
    x: Any
    y: Any
    dtype: np.dtype
    sizes: PoolSizes | VolumePoolSizes
    marks: dict[str, bytes] | None


@says_ours()
def max_pool_forward(
    x: Array,
    *,
    window: int | tuple[int, ...] = 2,
    stride: int | tuple[int, ...] | None = None,
    pad: int | str | tuple[int | tuple[int, int], ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    ceil: bool = False,
    ties: str = "first",
) -> tuple[Array, MaxPoolCache]:
    """Take the maximum of every window; return (y, cache).

    x: (N, C, H, W)      ->   y: (N, C, P, Q)   with P = (H + 2 pad - dilation (R - 1) - 1) // stride + 1 for (R, S)
    x: (N, C, L)         ->   y: (N, C, Q)      for a window (S,), and
    x: (N, C, D, H, W)   ->   y: (N, C, Z, P, Q)   for (T, R, S): the other axes likewise

    window, stride (None: the window), pad (others say kernel_size, stride, padding) and dilation are given by name, each
    an int or a tuple of one for each axis after the channels: (vertical, horizontal) for images.  Of signals window is a
    tuple of one, since with an int x may be an image that lacks its batch axis.
    An axis may have a pair (before, after) of its own in pad, and pad may be "same", as for conv_forward.  Taps of a window
    lie dilation apart.  ceil=True adds a last window that sticks out behind, unless it would begin behind the image
    (PyTorch's rule for ceil_mode; ONNX before opset 22 drops none).
    Padding never wins, NaN wins over every number.
    ties says which of a window's equal maxima gets its gradient: the "first" in row order (of volumes in the first
    plane), all an equal part of it ("split"), or "every" one the whole of it, which is no gradient but what some code
    does.  With "split" and "every" a window whose maximum is NaN, which equals nothing, gives none.
    Raises ShapeError, ParamError (pad no less than the dilated window), DTypeError or ArgTypeError before any work.

    >>> x = np.array([[1.0, 2.0, 5.0, 6.0], [4.0, 3.0, 8.0, 7.0]]).reshape(1, 1, 2, 4)
    >>> y, cache = gpuconv.max_pool_forward(x, window=2)
    >>> y
    array([[[[4., 8.]]]])
    """
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    sizes = pool_sizes(x, window=window, stride=stride, pad=pad, dilation=dilation, ceil=ceil)
    ties = checks.choice("ties", ties, ("first", "split", "every"))
    y, argmax = (with_axes_of(x, result) for result in backend.max_pool_forward(as_image(x), sizes))
    if ties == "first":
        return y, MaxPoolCache(ties, argmax, None, None, x.dtype, sizes, None)
    return y, MaxPoolCache(ties, None, x, y, x.dtype, sizes, checks.mark(x=x, y=y))


def max_pool_backward(dy: Array, cache: MaxPoolCache) -> Array:
    """Return dx: each entry of dy goes to the place its maximum came from; overlapping windows add up.

    dy: (N, C, P, Q)   ->   dx: (N, C, H, W); of signals and volumes in their shapes

    >>> x = np.array([[1.0, 2.0, 5.0, 6.0], [4.0, 3.0, 8.0, 7.0]]).reshape(1, 1, 2, 4)
    >>> y, cache = gpuconv.max_pool_forward(x, window=2)
    >>> gpuconv.max_pool_backward(np.array([[[[10.0, 20.0]]]]), cache)[0, 0]
    array([[ 0.,  0.,  0.,  0.],
           [10.,  0., 20.,  0.]])
    """
    checks.cache_of(cache, MaxPoolCache, "max_pool_forward")
    backend = backend_of(dy=dy, cache=cache.argmax, x=cache.x)
    checks.upstream(dy, (cache.argmax if cache.y is None else cache.y).shape, cache.dtype)
    checks.unchanged(cache.marks, x=cache.x, y=cache.y)
    argmax, x, y = map(as_image, (cache.argmax, cache.x, cache.y))
    dx = backend.max_pool_backward(as_image(dy), argmax, cache.sizes, ties=cache.ties, x=x, y=y)
    return with_axes_of(dy, dx)
