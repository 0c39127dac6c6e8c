"""Convolution with what follows it in one pass, on a GPU: what a net runs there in place of several layers.

The maxima of 2 x 2 windows, their places and their gradients are those of the layers one after the other, bit for bit;
the moments that a batch norm wants are those of the same values, added up in another order.
"""

from __future__ import annotations

from typing import Any

from .. import checks
from ..backend import backend_of
from ..pool_shapes import PoolSizes
from ..shapes import conv_sizes
from . import _precision
from .conv import ConvCache, conv_forward
from .max_pool import MaxPoolCache, max_pool_forward


def conv_forward_fused(
    x: Any,
    w: Any,
    b: Any,
    *,
    precision: str | None,
    pool: bool,
    training: bool,
    moments: bool,
    **geometry: Any,
) -> tuple[Any, ConvCache, MaxPoolCache | None, Any]:
    """Return (y, cache, cache of the pooling, moments) of images on a GPU; what nobody asks for is None.

    geometry, precision: as in conv_forward.   pool: maxima of 2 x 2 windows side by side.   training: a backward will
    want their places.   moments: those of y, for fused_forward; None, too, where no kernel makes them with y.
    """
    checks.given(x=x, w=w)
    backend = backend_of(x=x, w=w, b=b)
    checks.common_dtype(x=x, w=w, b=b)
    precision = _precision.check(precision, x)
    z = conv_sizes(x, w, b, **geometry)
    behind = {"pooled": pool, "training": training, "moments": moments}
    made = backend.conv.forward_unit(x, w, b, z, precision=precision, **behind)
    if made is None:
        y, cache = conv_forward(x, w, b, **geometry, precision=precision)
        if not pool:
            return y, cache, None, None
        y, of_maxima = max_pool_forward(y)
        return y, cache, of_maxima, None
    cache = ConvCache(x, w, b is not None, z, checks.mark(x=x, w=w), precision)
    of_pool: MaxPoolCache | None = None
    if made.places is not None:
        sizes = PoolSizes(z.N, z.K, z.P, z.Q, R=2, S=2, P=z.P // 2, Q=z.Q // 2, stride=(2, 2), pad=(0, 0))
        of_pool = MaxPoolCache("first", made.places, None, None, x.dtype, sizes, None)
    return made.y, cache, of_pool, made.moments
