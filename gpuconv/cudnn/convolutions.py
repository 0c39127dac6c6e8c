"""Convolution and its gradients, into arrays that the caller made."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of, copy
from ..errors import ParamError, ShapeError
from ..ops.conv import conv_forward, input_gradient, weight_gradient
from .constants import CUDNN_TENSOR_NCHW, CUDNN_TENSOR_NHWC
from .errors import BAD_PARAM, CuDNNError


def convolution_forward(
    x: Any,
    W: Any,
    b: Any,
    y: Any,
    pad: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...] | None,
    groups: int,
    *,
    auto_tune: bool,
    tensor_core: str,
    d_layout: int = CUDNN_TENSOR_NCHW,
    w_layout: int = CUDNN_TENSOR_NCHW,
) -> None:
    """Write x correlated with W, and b added, into y, which must be C-contiguous: whatever it held is overwritten.

    auto_tune and tensor_core choose among cuDNN's algorithms, which are not here: they are checked, and change nothing.
    """
    options = _options(pad, stride, dilation, groups, tensor_core, "y", y, x=x, W=W, b=b)
    data, filters = _view(x, d_layout, "d_layout"), _view(W, w_layout, "w_layout")
    target = _view(y, d_layout, "d_layout")
    _fill(target, lambda: conv_forward(data, filters, b, **options)[0], pad, stride, x=x, W=W, b=b, y=y)


def convolution_backward_data(
    W: Any,
    x: Any,
    b: Any,
    y: Any,
    pad: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...] | None,
    groups: int,
    *,
    deterministic: bool,
    auto_tune: bool,
    tensor_core: str,
    d_layout: int = CUDNN_TENSOR_NCHW,
    w_layout: int = CUDNN_TENSOR_NCHW,
) -> None:
    """Write the gradient for a convolution's input into y; x is the upstream gradient, b is added to every channel.

    Every result is reproducible, so that deterministic, too, changes nothing.
    """
    options = _options(pad, stride, dilation, groups, tensor_core, "y", y, x=x, W=W, b=b)
    upstream, filters = _view(x, d_layout, "d_layout"), _view(W, w_layout, "w_layout")
    target = _view(y, d_layout, "d_layout")
    if b is not None and tuple(b.shape) != (target.shape[1],):
        raise CuDNNError(BAD_PARAM, *_lines(x=x, W=W, b=b, y=y))

    def gradient() -> Any:
        if b is None:
            return input_gradient(upstream, filters, target, **options)
        wide = np.promote_types(target.dtype, np.float32)  # so that a sum in float16 is rounded once, with b in it
        arrays = (array.astype(wide, copy=False) for array in (upstream, filters, target))
        dx = input_gradient(*arrays, **options) + _per_channel(b, target).astype(wide)
        return dx.astype(target.dtype, copy=False)

    _fill(target, gradient, pad, stride, x=x, W=W, b=b, y=y)


def convolution_backward_filter(
    x: Any,
    gy: Any,
    gW: Any,
    pad: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...] | None,
    groups: int,
    *,
    deterministic: bool,
    auto_tune: bool,
    tensor_core: str,
    d_layout: int = CUDNN_TENSOR_NCHW,
    w_layout: int = CUDNN_TENSOR_NCHW,
) -> None:
    """Write the gradient for a convolution's filters into gW, which must be C-contiguous."""
    options = _options(pad, stride, dilation, groups, tensor_core, "gW", gW, x=x, gy=gy)
    data, upstream = _view(x, d_layout, "d_layout"), _view(gy, d_layout, "d_layout")
    target = _view(gW, w_layout, "w_layout")
    _fill(target, lambda: weight_gradient(upstream, data, target, **options), pad, stride, x=x, gy=gy, gW=gW)


def _options(
    pad: Any, stride: Any, dilation: Any, groups: int, tensor_core: str, name: str, output: Any, **inputs: Any
) -> dict[str, Any]:
    """Return the options as ours, when arrays and options are what cupy.cudnn took."""
    backend_of(**inputs, **{name: output})
    for each in ("x", "W", "gy"):
        if (array := inputs.get(each)) is not None and array.dtype.char not in "efd":
            msg = f"{each} must be float16, float32 or float64, got {array.dtype}"
            raise TypeError(msg)
    dilation = (1,) * len(pad) if dilation is None else dilation
    for option, value in {"pad": pad, "stride": stride, "dilation": dilation}.items():
        if not isinstance(value, tuple):
            msg = f"{option} must be a tuple, got {value!r}"
            raise TypeError(msg)
        if len(value) != len(pad):
            msg = f"{option} must have as many entries as pad, {len(pad)}, got {value}"
            raise ValueError(msg)
    if tensor_core not in ("auto", "always", "never"):
        msg = f'tensor_core must be "auto", "always" or "never", got {tensor_core!r}'
        raise ValueError(msg)
    if not output.flags.c_contiguous:
        msg = f"{name} must be C-contiguous, got strides {output.strides}: pass an array made by empty"
        raise ValueError(msg)
    arrays = {**inputs, name: output}
    if len({a.dtype for a in arrays.values() if a is not None}) > 1:
        raise CuDNNError(BAD_PARAM, *_lines(**arrays))
    return {"pad": pad, "stride": stride, "dilation": dilation, "groups": groups}


def _view(array: Any, layout: int, name: str) -> Any:
    """Return an array with its channels second; a layout says something of arrays of four axes only."""
    if layout not in (CUDNN_TENSOR_NCHW, CUDNN_TENSOR_NHWC):
        msg = f"{name} must be 0 (NCHW) or 1 (NHWC), got {layout!r}"
        raise ValueError(msg)
    return array.transpose(0, 3, 1, 2) if layout == CUDNN_TENSOR_NHWC and array.ndim == 4 else array


def _fill(target: Any, compute: Any, pad: Any, stride: Any, **arrays: Any) -> None:
    """Write a result into the caller's array, once it is whole: inputs may share memory with it.

    Sums of no terms are 0, and no arithmetic is done for them.
    """
    if any(array is not None and 0 in array.shape[1:] for array in arrays.values()):
        b = arrays.get("b")
        target[...] = 0 if b is None or b.size == 0 else _per_channel(b, target)
        return
    try:
        result = compute()
    except (ParamError, ShapeError) as error:
        raise CuDNNError(BAD_PARAM, str(error), *_lines(**arrays), f"pad={pad}, stride={stride}") from error
    if tuple(result.shape) != tuple(target.shape):
        needed = f"the output must be {tuple(result.shape)}, got {tuple(target.shape)}"
        raise CuDNNError(BAD_PARAM, needed, *_lines(**arrays), f"pad={pad}, stride={stride}")
    copy(result, target)


def _per_channel(b: Any, target: Any) -> Any:
    return b.reshape((1, -1) + (1,) * (target.ndim - 2))


def _lines(**arrays: Any) -> list[str]:
    return [
        f"{name}: shape={tuple(a.shape)}, dtype={np.dtype(a.dtype)}, strides={a.strides}"
        for name, a in arrays.items()
        if a is not None
    ]
