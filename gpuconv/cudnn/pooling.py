"""Pooling with cuDNN's conventions: y says how many windows there are, and NaN loses.

Our pooling is given x itself, with as much padding behind it as y's windows need; but where one of them is padding alone, a
copy in which every window lies whole, so that any padding is part of it.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..backend import asarray, backend_of, copy, on_gpu, quiet, zeros
from ..pool_shapes import PoolSizes, VolumePoolSizes, pool_sizes, pool_sizes_of
from ..shapes import as_image, with_axes_of
from ..typing import AnyArray, Array
from .checks import c_contiguous, floats, lines, one_dtype, tuples
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
    x: AnyArray, y: Array, ksize: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...], mode: int
) -> Array:
    """Pool x, of one to three axes after the channels, into y, which must be C-contiguous; return y.

    Whatever y held is overwritten.  A window without a number has -inf for its maximum, and 0 for its average where it
    lies wholly in the padding.

    >>> x, y = np.arange(16.0).reshape(1, 1, 4, 4), np.empty((1, 1, 2, 2))
    >>> cudnn.pooling_forward(x, y, (2, 2), (2, 2), (0, 0), cudnn.CUDNN_POOLING_MAX)[0, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """
    _check(ksize, stride, pad, mode, x=x, y=y)
    c_contiguous("y", y)
    if not y.size:
        return y
    source, sizes, shares = _source(x, y, ksize, stride, pad, mode)
    if mode in _MAXIMA:
        result, _ = _maxima(source, sizes)
    else:
        count_pad = mode == CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING
        result = backend_of(x=source).average_pool_forward(as_image(source), sizes, count_pad=count_pad)
    result = with_axes_of(x, result)
    result = result if shares is None else result * shares
    copy(result.astype(y.dtype, copy=False), y)
    return y


@quiet
def pooling_backward(
    x: Array,
    y: AnyArray,
    gy: AnyArray,
    ksize: tuple[int, ...],
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    mode: int,
) -> Array:
    """Return the gradient for x.  That of a maximum goes to the first of equals, in row order; that of -inf to none.

    >>> x, y = np.array([[1.0, 2.0], [4.0, 3.0]]).reshape(1, 1, 2, 2), np.empty((1, 1, 1, 1))
    >>> how = (2, 2), (2, 2), (0, 0), cudnn.CUDNN_POOLING_MAX
    >>> y = cudnn.pooling_forward(x, y, *how)
    >>> cudnn.pooling_backward(x, y, np.full_like(y, 5.0), *how)[0, 0]
    array([[0., 0.],
           [5., 0.]])
    """
    _check(ksize, stride, pad, mode, x=x, y=y, gy=gy)
    if tuple(gy.shape) != tuple(y.shape):
        raise CuDNNError(BAD_PARAM, f"gy must have the shape of y, {tuple(y.shape)}, got {tuple(gy.shape)}")
    if not y.size or not x.size:
        return zeros(tuple(x.shape), x.dtype, beside=x)
    source, sizes, shares = _source(x, y, ksize, stride, pad, mode)
    backend = backend_of(x=source, gy=gy)
    upstream: Any = gy
    if shares is not None:
        upstream = upstream.astype(source.dtype, copy=False) * shares
    upstream = as_image(upstream)
    if mode in _MAXIMA:
        maxima, places = _maxima(source, sizes)
        upstream = np.where(maxima == -np.inf, upstream.dtype.type(0), upstream)
        gx = backend.max_pool_backward(upstream, places, sizes)
    else:
        count_pad = mode == CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING
        gx = backend.average_pool_backward(upstream, sizes, count_pad=count_pad)
    gx = with_axes_of(x, gx)
    if source is not x:
        inside, within = _common(x, source, pad)
        whole = zeros(tuple(x.shape), x.dtype, beside=x)
        whole[inside] = gx[within].astype(x.dtype, copy=False)
        return whole
    return gx if gx.flags.c_contiguous else gx.copy()


def _check(ksize: Any, stride: Any, pad: Any, mode: int, **arrays: Any) -> None:
    floats(**arrays)
    tuples(ksize=ksize, stride=stride, pad=pad)
    if mode not in _MAXIMA + _AVERAGES:
        raise CuDNNError(BAD_PARAM, f"mode must be 0, 1, 2 or 3, got {mode!r}")
    if not 1 <= len(ksize) <= 3 or any(a.ndim != len(ksize) + 2 for a in arrays.values()):
        needed = f"arrays must have two axes more than ksize={ksize} has entries, which are one to three"
        raise CuDNNError(BAD_PARAM, needed, *lines(**arrays))
    if min(*ksize, *stride) < 1 or min(pad) < 0:
        raise CuDNNError(BAD_PARAM, f"ksize={ksize} and stride={stride} must be positive, pad={pad} not negative")
    if tuple(arrays["y"].shape[:2]) != tuple(arrays["x"].shape[:2]):
        raise CuDNNError(BAD_PARAM, "arrays must share batch and channels", *lines(**arrays))
    one_dtype(**arrays)


def _source(
    x: Any, y: Any, ksize: Any, stride: Any, pad: Any, mode: int
) -> tuple[Any, PoolSizes | VolumePoolSizes, Any]:
    """Return what is pooled, the sizes of our pooling, and what averages are multiplied by, or None."""
    sizes = pool_sizes_of(tuple(x.shape), tuple(y.shape), ksize, stride, pad)
    if sizes is not None:
        return x, sizes, None
    excluding = mode == CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING
    source = _padded(x, y, ksize, stride, pad, mode)
    shares = _shares(x, y, ksize, stride, pad, source.dtype) if excluding else None
    return source, pool_sizes(source, window=ksize, stride=stride, pad=0), shares


def _padded(x: Any, y: Any, ksize: Any, stride: Any, pad: Any, mode: int) -> Any:
    """Return a copy of what y's windows cover of x, amid padding; in float32 where averages of float16 are yet to scale."""
    windows = zip(y.shape[2:], ksize, stride, strict=True)
    covered = tuple((count - 1) * step + size for count, size, step in windows)
    excluding = mode == CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING
    dtype = np.dtype(np.float32) if excluding and x.dtype == np.float16 else x.dtype
    padded = zeros((*x.shape[:2], *covered), dtype, beside=x)
    if mode in _MAXIMA:
        padded.fill(-np.inf)
    inside, within = _common(x, padded, pad)
    padded[within] = x[inside]
    return padded


def _maxima(source: Any, sizes: PoolSizes | VolumePoolSizes) -> tuple[Any, Any]:
    """Return maxima in which NaN loses, and their places, of images.

    In our maxima NaN wins: where there is none, none was under a window.  On a GPU, which that question would wait for,
    NaN is always replaced beforehand.
    """
    backend = backend_of(x=source)
    if not on_gpu(source):
        results = backend.max_pool_forward(as_image(source), sizes)
        if not np.isnan(results[0]).any():
            return results
    return backend.max_pool_forward(as_image(np.fmax(source, -np.inf)), sizes)


def _common(x: Any, padded: Any, pad: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the places in x, and in its padded copy, of what both hold."""
    sizes = [max(0, min(n, m - p)) for n, m, p in zip(x.shape[2:], padded.shape[2:], pad, strict=True)]
    inside = (..., *(slice(size) for size in sizes))
    return inside, (..., *(slice(p, p + size) for size, p in zip(sizes, pad, strict=True)))


def _shares(x: Any, y: Any, ksize: Any, stride: Any, pad: Any, dtype: np.dtype) -> Any:
    """Return, for each of y's windows, its size over the number of entries of x in it (1 where there are none)."""
    count = np.ones((), np.int64)
    for axis in zip(x.shape[2:], y.shape[2:], ksize, stride, pad, strict=True):
        count = np.multiply.outer(count, _entries(*axis))
    return asarray((prod(ksize) / np.maximum(count, 1)).astype(dtype), beside=x)


def _entries(size: int, windows: int, ksize: int, stride: int, pad: int) -> np.ndarray:
    """Return how many of an axis' entries lie under each window."""
    first = np.arange(windows) * stride - pad
    return np.maximum(np.minimum(first + ksize, size) - np.maximum(first, 0), 0)
