"""Pooling with cuDNN's conventions: y says how many windows there are, and NaN loses.

The input is copied into an array in which every window lies whole, so that any padding is part of it.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..backend import asarray, backend_of, copy, quiet, zeros
from ..ops.average_pool import average_pool_backward, average_pool_forward
from ..ops.max_pool import max_pool_backward, max_pool_forward
from .constants import (
    CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING,
    CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING,
    CUDNN_POOLING_MAX,
    CUDNN_POOLING_MAX_DETERMINISTIC,
)
from .errors import BAD_PARAM, CuDNNError

_MAXIMA = (CUDNN_POOLING_MAX, CUDNN_POOLING_MAX_DETERMINISTIC)
_AVERAGES = (CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING, CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING)


@quiet
def pooling_forward(
    x: Any, y: Any, ksize: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...], mode: int
) -> Any:
    """Pool x, of one to three axes after the channels, into y, which must be C-contiguous; return y.

    Whatever y held is overwritten.  A window without a number has -inf for its maximum, and 0 for its average where it
    lies wholly in the padding.
    """
    _check(ksize, stride, pad, mode, x=x, y=y)
    if not y.flags.c_contiguous:
        msg = f"y must be C-contiguous, got strides {y.strides}: pass an array made by empty"
        raise ValueError(msg)
    if not y.size:
        return y
    padded = _padded(x, y, ksize, stride, pad, mode)
    if mode in _MAXIMA:
        result, _ = max_pool_forward(padded, window=ksize, stride=stride)
    else:
        result, _ = average_pool_forward(padded, window=ksize, stride=stride)
        if mode == CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING:
            result = result * _shares(x, y, ksize, stride, pad, result)
    copy(result.astype(y.dtype, copy=False), y)
    return y


@quiet
def pooling_backward(
    x: Any, y: Any, gy: Any, ksize: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...], mode: int
) -> Any:
    """Return the gradient for x.  That of a maximum goes to the first of equals, in row order; that of -inf to none."""
    _check(ksize, stride, pad, mode, x=x, y=y, gy=gy)
    if tuple(gy.shape) != tuple(y.shape):
        raise CuDNNError(BAD_PARAM, f"gy must have the shape of y, {tuple(y.shape)}, got {tuple(gy.shape)}")
    gx = zeros(tuple(x.shape), x.dtype, beside=x)
    if not y.size or not x.size:
        return gx
    padded = _padded(x, y, ksize, stride, pad, mode)
    if mode in _MAXIMA:
        maxima, cache = max_pool_forward(padded, window=ksize, stride=stride)
        gy = gy.copy()
        gy[maxima == -np.inf] = 0
        gradient = max_pool_backward(gy, cache)
    else:
        _, cache_of_average = average_pool_forward(padded, window=ksize, stride=stride)
        gy = gy.astype(padded.dtype, copy=False)
        if mode == CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING:
            gy = gy * _shares(x, y, ksize, stride, pad, gy)
        gradient = average_pool_backward(gy, cache_of_average)
    inside, within = _common(x, padded, pad)
    gx[inside] = gradient[within].astype(x.dtype, copy=False)
    return gx


def _check(ksize: Any, stride: Any, pad: Any, mode: int, **arrays: Any) -> None:
    backend_of(**arrays)
    x, y = arrays["x"], arrays["y"]
    if x.dtype.char not in "efd":
        msg = f"x must be float16, float32 or float64, got {x.dtype}"
        raise TypeError(msg)
    for name, option in {"ksize": ksize, "stride": stride, "pad": pad}.items():
        if not isinstance(option, tuple):
            msg = f"{name} must be a tuple, got {option!r}"
            raise TypeError(msg)
        if len(option) != len(ksize):
            msg = f"{name} must have as many entries as ksize, {len(ksize)}, got {option}"
            raise ValueError(msg)
    shown = [f"{name}: shape={tuple(a.shape)}, dtype={a.dtype}" for name, a in arrays.items()]
    if mode not in _MAXIMA + _AVERAGES:
        raise CuDNNError(BAD_PARAM, f"mode must be 0, 1, 2 or 3, got {mode!r}")
    if min(*ksize, *stride, 1) < 1 or min(*pad, 0) < 0:
        raise CuDNNError(BAD_PARAM, f"ksize={ksize} and stride={stride} must be positive, pad={pad} not negative")
    if not 1 <= len(ksize) <= 3 or any(a.ndim != len(ksize) + 2 for a in arrays.values()):
        raise CuDNNError(BAD_PARAM, f"arrays must have as many axes as ksize={ksize}, of one to three, and two", *shown)
    if tuple(y.shape[:2]) != tuple(x.shape[:2]) or len({a.dtype for a in arrays.values()}) > 1:
        raise CuDNNError(BAD_PARAM, "arrays must share batch, channels and dtype", *shown)


def _padded(x: Any, y: Any, ksize: Any, stride: Any, pad: Any, mode: int) -> Any:
    """Return a copy of what y's windows cover of x, amid padding; without NaN for maxima, for averages not in float16."""
    windows = zip(y.shape[2:], ksize, stride, strict=True)
    covered = tuple((count - 1) * step + size for count, size, step in windows)
    excluding = mode == CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING
    dtype = np.dtype(np.float32) if excluding and x.dtype == np.float16 else x.dtype
    padded = zeros((*x.shape[:2], *covered), dtype, beside=x)
    if mode in _MAXIMA:
        padded.fill(-np.inf)
        x = np.fmax(x, -np.inf)
    inside, within = _common(x, padded, pad)
    padded[within] = x[inside]
    return padded


def _common(x: Any, padded: Any, pad: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the places in x, and in its padded copy, of what both hold."""
    sizes = [max(0, min(n, m - p)) for n, m, p in zip(x.shape[2:], padded.shape[2:], pad, strict=True)]
    inside = (..., *(slice(size) for size in sizes))
    return inside, (..., *(slice(p, p + size) for size, p in zip(sizes, pad, strict=True)))


def _shares(x: Any, y: Any, ksize: Any, stride: Any, pad: Any, beside: Any) -> Any:
    """Return, for each of y's windows, its size over the number of entries of x in it (1 where there are none)."""
    count = np.ones((), np.int64)
    for axis in zip(x.shape[2:], y.shape[2:], ksize, stride, pad, strict=True):
        count = np.multiply.outer(count, _entries(*axis))
    return asarray((prod(ksize) / np.maximum(count, 1)).astype(beside.dtype), beside=beside)


def _entries(size: int, windows: int, ksize: int, stride: int, pad: int) -> np.ndarray:
    """Return how many of an axis' entries lie under each window."""
    first = np.arange(windows) * stride - pad
    return np.maximum(np.minimum(first + ksize, size) - np.maximum(first, 0), 0)
