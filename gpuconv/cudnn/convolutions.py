"""Convolution and its gradients, into arrays that the caller made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import backend_of, copy
from ..ops.conv import conv_forward, input_gradient, weight_gradient
from ..shapes import out_size
from ..typing import AnyArray
from .checks import c_contiguous, channels_second, floats, layout, lines, one_dtype, tuples
from .constants import CUDNN_TENSOR_NCHW
from .errors import BAD_PARAM, CuDNNError


def convolution_forward(
    x: AnyArray,
    W: AnyArray,
    b: AnyArray | None,
    y: AnyArray,
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

    auto_tune and tensor_core choose among cuDNN's algorithms, which are not here: they change nothing.

    >>> x, w, b = np.arange(9.0).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2)), np.array([100.0])
    >>> y = np.empty((1, 1, 2, 2))
    >>> cudnn.convolution_forward(x, w, b, y, (0, 0), (1, 1), (1, 1), 1, auto_tune=True, tensor_core="auto")
    >>> y[0, 0]
    array([[108., 112.],
           [120., 124.]])
    """
    arrays = {"x": x, "W": W, "b": b, "y": y}
    options = _options(arrays, "y", pad, stride, dilation, groups, tensor_core, d_layout, w_layout)
    data, result = channels_second(x, d_layout), channels_second(y, d_layout)
    filters = channels_second(W, w_layout)
    _check_sizes(arrays, options, data, filters, result, biased=result)
    _fill(result, lambda: conv_forward(data, filters, b, **options)[0], data, filters, b=b)


def convolution_backward_data(
    W: AnyArray,
    x: AnyArray,
    b: AnyArray | None,
    y: AnyArray,
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

    >>> w, upstream, dx = np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)), np.empty((1, 1, 3, 3))
    >>> how = {"deterministic": True, "auto_tune": True, "tensor_core": "auto"}
    >>> cudnn.convolution_backward_data(w, upstream, None, dx, (0, 0), (1, 1), (1, 1), 1, **how)
    >>> dx[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    arrays = {"W": W, "x": x, "b": b, "y": y}
    options = _options(arrays, "y", pad, stride, dilation, groups, tensor_core, d_layout, w_layout)
    upstream, data = channels_second(x, d_layout), channels_second(y, d_layout)
    filters = channels_second(W, w_layout)
    _check_sizes(arrays, options, data, filters, upstream, biased=data)

    def gradient() -> Any:
        if b is None:
            return input_gradient(upstream, filters, data, **options)
        wide = np.promote_types(data.dtype, np.float32)  # so that a sum in float16 is rounded once, with b in it
        dx = input_gradient(*(array.astype(wide, copy=False) for array in (upstream, filters, data)), **options)
        return (dx + _per_channel(b, data).astype(wide)).astype(data.dtype, copy=False)

    _fill(data, gradient, upstream, filters, b=b)


def convolution_backward_filter(
    x: AnyArray,
    gy: AnyArray,
    gW: AnyArray,
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
    """Write the gradient for a convolution's filters into gW, which must be C-contiguous.

    >>> x, upstream, dw = np.arange(9.0).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2)), np.empty((1, 1, 2, 2))
    >>> how = {"deterministic": True, "auto_tune": True, "tensor_core": "auto"}
    >>> cudnn.convolution_backward_filter(x, upstream, dw, (0, 0), (1, 1), (1, 1), 1, **how)
    >>> dw[0, 0]
    array([[ 8., 12.],
           [20., 24.]])
    """
    arrays = {"x": x, "gy": gy, "gW": gW}
    options = _options(arrays, "gW", pad, stride, dilation, groups, tensor_core, d_layout, w_layout)
    data, upstream = channels_second(x, d_layout), channels_second(gy, d_layout)
    filters = channels_second(gW, w_layout)
    _check_sizes(arrays, options, data, filters, upstream)
    _fill(filters, lambda: weight_gradient(upstream, data, filters, **options), data, upstream)


def _options(
    arrays: dict[str, Any],
    written: str,
    pad: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...] | None,
    groups: int,
    tensor_core: str,
    d_layout: int,
    w_layout: int,
) -> dict[str, Any]:
    """Return the options as ours, when arrays and options are what cupy.cudnn took; sizes are checked apart."""
    floats(**{name: array for name, array in arrays.items() if name != "b"})
    backend_of(**arrays)
    tuples(pad=pad, stride=stride)
    dilation = (1,) * len(pad) if dilation is None else dilation
    tuples(pad=pad, dilation=dilation)
    if tensor_core not in ("auto", "always", "never"):
        msg = f'tensor_core must be "auto", "always" or "never", got {tensor_core!r}'
        raise ValueError(msg)
    layout("d_layout", d_layout)
    layout("w_layout", w_layout)
    c_contiguous(written, arrays[written])
    one_dtype(**arrays)
    return {"pad": pad, "stride": stride, "dilation": dilation, "groups": groups}


def _check_sizes(
    arrays: dict[str, Any], options: dict[str, Any], data: Any, filters: Any, result: Any, biased: Any = None
) -> None:
    """Check that a convolution of data by filters makes a result, and that b has an entry for each channel of biased.

    Any size may be 0: of windows that fit nowhere there are none.
    """
    pad, stride, dilation, groups = options.values()
    b, fault = arrays.get("b"), None
    axes = len(pad)
    if not 1 <= axes <= 3 or {array.ndim for array in (data, filters, result)} != {axes + 2}:
        fault = "arrays must have two axes more than pad has entries, which are one to three"
    elif min(*stride, *dilation, groups) < 1 or min(pad) < 0:
        fault = "stride, dilation and groups must be positive, pad not negative"
    elif data.shape[1] != filters.shape[1] * groups or filters.shape[0] % groups:
        fault = "channels must be those of a filter times groups, and groups must divide the filters"
    elif b is not None and tuple(b.shape) != (biased.shape[1],):
        fault = f"b must have shape {(biased.shape[1],)}"
    else:
        windows = zip(data.shape[2:], filters.shape[2:], stride, pad, dilation, strict=True)
        shape = (data.shape[0], filters.shape[0], *(max(0, out_size(*axis)) for axis in windows))
        if tuple(result.shape) != shape:
            fault = f"the convolution has shape {shape}, channels second, not {tuple(result.shape)}"
    if fault:
        raise CuDNNError(BAD_PARAM, fault, *lines(**arrays), ", ".join(f"{o}={value}" for o, value in options.items()))


def _fill(target: Any, compute: Callable[[], Any], *inputs: Any, b: Any = None) -> None:
    """Write a result into the caller's array, once it is whole: inputs may share memory with it.

    Sums of no terms are 0, and no arithmetic is done for them.
    """
    if all(array.size for array in (target, *inputs)):
        copy(compute(), target)
    else:
        target[...] = 0 if b is None else _per_channel(b, target)


def _per_channel(b: Any, target: Any) -> Any:
    return b.reshape((1, -1) + (1,) * (target.ndim - 2))
