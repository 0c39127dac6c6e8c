"""What launches of kernels that go through flat arrays share."""

from __future__ import annotations

from typing import Any

from ..shapes import is_channels_last
from .copy import copy_into
from .device import Device
from .kernel import cover
from .layout import empty_images

_PACK_BYTES = 16


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
