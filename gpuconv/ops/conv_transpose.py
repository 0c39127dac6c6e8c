"""Transposed convolution of signals, images and volumes: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .. import checks
from ..backend import backend_of, fill, on_gpu
from ..elsewhere import says_ours
from ..shapes import ConvSizes, VolumeConvSizes, as_image, conv_transpose_sizes, with_axes_of
from ..typing import Array, Gradient
from . import _precision
from ._cache import Cache


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ConvTransposeCache(Cache):
    """What conv_transpose_backward needs: the inputs, by reference (change them and the gradient changes with them)."""

    x: Any
    w: Any
    has_bias: bool
    sizes: ConvSizes | VolumeConvSizes
    marks: dict[str, bytes] | None
    precision: str | None = None


@says_ours(kernel_size="the shape of w says the window")
def conv_transpose_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    pad: int | str | tuple[int | tuple[int, int], ...] = 0,
    output_pad: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    precision: str | None = None,
) -> tuple[Array, ConvTransposeCache]:
    """Send each pixel, times a bank of filters, to the window of a larger image; return (y, cache).

    x: (N, C, H, W)     w: (C, K / groups, R, S)      b: (K,) or None   ->   y: (N, K, P, Q)
    x: (N, C, L)        w: (C, K / groups, S)         b: (K,) or None   ->   y: (N, K, Q)
    x: (N, C, D, H, W)  w: (C, K / groups, T, R, S)   b: (K,) or None   ->   y: (N, K, Z, P, Q)
    with P = (H - 1) stride - 2 pad + dilation (R - 1) + output_pad + 1, and the other axes likewise.

    It is the gradient of the input of the convolution with the same filters, stride, pad, dilation and groups, which
    makes an image of the size of x of one of the size of y.  Several sizes of y come to the same size of x:
    output_pad, less than stride or than dilation, says how many rows and columns y has beyond the least, at its end,
    which are computed like all others; a stride of 2 with R = 4 and pad=1 makes P = 2 H without any.
    pad is cut off both ends of y, or, as a pair (before, after) of an axis, off each its own; it may be "same", too.
    Options are an int, or a tuple of one for each axis after the channels; all arrays share one dtype and one place;
    y has the dtype and memory format of x.  precision: as in conv_forward.
    Others call it deconvolution, fractionally strided or backward convolution.  Source: Dumoulin, Visin, A guide to
    convolution arithmetic for deep learning (2016).

    Raises ShapeError, ParamError, DTypeError, ArgTypeError, DeviceMismatchError, or UnsupportedError where precision is
    given and cannot be had, before any work.

    >>> x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> y, cache = gpuconv.conv_transpose_forward(x, np.ones((1, 1, 2, 2)), stride=2)
    >>> y[0, 0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.],
           [3., 3., 4., 4.],
           [3., 3., 4., 4.]])
    """
    checks.given(x=x, w=w)
    backend = backend_of(x=x, w=w, b=b)
    checks.common_dtype(x=x, w=w, b=b)
    precision = _precision.check(precision, x)
    geometry = {"stride": stride, "pad": pad, "output_pad": output_pad, "dilation": dilation, "groups": groups}
    sizes = conv_transpose_sizes(x, w, b, **geometry)
    arrays = as_image(x), as_image(w), b, sizes
    if precision is not None:
        y = backend.conv_transpose.transposed(*arrays, precision=precision)
    else:
        y = backend.conv_transpose_forward(*arrays)
    cache = ConvTransposeCache(x, w, b is not None, sizes, checks.mark(x=x, w=w), precision)
    return with_axes_of(x, y), cache


def conv_transpose_backward(
    dy: Array, cache: ConvTransposeCache, *, input_grad: bool = True, weight_grad: bool = True
) -> tuple[Gradient[Array], Gradient[Array], Gradient[Array]]:
    """Return (dx, dw, db), the gradients of sum(dy * y) for conv_transpose_forward's inputs, in their shapes.

    dy: (N, K, P, Q)   ->   dx: (N, C, H, W)   dw: (C, K / groups, R, S)   db: (K,); signals and volumes in their shapes

    dx is None with input_grad=False, dw with weight_grad=False; db is None where forward had no b.

    >>> x, w = np.ones((2, 3, 4, 4)), np.ones((3, 5, 4, 4))
    >>> y, cache = gpuconv.conv_transpose_forward(x, w, stride=2, pad=1)
    >>> dx, dw, db = gpuconv.conv_transpose_backward(np.ones_like(y), cache)
    >>> y.shape, dx.shape, dw.shape, db
    ((2, 5, 8, 8), (2, 3, 4, 4), (3, 5, 4, 4), None)
    """
    backend = _checked(dy, cache)
    input_grad = checks.flag("input_grad", input_grad)
    weight_grad = checks.flag("weight_grad", weight_grad)
    wanted = {"input_grad": input_grad, "weight_grad": weight_grad, "bias_grad": cache.has_bias}
    return _backward(backend, dy, cache.x, cache.w, cache, wanted)


def conv_transpose_backward_into(
    dy: Any, cache: ConvTransposeCache, dw: Any, db: Any, *, input_grad: bool = True
) -> Any:
    """Return dx as conv_transpose_backward does, and fill dw and db: what a net keeps; either may be None.

    On a GPU they are C-contiguous.  Beside 16 bits they may be float32: the sums as they are, not rounded.
    """
    backend, x, w = _checked(dy, cache), cache.x, cache.w
    input_grad = checks.flag("input_grad", input_grad)
    if on_gpu(x) and x.ndim == 4:
        how = {"input_grad": input_grad, "precision": cache.precision}
        return backend.conv_transpose.transposed_gradients_into(dy, x, w, cache.sizes, dw, db, **how)
    kept = {"weight_grad": dw is not None, "bias_grad": db is not None}
    dtype = next((array.dtype for array in (dw, db) if array is not None), x.dtype)
    if dtype == x.dtype:
        dx, *made = _backward(backend, dy, x, w, cache, {"input_grad": input_grad, **kept})
    else:
        dx, *_ = _backward(backend, dy, x, w, cache, {"input_grad": input_grad, **dict.fromkeys(kept, False)})
        wide_dy, wide_x, wide_w = (array.astype(dtype) for array in (dy, x, w))
        _, *made = _backward(backend, wide_dy, wide_x, wide_w, cache, {"input_grad": False, **kept})
    fill((dw, db), made)
    return dx


def _checked(dy: Any, cache: Any) -> ModuleType:
    """Return the backend, where dy belongs to the cache."""
    checks.cache_of(cache, ConvTransposeCache, "conv_transpose_forward")
    x, z = cache.x, cache.sizes
    backend = backend_of(dy=dy, x=x)
    checks.upstream(dy, z.image if x.ndim > 3 else z.image[:2] + z.image[3:], x.dtype)
    checks.unchanged(cache.marks, x=x, w=cache.w)
    return backend


def _backward(
    backend: ModuleType, dy: Any, x: Any, w: Any, cache: ConvTransposeCache, wanted: dict[str, bool]
) -> tuple[Any, Any, Any]:
    images = as_image(dy), as_image(x), as_image(w)
    if cache.precision is not None:
        dx, dw, db = backend.conv_transpose.transposed_gradients(
            *images, cache.sizes, **wanted, precision=cache.precision
        )
    else:
        dx, dw, db = backend.conv_transpose_backward(*images, cache.sizes, **wanted)
    return with_axes_of(x, dx), with_axes_of(w, dw), db
