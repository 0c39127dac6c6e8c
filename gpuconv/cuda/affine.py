"""The fully connected layer: matrix products by the device's library, the rest by kernels/affine.cu, arithmetic.cu and reduce.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arithmetic import cast, cast_into
from .copy import contiguous, copy_into
from .device import Device, device_of
from .kernel import Kernel, cover
from .layout import index_type
from .reduce import channel_sums_into, sum_type

_BIAS = Kernel("affine.cu", "affine_forward_bias")


def affine_forward(x: Any, w: Any, b: Any) -> Any:
    return forward(x, w, b, precision=None)


def forward(x: Any, w: Any, b: Any, *, precision: str | None) -> Any:
    """Return affine_forward(x, w, b); precision "tf32": cuBLAS may round factors to it."""
    device = device_of(x)
    dtype, columns = x.dtype, w.shape[1]
    product = _product(device, _rows(x, w), w, precision)
    if b is None:
        return _narrow(product, dtype)
    y = product if product.dtype == dtype else device.empty(tuple(product.shape), dtype)
    templates = dtype, index_type(product.size)
    _BIAS(device, templates, cover(device, product.size), product, contiguous(b), y, columns, product.size)
    return y


def affine_backward(dy: Any, x: Any, w: Any, *, input_grad: bool, bias_grad: bool) -> tuple[Any, Any, Any]:
    return gradients(dy, x, w, input_grad=input_grad, bias_grad=bias_grad, precision=None)


def gradients(
    dy: Any, x: Any, w: Any, *, input_grad: bool, bias_grad: bool, precision: str | None
) -> tuple[Any, Any, Any]:
    """Return dx, dw and db, as far as they are wanted; precision: as in forward."""
    device = device_of(x)
    dw = device.empty(tuple(w.shape), w.dtype)
    db = device.empty((w.shape[1],), w.dtype) if bias_grad else None
    return affine_backward_into(dy, x, w, dw, db, input_grad=input_grad, precision=precision), dw, db


def affine_backward_into(
    dy: Any, x: Any, w: Any, dw: Any, db: Any, *, input_grad: bool, precision: str | None = None
) -> Any:
    """Return dx, and fill dw and db, C-contiguous; db None for none."""
    device = device_of(x)
    rows, wide = _rows(x, w).transpose(1, 0), _widened(dy)
    if dw.dtype == sum_type(w.dtype) and rows.shape[1]:
        device.matmul(_widened(rows), wide, dw, tf32=precision is not None)
    elif dw.dtype == sum_type(w.dtype):
        copy_into(dw, _product(device, rows, wide, precision))
    else:
        cast_into(_product(device, rows, wide, precision), dw)
    if db is not None:
        channel_sums_into(dy, db)
    if not input_grad:
        return None
    dx = _product(device, wide, w.transpose(1, 0), precision)
    return _narrow(dx, x.dtype).reshape(tuple(x.shape))


def _rows(x: Any, w: Any) -> Any:
    """Return x as one row a sample, in row order of its shape whatever its memory format."""
    return contiguous(x).reshape((x.shape[0], w.shape[0]))


def _product(device: Device, a: Any, b: Any, precision: str | None) -> Any:
    """Return a @ b in the type of its sums."""
    kind = sum_type(a.dtype)
    shape = a.shape[0], b.shape[1]
    if a.shape[1] == 0:
        return device.zeros(shape, kind)
    out = device.empty(shape, kind)
    if out.size:
        device.matmul(_widened(a), _widened(b), out, tf32=precision is not None)
    return out


def _widened(a: Any) -> Any:
    """Return a matrix in the type of its sums, itself or a copy: a product of 16 bits would be rounded before the bias."""
    kind = sum_type(a.dtype)
    if a.dtype == kind:
        return a
    turned = not a.flags.c_contiguous and a.transpose(1, 0).flags.c_contiguous
    a = a.transpose(1, 0) if turned else contiguous(a)
    out = cast(a, kind)
    return out.transpose(1, 0) if turned else out


def _narrow(a: Any, dtype: np.dtype) -> Any:
    """Return an array rounded to a dtype, itself if it has it."""
    return a if a.dtype == dtype else cast(a, dtype)
