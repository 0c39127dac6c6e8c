"""Copies of views, for kernels that want their arrays without gaps, and into arrays that are kept."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from .device import Device, device_of
from .kernel import Kernel, cover

_DENSE = Kernel("copy.cu", "copy_dense")
_STRIDED = Kernel("copy.cu", "copy_strided", strided=("in",))
_TRANSPOSED = Kernel("copy.cu", "copy_transposed")
_AXES = 6
_TILE = 32
_PACK_BYTES = 16
_INT32, _INT64 = np.dtype(np.int32), np.dtype(np.int64)


def contiguous(array: Any) -> Any:
    """Return the array itself if it is C-contiguous, else a copy that is."""
    if array.flags.c_contiguous:
        return array
    device = device_of(array)
    out = device.empty(tuple(array.shape), array.dtype)
    _fill(device, array, out)
    return out


def copy_into(out: Any, array: Any) -> None:
    """Copy an array into one of the same shape and dtype that has no gaps, whatever the order of its axes in memory."""
    if not out.flags.c_contiguous:
        order = sorted(range(out.ndim), key=lambda axis: -out.strides[axis])
        out, array = out.transpose(order), array.transpose(order)
    _fill(device_of(out), array, out)


def _fill(device: Device, array: Any, out: Any) -> None:
    if array.flags.c_contiguous:
        _DENSE(device, (array.dtype,), cover(device, -(-array.nbytes // _PACK_BYTES)), array, out, array.size)
        return
    if array.ndim > 3:
        last = array.transpose(0, *range(2, array.ndim), 1)
        if last.flags.c_contiguous:  # channels-last to (N, C, ...)
            N, C, *pixels = array.shape
            _transpose(device, last, out, N, C, prod(pixels))
            return
        first = array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))
        if first.flags.c_contiguous:  # (N, C, ...), seen and wanted as (N, ..., C)
            N, *pixels, C = array.shape
            _transpose(device, first, out, N, prod(pixels), C)
            return
    sizes, steps = _merged(array)
    if len(sizes) > _AXES:
        for i in range(array.shape[0]):
            _fill(device, array[i], out[i])
        return
    total = prod(sizes)
    index = _INT32 if total <= np.iinfo(np.int32).max else _INT64
    view = {"axes": len(sizes), "size": sizes, "step": steps}
    _STRIDED(device, (array.dtype, index), cover(device, total), array, out, view, total)


def _transpose(device: Device, stored: Any, out: Any, batch: int, rows: int, columns: int) -> None:
    tiles = -(-rows // _TILE) * -(-columns // _TILE)
    _TRANSPOSED(device, (stored.dtype,), batch * tiles, stored, out, rows, columns)


def _merged(array: Any) -> tuple[list[int], list[int]]:
    """Return sizes and steps (in elements) of a view with as few axes as walk the same elements in the same order."""
    sizes: list[int] = []
    steps: list[int] = []
    for size, stride in zip(array.shape, array.strides, strict=True):
        step = stride // array.dtype.itemsize
        if size == 1:
            continue
        if sizes and steps[-1] == size * step:
            sizes[-1], steps[-1] = sizes[-1] * size, step
        else:
            sizes.append(size)
            steps.append(step)
    return sizes, steps
