"""Launches of transposed convolution: those of convolution, whose backward it does forward."""

from __future__ import annotations

from typing import Any

from ..shapes import ConvSizes, is_channels_last
from .conv import Sizes, bias_gradient, correlate, data_gradient, images, weight_gradient
from .copy import contiguous
from .device import device_of
from .layout import stored


def conv_transpose_forward(x: Any, w: Any, b: Any, sizes: Sizes) -> Any:
    return transposed(x, w, b, sizes)


def conv_transpose_backward(
    dy: Any, x: Any, w: Any, sizes: Sizes, *, input_grad: bool, weight_grad: bool, bias_grad: bool
) -> tuple[Any, Any, Any]:
    wanted = {"input_grad": input_grad, "weight_grad": weight_grad, "bias_grad": bias_grad}
    return transposed_gradients(dy, x, w, sizes, **wanted, precision=None)


def transposed(x: Any, w: Any, b: Any, sizes: Sizes, *, precision: str | None = None) -> Any:
    """Return what a convolution of these sizes sends back of an x in the place of dy, and b: in the memory format of x."""
    device = device_of(x)
    b = None if b is None else contiguous(b)
    return data_gradient(device, x, w, sizes, precision, channels_last=is_channels_last(x), b=b)


def transposed_gradients(
    dy: Any,
    x: Any,
    w: Any,
    sizes: Sizes,
    *,
    input_grad: bool,
    weight_grad: bool,
    bias_grad: bool,
    precision: str | None,
) -> tuple[Any, Any, Any]:
    """Return the gradients of `transposed`, as far as they are wanted."""
    device = device_of(x)
    dw = device.empty(tuple(w.shape), w.dtype) if weight_grad else None
    db = device.empty((sizes.C,), w.dtype) if bias_grad else None
    dx = transposed_gradients_into(dy, x, w, sizes, dw, db, input_grad=input_grad, precision=precision)
    return dx, dw, db


def transposed_gradients_into(
    dy: Any, x: Any, w: Any, sizes: Sizes, dw: Any, db: Any, *, input_grad: bool, precision: str | None = None
) -> Any:
    """Return the dx of `transposed`, in the memory format of x, and fill dw and db, C-contiguous or None."""
    device, channels_last = device_of(x), is_channels_last(x)
    dy_stored = stored(dy, channels_last=channels_last)
    dy = images(dy_stored, channels_last=channels_last)
    if dw is not None:
        weight_gradient(device, x, dy, dw, sizes, precision)
    if db is not None:
        bias_gradient(device, dy_stored, db, sizes.image, channels_last=channels_last)
    if not input_grad:
        return None
    return correlate(dy, w, None, sizes, (False,) if isinstance(sizes, ConvSizes) else (), precision)
