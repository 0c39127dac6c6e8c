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
    device, kernel = device_of(x), _FORWARD[mode]
    N, C, *size = x.shape
    x, last = in_own_format(x)
    out = N, C, *(n * f for n, f in zip(size, factor, strict=True))
    y, y_stored = empty_images(device, out, x.dtype, channels_last=last)
    pack = pack_of(x.dtype, C if last else out[-1])
    z, index = _shape(kernel, N, C, tuple(size), factor, align_corners)
    kernel(device, (x.dtype, last, len(size) == 3, pack, index), cover(device, elements(out) // pack), x, y_stored, z)
    return y


def upsample_backward(dy: Any, factor: tuple[int, ...], *, mode: str, align_corners: bool) -> Any:
    device, kernel = device_of(dy), _BACKWARD[mode]
    (N, C), size = dy.shape[:2], [n // f for n, f in zip(dy.shape[2:], factor, strict=True)]
    dy, last = in_own_format(dy)
    shape = N, C, *size
    dx, dx_stored = empty_images(device, shape, dy.dtype, channels_last=last)
    pack = pack_of(dy.dtype, C) if last else 1
    z, index = _shape(kernel, N, C, tuple(size), factor, align_corners)
    blocks = cover(device, elements(shape) // pack)
    kernel(device, (dy.dtype, last, len(size) == 3, pack, index), blocks, dy, dx_stored, z)
    return dx


@functools.lru_cache(maxsize=1024)
def _shape(
    kernel: Kernel, N: int, C: int, size: tuple[int, ...], factor: tuple[int, ...], align_corners: bool
) -> tuple[np.void, np.dtype]:
    """Return UpsampleShape of kernels/upsample.cu, which every kernel there calls z, and the type that counts its places."""
    one = (1,) * (3 - len(size))
    size, factor = (*one, *size), (*one, *factor)
    large = [n * f for n, f in zip(size, factor, strict=True)]
    if align_corners:
        start, step, span = [0, 0, 0], [n - 1 for n in size], [max(1, n - 1) for n in large]
    else:
        start, step, span = [1 - f for f in factor], [2, 2, 2], [2 * f for f in factor]
    fields = {"N": N, "C": C, "size": size, "factor": factor, "start": start, "step": step, "span": span}
    reach = [(n + 1) * between + abs(first) for n, between, first in zip(size, span, start, strict=True)]
    return kernel.pack("z", fields), index_type(N * C * prod(large), *reach)
