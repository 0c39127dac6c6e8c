"""2-D convolution (cross-correlation, as every framework means it): what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import checks
from ..backend import backend_of, zeros_beside
from ..shapes import ConvSizes, conv_sizes


@dataclass(frozen=True, slots=True, eq=False)
class ConvCache:
    """What conv_backward needs: the inputs, by reference (change them and the gradient changes with them)."""

    x: Any
    w: Any
    has_bias: bool
    sizes: ConvSizes
    marks: dict[str, bytes] | None


def conv_forward(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, pad: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[Any, ConvCache]:
    """Correlate a batch of images with a bank of filters; return (y, cache).

    x: (N, C, H, W)   w: (K, C / groups, R, S)   b: (K,) or None   ->   y: (N, K, P, Q)
    with P = (H + 2 pad - dilation (R - 1) - 1) // stride + 1, and Q likewise from W and S.

    stride, pad (zeros on every side; others call it padding) and dilation are an int or a pair (vertical, horizontal).
    The shape of w says the window: there is no kernel_size.  All arrays share one dtype (float16 is summed in float32)
    and one place; y has the dtype and memory format of x.

    In float32 a result is held to an error of 8 u S where data are zero-mean and of one size, and of (4 + 2 sqrt(n)) u S
    for any, and its own rounding: u = 2^-24, n the number of terms of its sum, S the sum of their absolute values.  What
    that assumes where 3x3 filters go Winograd's way stands in gpuconv/cpu/evenness.py.

    Raises ShapeError, ParamError, DTypeError, ArgTypeError or DeviceMismatchError before any work.
    """
    checks.given(x=x, w=w)
    backend = backend_of(x=x, w=w, b=b)
    checks.common_dtype(x=x, w=w, b=b)
    sizes = conv_sizes(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups)
    y = backend.conv_forward(x, w, b, sizes)
    return y, ConvCache(x, w, b is not None, sizes, checks.mark(x=x, w=w))


def conv_backward(dy: Any, cache: ConvCache, *, input_grad: bool = True) -> tuple[Any, Any, Any]:
    """Return (dx, dw, db), the gradients of sum(dy * y) for conv_forward's inputs.

    dy: (N, K, P, Q)   ->   dx: (N, C, H, W)   dw: (K, C / groups, R, S)   db: (K,)

    dx is None with input_grad=False (the first layer of a net needs none); db is None where forward had no b.
    """
    checks.cache_of(cache, ConvCache, "conv_forward")
    backend = backend_of(dy=dy, x=cache.x)
    z = cache.sizes
    checks.upstream(dy, (z.N, z.K, z.P, z.Q), cache.x.dtype)
    checks.unchanged(cache.marks, x=cache.x, w=cache.w)
    input_grad = checks.flag("input_grad", input_grad)
    return backend.conv_backward(dy, cache.x, cache.w, z, input_grad=input_grad, bias_grad=cache.has_bias)


def input_gradient(
    dy: Any, w: Any, shape_of_x: tuple[int, ...], *, stride: Any = 1, pad: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """Return dx alone, for an x that nobody holds: the transposed convolution of dy.

    Raises what conv_forward raises, before any work.
    """
    checks.given(dy=dy, w=w)
    backend = backend_of(dy=dy, w=w)
    dtype = checks.common_dtype(dy=dy, w=w)
    x = zeros_beside(tuple(shape_of_x), dy)
    sizes = conv_sizes(x, w, None, stride=stride, pad=pad, dilation=dilation, groups=groups)
    checks.upstream(dy, (sizes.N, sizes.K, sizes.P, sizes.Q), dtype)
    dx, _, _ = backend.conv_backward(dy, x, w, sizes, input_grad=True, bias_grad=False)
    return dx


def weight_gradient(
    dy: Any, x: Any, shape_of_w: tuple[int, ...], *, stride: Any = 1, pad: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """Return dw alone, for a w that nobody holds.

    Raises what conv_forward raises, before any work.
    """
    checks.given(dy=dy, x=x)
    backend = backend_of(dy=dy, x=x)
    dtype = checks.common_dtype(dy=dy, x=x)
    w = zeros_beside(tuple(shape_of_w), x)
    sizes = conv_sizes(x, w, None, stride=stride, pad=pad, dilation=dilation, groups=groups)
    checks.upstream(dy, (sizes.N, sizes.K, sizes.P, sizes.Q), dtype)
    _, dw, _ = backend.conv_backward(dy, x, w, sizes, input_grad=False, bias_grad=False)
    return dw
