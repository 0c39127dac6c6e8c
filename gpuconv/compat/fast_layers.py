"""The course's fast layers: our convolution and max-pooling under its names.

There is no column matrix in the cache and none in memory, so a thousand images at once are no trouble; filters need not
be square, windows may overlap or leave pixels over, any memory layout and pad 0 are right.
"""

from __future__ import annotations

from typing import Any

from .. import ops
from ..errors import CacheError
from ..ops.conv import ConvCache
from ..shapes import check_images, conv_sizes
from . import border, params


@border.forward
def conv_forward_fast(x: Any, w: Any, b: Any, conv_param: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """Correlate images with filters; return (out, cache).

    x: (N, C, H, W)   w: (F, C, HH, WW)   b: (F,)   conv_param: stride, pad   ->   out: (N, F, H', W')

    pad may be a float of integral value: the course's nets pass (filter_size - 1) / 2.  The cache is the course's
    (x, w, b, conv_param, x_cols), without the columns.
    """
    return ops.conv_forward(x, w, b, **params.conv_options(conv_param))[0], (x, w, b, conv_param, None)


@border.backward
def conv_backward_fast(dout: Any, cache: tuple[Any, ...], *, input_grad: bool = True) -> tuple[Any, Any, Any]:
    """Return (dx, dw, db) of conv_forward_fast; dx is None with input_grad=False.

    cache: of conv_forward_fast, or of conv_forward_naive.
    """
    if not isinstance(cache, tuple) or len(cache) not in (4, 5):
        msg = f"cache must be the tuple that conv_forward_fast returned, got {type(cache).__qualname__}"
        raise CacheError(msg)
    x, w, b = border.inward(*cache[:3])
    sizes = conv_sizes(x, w, b, **params.conv_options(cache[3]))
    return ops.conv_backward(dout, ConvCache(x, w, True, sizes, None), input_grad=input_grad)


@border.forward
def max_pool_forward_reshape(x: Any, pool_param: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """Take the maximum of every window, whose equal maxima will split the gradient; return (out, cache)."""
    return _pooled(x, pool_param, "split")


@border.forward
def max_pool_forward_im2col(x: Any, pool_param: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """Take the maximum of every window, the first of which will get the gradient; return (out, cache)."""
    return _pooled(x, pool_param, "first")


@border.forward
def max_pool_forward_fast(x: Any, pool_param: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """Take the maximum of every window; return (out, cache).

    x: (N, C, H, W)   pool_param: pool_height, pool_width, stride   ->   out: (N, C, H', W')

    As in the course, equal maxima split the gradient where windows are square and tile the image; elsewhere the first
    gets it.
    """
    height, width, stride = (pool_param[name] for name in ("pool_height", "pool_width", "stride"))
    tiles = height == width == stride and x.shape[2] % height == x.shape[3] % width == 0
    return _pooled(x, pool_param, "split" if tiles else "first")


@border.backward
def max_pool_backward_fast(dout: Any, cache: tuple[Any, ...]) -> Any:
    """Return dx, by the rule for ties of the forward that made the cache."""
    if not isinstance(cache, tuple) or len(cache) != 2 or cache[0] not in ("reshape", "im2col"):
        msg = f"cache must be the tuple that max_pool_forward_fast returned, got {type(cache).__qualname__}"
        raise CacheError(msg)
    return ops.max_pool_backward(dout, cache[1][1])


conv_forward_strides = conv_forward_im2col = conv_forward_fast
conv_backward_strides = conv_backward_im2col = conv_backward_fast
max_pool_backward_reshape = max_pool_backward_im2col = max_pool_backward_fast


def _pooled(x: Any, pool_param: dict[str, Any], ties: str) -> tuple[Any, tuple[Any, ...]]:
    check_images("x", x)
    out, cache = ops.max_pool_forward(x, ties=ties, **params.pool_options(pool_param))
    return out, ("reshape" if ties == "split" else "im2col", (x, cache))
