"""Launches of kernels/upsample.cu."""

from __future__ import annotations

import functools
from math import prod
from typing import Any

import numpy as np

from .device import device_of
from .kernel import Kernel, cover
from .layout import elements, empty_images, in_own_format, index_type
from .pool import pack_of

_FORWARD = {mode: Kernel("upsample.cu", f"upsample_forward_{mode}") for mode in ("nearest", "linear")}
_BACKWARD = {mode: Kernel("upsample.cu", f"upsample_backward_{mode}") for mode in ("nearest", "linear")}


def upsample_forward(x: Any, factor: tuple[int, ...], *, mode: str, align_corners: bool) -> Any:
    device, kernel, shape = device_of(x), _FORWARD[mode], tuple(x.shape)
    x, last = in_own_format(x)
    out = (*shape[:2], *(n * f for n, f in zip(shape[2:], factor, strict=True)))
    y, y_stored = empty_images(device, out, x.dtype, channels_last=last)
    pack = pack_of(x.dtype, shape[1] if last else out[-1])
    templates = (x.dtype, last, len(shape) == 5, pack, upsample_index(shape, factor, align_corners))
    z = _shape(kernel, shape, factor, align_corners)
    kernel(device, templates, cover(device, elements(out) // pack), x, y_stored, z)
    return y


def upsample_backward(dy: Any, factor: tuple[int, ...], *, mode: str, align_corners: bool) -> Any:
    device, kernel = device_of(dy), _BACKWARD[mode]
    shape = (*dy.shape[:2], *(n // f for n, f in zip(dy.shape[2:], factor, strict=True)))
    dy, last = in_own_format(dy)
    dx, dx_stored = empty_images(device, shape, dy.dtype, channels_last=last)
    pack = pack_of(dy.dtype, shape[1]) if last else 1
    templates = (dy.dtype, last, len(shape) == 5, pack, upsample_index(shape, factor, align_corners))
    z = _shape(kernel, shape, factor, align_corners)
    kernel(device, templates, cover(device, elements(shape) // pack), dy, dx_stored, z)
    return dx


@functools.lru_cache(maxsize=1024)
def _shape(kernel: Kernel, shape: tuple[int, ...], factor: tuple[int, ...], align_corners: bool) -> np.void:
    """Return UpsampleShape of kernels/upsample.cu, which every kernel there calls z."""
    flat = (1,) * (5 - len(shape))  # images have D = 1
    axes = zip((*flat, *shape[2:]), (*flat, *factor), strict=True)
    each = zip(*((n, f, *_places(n, f, align_corners)) for n, f in axes), strict=True)
    along = dict(zip(("size", "factor", "start", "step", "span"), each, strict=True))
    return kernel.pack("z", {"N": shape[0], "C": shape[1], **along})


def upsample_index(shape: tuple[int, ...], factor: tuple[int, ...], align_corners: bool) -> np.dtype:
    """Return the type that counts the elements and the places of a call on x of a shape."""
    reach = []
    for n, f in zip(shape[2:], factor, strict=True):
        start, _, span = _places(n, f, align_corners)
        reach.append((n + 1) * span + abs(start))
    return index_type(elements(shape) * prod(factor), *reach)


def _places(size: int, factor: int, align_corners: bool) -> tuple[int, int, int]:
    """Return start, step and span of an axis."""
    if align_corners:
        return 0, size - 1, max(1, size * factor - 1)
    return 1 - factor, 2, 2 * factor
