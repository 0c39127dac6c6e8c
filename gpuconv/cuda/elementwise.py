"""Launches of kernels that go through flat arrays, those of kernels/pointwise.cuh before all."""

from __future__ import annotations

from typing import Any

from ..shapes import is_channels_last
from .copy import copy_into
from .device import Device, device_of
from .kernel import Kernel, cover
from .layout import empty_images, same_storage

_PACK_BYTES = 16


def pointwise(
    kernel: Kernel, *arrays: Any, like: Any, templates: tuple[Any, ...] = (), settings: tuple[Any, ...] = ()
) -> Any:
    """Return what a kernel makes of arrays of one shape, element by element, in the dtype and memory format of `like`.

    Template arguments of the kernel: the dtype, then `templates`.  Its arguments: the arrays, the new one, the number
    of elements, then `settings`.
    """
    device = device_of(like)
    ((out, target),) = outputs(device, like, like.dtype)
    stored = same_storage(*arrays, like=like)
    kernel(device, (like.dtype, *templates), pack_blocks(device, like), *stored, target, like.size, *settings)
    return out


def outputs(device: Device, like: Any, *dtypes: Any) -> list[tuple[Any, Any]]:
    """Return arrays of the shape and memory format of `like`, each with the flat form of it that a kernel fills."""
    shape = tuple(like.shape)
    if len(shape) == 4:
        return [empty_images(device, shape, dtype, channels_last=is_channels_last(like)) for dtype in dtypes]
    return [(array, array) for array in (device.empty(shape, dtype) for dtype in dtypes)]


def pack_blocks(device: Device, array: Any) -> int:
    """Return the number of blocks for a kernel whose threads take 16 bytes after 16 bytes of an array."""
    return cover(device, -(-array.size * array.dtype.itemsize // _PACK_BYTES))


def copy(device: Device, x: Any) -> Any:
    """Return a copy of x without gaps, in its memory format."""
    ((out, target),) = outputs(device, x, x.dtype)
    copy_into(target, x if target is out else x.transpose(0, 2, 3, 1))
    return out
