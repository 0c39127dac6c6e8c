"""Transposed convolution of signals, images and volumes: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .. import checks
from ..backend import backend_of, on_gpu
from ..elsewhere import says_ours
from ..shapes import ConvSizes, VolumeConvSizes, as_image, check_count, conv_transpose_sizes, with_axes_of
from ..typing import Array, Gradient
from . import _precision
from ._cache import Cache
from ._complex_conv import (
    COMPLEX,
    complex_channels,
    complex_filters,
    complex_vector,
    real_channels,
    real_filters,
    real_sizes,
    real_vector,
)
from ._into import parameters_into


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
    y has the dtype and memory format of x.  precision: as in conv_forward.  complex64 and complex128 are taken, too; w is
    not conjugated.
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
    checks.common_dtype((*checks.FLOATS, *COMPLEX), x=x, w=w, b=b)
    precision = _precision.check(precision, x)
    geometry = {"stride": stride, "pad": pad, "output_pad": output_pad, "dilation": dilation, "groups": groups}
    sizes = conv_transpose_sizes(x, w, b, **geometry)
    if x.dtype in COMPLEX:
        check_count("parts of y", real_sizes(sizes).image, f"x {tuple(x.shape)}")
    y = _forward(backend, x, w, b, sizes, precision)
    return y, ConvTransposeCache(x, w, b is not None, sizes, checks.mark(x=x, w=w), precision)


def conv_transpose_backward(
    dy: Array, cache: ConvTransposeCache, *, input_grad: bool = True, weight_grad: bool = True
) -> tuple[Gradient[Array], Gradient[Array], Gradient[Array]]:
    """Return (dx, dw, db), the gradients of sum(dy * y) for conv_transpose_forward's inputs, in their shapes.

    dy: (N, K, P, Q)   ->   dx: (N, C, H, W)   dw: (C, K / groups, R, S)   db: (K,); signals and volumes in their shapes

    dx is None with input_grad=False, dw with weight_grad=False; db is None where forward had no b.  Of complex arrays
    the gradient is what conv_backward says.

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
    return _backward(backend, dy, cache.x, cache.w, cache.sizes, wanted, cache.precision)


def conv_transpose_backward_into(
    dy: Any, cache: ConvTransposeCache, dw: Any, db: Any, *, input_grad: bool = True
) -> Any:
    """Return dx as conv_transpose_backward does, and fill dw and db: what a net keeps; either may be None.

    On a GPU they are C-contiguous.  Beside 16 bits they may be float32: the sums as they are, not rounded.
    """
    backend, x, w, z = _checked(dy, cache), cache.x, cache.w, cache.sizes
    input_grad = checks.flag("input_grad", input_grad)
    if on_gpu(x) and x.ndim == 4 and x.dtype not in COMPLEX:
        how = {"input_grad": input_grad, "precision": cache.precision}
        return backend.conv_transpose.transposed_gradients_into(dy, x, w, z, dw, db, **how)

    def backward(dy: Any, x: Any, w: Any, wanted: dict[str, bool]) -> tuple[Any, Any, Any]:
        return _backward(backend, dy, x, w, z, wanted, cache.precision)

    return parameters_into(backward, dy, x, w, dw, db, input_grad=input_grad)


def _checked(dy: Any, cache: Any) -> ModuleType:
    """Return the backend, where dy belongs to the cache."""
    checks.cache_of(cache, ConvTransposeCache, "conv_transpose_forward")
    x, z = cache.x, cache.sizes
    backend = backend_of(dy=dy, x=x)
    checks.upstream(dy, z.image if x.ndim > 3 else z.image[:2] + z.image[3:], x.dtype)
    checks.unchanged(cache.marks, x=x, w=cache.w)
    return backend


def _forward(
    backend: ModuleType, x: Any, w: Any, b: Any, sizes: ConvSizes | VolumeConvSizes, precision: str | None = None
) -> Any:
    """Return y, where all is checked."""
    if x.dtype in COMPLEX:
        b = None if b is None else real_vector(b)
        parts = _forward(backend, real_channels(x), real_filters(w, conjugate=True), b, real_sizes(sizes))
        return complex_channels(parts, x)
    arrays = as_image(x), as_image(w), b, sizes
    if precision is not None:
        y = backend.conv_transpose.transposed(*arrays, precision=precision)
    else:
        y = backend.conv_transpose_forward(*arrays)
    return with_axes_of(x, y)


def _backward(
    backend: ModuleType,
    dy: Any,
    x: Any,
    w: Any,
    sizes: ConvSizes | VolumeConvSizes,
    wanted: dict[str, bool],
    precision: str | None = None,
) -> tuple[Any, Any, Any]:
    """Return dx, dw and db as far as they are wanted, where all is checked."""
    if x.dtype in COMPLEX:
        real_arrays = real_channels(dy), real_channels(x), real_filters(w, conjugate=True)
        dx, dw, db = _backward(backend, *real_arrays, real_sizes(sizes), wanted)
        return (
            None if dx is None else complex_channels(dx, x),
            None if dw is None else complex_filters(dw, w.dtype, conjugate=True),
            None if db is None else complex_vector(db, w.dtype),
        )
    images = as_image(dy), as_image(x), as_image(w)
    if precision is not None:
        dx, dw, db = backend.conv_transpose.transposed_gradients(*images, sizes, **wanted, precision=precision)
    else:
        dx, dw, db = backend.conv_transpose_backward(*images, sizes, **wanted)
    return with_axes_of(x, dx), with_axes_of(w, dw), db
