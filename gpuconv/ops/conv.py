"""Convolution (cross-correlation, as every framework means it) of signals, images and volumes: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .. import checks
from ..backend import backend_of, on_gpu
from ..elsewhere import says_ours
from ..shapes import ConvSizes, VolumeConvSizes, as_image, check_count, conv_sizes, warn_of_turned_filters, with_axes_of
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
class ConvCache(Cache):
    """What conv_backward needs: the inputs, by reference (change them and the gradient changes with them)."""

    x: Any
    w: Any
    has_bias: bool
    sizes: ConvSizes | VolumeConvSizes
    marks: dict[str, bytes] | None
    precision: str | None = None


@says_ours(kernel_size="the shape of w says the window")
def conv_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    pad: int | str | tuple[int | tuple[int, int], ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    precision: str | None = None,
) -> tuple[Array, ConvCache]:
    """Correlate a batch of images, or of signals or volumes, with a bank of filters; return (y, cache).

    x: (N, C, H, W)     w: (K, C / groups, R, S)      b: (K,) or None   ->   y: (N, K, P, Q)
    x: (N, C, L)        w: (K, C / groups, S)         b: (K,) or None   ->   y: (N, K, Q)
    x: (N, C, D, H, W)  w: (K, C / groups, T, R, S)   b: (K,) or None   ->   y: (N, K, Z, P, Q)
    with P = (H + 2 pad - dilation (R - 1) - 1) // stride + 1, and the other axes likewise.

    stride, pad (zeros on every side; others call it padding) and dilation are an int, or a tuple of one for each axis
    after the channels: (vertical, horizontal) for images.  An axis may have a pair (before, after) of its own in pad:
    ((1, 1), (0, 1)) for images, ((1, 0),) for signals.  pad="same" is what leaves the size as it is with stride=1,
    dilation (R - 1) in all; of an odd number the last zero lies behind.
    The shape of w says the window: there is no kernel_size.  All arrays share one dtype (float16 is summed in float32; so is bfloat16, on a GPU)
    and one place; y has the dtype and memory format of x.

    complex64 and complex128 are taken, too.  w is not conjugated.  Each part of y is one sum of real products, in which
    inf * 0 is NaN between parts as well: as in products of NumPy's complex numbers.

    In float32, and in the parts of complex64, a result is held to an error of 8 u S where data are zero-mean and of one
    size, and of (4 + 2 sqrt(n)) u S for any, and its own rounding: u = 2^-24, n the number of terms of its sum, S the
    sum of their absolute values.  What that assumes where 3x3 filters go Winograd's way stands in
    gpuconv/cpu/evenness.py.

    precision="tf32" is leave to round each factor of a product, of float32 arrays on a GPU of compute capability 8.0
    or later, to the 11 bits of TF32, here and in conv_backward; sums stay float32.  A result is then held to the error
    above and (3 v + v v) S, v = 2^-11: each factor is off by v of itself, and what tensor cores cut off a sum is less
    than v of it.  Sizes that no kernel for tensor cores serves are computed in float32 as without: volumes, sums of
    more than 8192 terms in y and dx, groups whose channels are no multiple of 4, fewer than 16 channels of a result,
    windows of more than 15 rows or columns.

    Raises ShapeError, ParamError, DTypeError, ArgTypeError, DeviceMismatchError, or UnsupportedError where precision is
    given and cannot be had, before any work.

    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> w = np.ones((1, 1, 3, 3))
    >>> y, cache = gpuconv.conv_forward(x, w, pad=1, stride=2)
    >>> y[0, 0]
    array([[10., 24.],
           [51., 90.]])
    """
    checks.given(x=x, w=w)
    backend = backend_of(x=x, w=w, b=b)
    checks.common_dtype((*checks.FLOATS, *COMPLEX), x=x, w=w, b=b)
    precision = _precision.check(precision, x)
    sizes = conv_sizes(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups)
    if w.ndim == 4:
        warn_of_turned_filters(w, stacklevel=3)  # where conv_forward is called, behind `says_ours`
    if x.dtype in COMPLEX:
        check_count("parts of y", real_sizes(sizes).out, f"x {tuple(x.shape)}")
    y = _forward(backend, x, w, b, sizes, precision)
    return y, ConvCache(x, w, b is not None, sizes, checks.mark(x=x, w=w), precision)


def conv_backward(
    dy: Array, cache: ConvCache, *, input_grad: bool = True, weight_grad: bool = True
) -> tuple[Gradient[Array], Gradient[Array], Gradient[Array]]:
    """Return (dx, dw, db), the gradients of sum(dy * y) for conv_forward's inputs, in their shapes.

    dy: (N, K, P, Q)   ->   dx: (N, C, H, W)   dw: (K, C / groups, R, S)   db: (K,)

    dy of signals and volumes has the shape of their y.  Of complex arrays the gradient is dL/dRe + i dL/dIm, as in
    PyTorch, of a real loss L whose gradient dy is the same for y: dx and dw are sums of dy times conjugates.

    dx is None with input_grad=False (the first layer of a net needs none), dw with weight_grad=False (filters that stay
    as they are); db is None where forward had no b.

    >>> x, w = np.ones((2, 3, 8, 8)), np.ones((4, 3, 3, 3))
    >>> y, cache = gpuconv.conv_forward(x, w, np.zeros(4))
    >>> dx, dw, db = gpuconv.conv_backward(np.ones_like(y), cache)
    >>> dx.shape, dw.shape, db
    ((2, 3, 8, 8), (4, 3, 3, 3), array([72., 72., 72., 72.]))
    """
    backend, x, w, z = _checked(dy, cache)
    input_grad = checks.flag("input_grad", input_grad)
    weight_grad = checks.flag("weight_grad", weight_grad)
    wanted = {"input_grad": input_grad, "weight_grad": weight_grad, "bias_grad": cache.has_bias}
    return _backward(backend, dy, x, w, z, wanted, cache.precision)


def conv_backward_into(
    dy: Any,
    cache: ConvCache,
    dw: Any,
    db: Any,
    *,
    input_grad: bool = True,
    plus: Any = None,
    mask: Any = None,
) -> Any:
    """Return dx as conv_backward does, and fill dw and db: what a net keeps; dw may be None, db is where there is no b.

    On a GPU they are C-contiguous, and of images are written where they lie.  Beside 16 bits they may be float32: the
    sums as they are, not rounded.   plus: of images on a GPU, an array that is added to dx, where the mask of a
    fused_forward is set unless it is None.
    """
    backend, x, w, z = _checked(dy, cache)
    input_grad = checks.flag("input_grad", input_grad)
    if on_gpu(x) and x.ndim == 4 and x.dtype not in COMPLEX:
        how = {"input_grad": input_grad, "precision": cache.precision, "plus": plus, "mask": mask}
        return backend.conv.conv_backward_into(dy, x, w, z, dw, db, **how)
    assert plus is None

    def backward(dy: Any, x: Any, w: Any, wanted: dict[str, bool]) -> tuple[Any, Any, Any]:
        return _backward(backend, dy, x, w, z, wanted, cache.precision)

    return parameters_into(backward, dy, x, w, dw, db, input_grad=input_grad)


def _checked(dy: Any, cache: Any) -> tuple[ModuleType, Any, Any, Any]:
    """Return the backend, and x, w and sizes, where dy belongs to them."""
    checks.cache_of(cache, ConvCache, "conv_forward")
    x, w, z = cache.x, cache.w, cache.sizes
    backend = backend_of(dy=dy, x=x)
    _check_upstream(dy, z, x)
    checks.unchanged(cache.marks, x=x, w=w)
    return backend, x, w, z


def _forward(
    backend: ModuleType, x: Any, w: Any, b: Any, sizes: ConvSizes | VolumeConvSizes, precision: str | None = None
) -> Any:
    """Return y, where all is checked."""
    if x.dtype in COMPLEX:
        b = None if b is None else real_vector(b)
        parts = _forward(backend, real_channels(x), real_filters(w), b, real_sizes(sizes))
        return complex_channels(parts, x)
    if precision is not None:
        y = backend.conv.convolve(as_image(x), as_image(w), b, sizes, relu=False, precision=precision)
    else:
        y = backend.conv_forward(as_image(x), as_image(w), b, sizes)
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
        real_arrays = real_channels(dy), real_channels(x), real_filters(w)
        dx, dw, db = _backward(backend, *real_arrays, real_sizes(sizes), wanted)
        return (
            None if dx is None else complex_channels(dx, x),
            None if dw is None else complex_filters(dw, w.dtype),
            None if db is None else complex_vector(db, w.dtype),
        )
    images = as_image(dy), as_image(x), as_image(w)
    if precision is not None:
        dx, dw, db = backend.conv.gradients(*images, sizes, **wanted, precision=precision)
    else:
        dx, dw, db = backend.conv_backward(*images, sizes, **wanted)
    return with_axes_of(x, dx), with_axes_of(w, dw), db


def input_gradient(
    dy: Any,
    w: Any,
    like: Any,
    *,
    stride: Any = 1,
    pad: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    precision: str | None = None,
) -> Any:
    """Return dx alone, for an x that nobody has: the transposed convolution of dy.

    like: an array of the shape, dtype and memory format of x; its numbers are not read.  precision: as in conv_forward.
    Raises what conv_forward and conv_backward raise, before any work.
    """
    geometry = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    return _gradients(dy, like, w, geometry, precision, input_grad=True, weight_grad=False)[0]


def weight_gradient(
    dy: Any,
    x: Any,
    like: Any,
    *,
    stride: Any = 1,
    pad: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    precision: str | None = None,
) -> Any:
    """Return dw alone, for filters that nobody has.

    like: an array of the shape and dtype of w; its numbers are not read.  precision: as in conv_forward.
    Raises what conv_forward and conv_backward raise, before any work.
    """
    geometry = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    return _gradients(dy, x, like, geometry, precision, input_grad=False, weight_grad=True)[1]


def _gradients(
    dy: Any, x: Any, w: Any, geometry: dict[str, Any], precision: Any, **wanted: bool
) -> tuple[Any, Any, Any]:
    checks.given(dy=dy, x=x, w=w)
    backend = backend_of(dy=dy, x=x, w=w)
    checks.common_dtype((*checks.FLOATS, *COMPLEX), x=x, w=w)
    precision = _precision.check(precision, x)
    sizes = conv_sizes(x, w, None, **geometry)
    _check_upstream(dy, sizes, x)
    return _backward(backend, dy, x, w, sizes, {**wanted, "bias_grad": False}, precision)


def _check_upstream(dy: Any, sizes: ConvSizes | VolumeConvSizes, x: Any) -> None:
    checks.upstream(dy, sizes.out if x.ndim > 3 else sizes.out[:2] + sizes.out[3:], x.dtype)
