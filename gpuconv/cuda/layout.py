"""Memory formats: arrays as kernels want them, (N, C, ...) or (N, ..., C) without gaps, and arrays to be filled."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..shapes import is_channels_last
from .copy import contiguous, copy_into
from .device import Device, device_of

INT32, INT64 = np.dtype(np.int32), np.dtype(np.int64)
_LARGEST_INT32 = 2**31 - 1


def stored(x: Any, *, channels_last: bool) -> Any:
    """Return an (N, C, H, W) array's C-contiguous (N, C, H, W) or (N, H, W, C) form, volumes likewise: a view if it can be."""
    return contiguous(x.transpose(0, *range(2, x.ndim), 1) if channels_last else x)


def in_own_format(x: Any) -> tuple[Any, bool]:
    """Return (stored(x), channels_last) in the memory format that x has, or is nearest to."""
    channels_last = is_channels_last(x)
    return stored(x, channels_last=channels_last), channels_last


def empty_images(device: Device, shape: tuple[int, ...], dtype: np.dtype, *, channels_last: bool) -> tuple[Any, Any]:
    """Return an uninitialised array of images or volumes, and the C-contiguous form of it that a kernel fills."""
    if not channels_last:
        array = device.empty(shape, dtype)
        return array, array
    array = device.empty((shape[0], *shape[2:], shape[1]), dtype)
    return array.transpose(0, len(shape) - 1, *range(1, len(shape) - 1)), array


def empty_results(device: Device, shape: tuple[int, ...], dtype: np.dtype, *, channels_last: bool) -> tuple[Any, Any]:
    """Return an uninitialised (N, C) or (N, C, H, W) array, and the C-contiguous form of it that a kernel fills."""
    if len(shape) == 2:
        array = device.empty(shape, dtype)
        return array, array
    return empty_images(device, shape, dtype, channels_last=channels_last)


def in_format(images: Any, *, channels_last: bool) -> Any:
    """Return a copy of images (N, C, H, W) in a memory format."""
    out, target = empty_images(device_of(images), tuple(images.shape), images.dtype, channels_last=channels_last)
    copy_into(target, images.transpose(0, 2, 3, 1) if channels_last else images)
    return out


def same_storage(*arrays: Any, like: Any) -> tuple[Any, ...]:
    """Return arrays of one shape C-contiguous and in one order of elements: that of `like`, where it has no gaps."""
    if like.ndim == 4 and is_channels_last(like):
        return tuple(stored(array, channels_last=True) for array in arrays)
    return tuple(contiguous(array) for array in arrays)


def index_type(*sizes: int) -> np.dtype:
    """Return the narrowest type that counts up to every one of the sizes: 64-bit arithmetic costs registers."""
    return INT32 if max(sizes) <= _LARGEST_INT32 else INT64


def elements(shape: tuple[int, ...]) -> int:
    """Return the number of elements of an array of this shape."""
    return prod(shape)
