"""Complex convolution as a real one: each channel and each filter becomes two, its real and its imaginary part.

    [Re y]         [Re w  -Im w] [Re x]
    [Im y]  = sum  [Im w   Re w] [Im x]

A transposed one is the gradient of the input of a convolution, which multiplies by the conjugate filters: it takes the
conjugates of w, so that w itself multiplies.  The parts lie side by side, so groups stay together, and channels-last numbers are such pairs as they are stored: they
are seen as real ones without a copy.  Arrays are made of what all backends share: views, copies, assignments to slices
and the operators' own difference, which is a step of gradient descent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..backend import zeros
from ..shapes import ConvSizes, VolumeConvSizes, is_channels_last
from .update import sgd_update

COMPLEX = (np.dtype(np.complex64), np.dtype(np.complex128))


def real_sizes(sizes: ConvSizes | VolumeConvSizes) -> ConvSizes | VolumeConvSizes:
    """Return the sizes of the real convolution."""
    return replace(sizes, C=2 * sizes.C, K=2 * sizes.K)


def real_channels(x: Any) -> Any:
    """Return complex (N, C, ...) as real (N, 2 C, ...), channels last: a view if x is so."""
    return _channels_second(_without_gaps(_channels_last(x)).view(_part(x.dtype)))


def complex_channels(parts: Any, like: Any) -> Any:
    """Return real (N, 2 C, ...) as complex (N, C, ...), in the dtype and memory format of another array."""
    numbers = _channels_second(_without_gaps(_channels_last(parts)).view(like.dtype))
    return numbers if is_channels_last(like) else _without_gaps(numbers)


def real_vector(b: Any) -> Any:
    """Return complex (K,) as real (2 K,)."""
    return _without_gaps(b).view(_part(b.dtype))


def complex_vector(parts: Any, dtype: np.dtype) -> Any:
    """Return real (2 K,) as complex (K,)."""
    return _without_gaps(parts).view(dtype)


def real_filters(w: Any, *, conjugate: bool = False) -> Any:
    """Return the filters (2 K, 2 C / groups, ...) of the real convolution, of w or of its conjugate."""
    K, C_w, *window = w.shape
    filters = zeros((2 * K, 2 * C_w, *window), _part(w.dtype), beside=w)
    above, below = (w.imag, _negative(w.imag)) if conjugate else (_negative(w.imag), w.imag)
    filters[::2, ::2] = w.real
    filters[1::2, 1::2] = w.real
    filters[1::2, ::2] = below
    filters[::2, 1::2] = above
    return filters


def complex_filters(gradients: Any, dtype: np.dtype, *, conjugate: bool = False) -> Any:
    """Return the gradient of complex filters: of each part the sum over the places where it stands among the real ones."""
    K, C_w, *window = gradients.shape
    dw = zeros((K // 2, C_w // 2, *window), dtype, beside=gradients)
    dw.real[...] = _difference(gradients[::2, ::2], _negative(gradients[1::2, 1::2]))
    imaginary = gradients[1::2, ::2], gradients[::2, 1::2]
    dw.imag[...] = _difference(*(reversed(imaginary) if conjugate else imaginary))
    return dw


def _part(dtype: np.dtype) -> np.dtype:
    """Return the dtype of the parts of complex numbers."""
    return np.dtype(np.float32 if dtype == np.complex64 else np.float64)


def _difference(a: Any, b: Any) -> Any:
    """Return a - b, as a new array."""
    difference = a.copy()
    sgd_update(difference.reshape(-1), b.copy().reshape(-1), lr=1.0)
    return difference


def _negative(a: Any) -> Any:
    """Return 0 - a, as a new array."""
    return _difference(zeros(tuple(a.shape), a.dtype, beside=a), a)


def _channels_last(array: Any) -> Any:
    """Return a view (N, ..., C) of (N, C, ...)."""
    return array.transpose(0, *range(2, array.ndim), 1)


def _channels_second(array: Any) -> Any:
    """Return a view (N, C, ...) of (N, ..., C)."""
    return array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))


def _without_gaps(array: Any) -> Any:
    """Return an array that is C-contiguous: a copy if this one is not."""
    return array if array.flags.c_contiguous else array.copy()
