"""Tensor maps: how a kernel's bulk copies find their boxes in an array, as CUDA's driver encodes it.

Everything is in the order that the driver has, the innermost dimension first.
"""

from __future__ import annotations

import ctypes
import functools
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import GpuLaunchError

_BYTES, _ALIGNMENT = 128, 64  # of a CUtensorMap
_TYPES = {"float16": 6, "bfloat16": 9}  # CUtensorMapDataType
_SWIZZLES = {64: 2, 128: 3}  # bytes of a line -> CUtensorMapSwizzle
_PROMOTION = 2  # 128 bytes at a time go to the second-level cache
_DRIVER = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"


class Boxes(NamedTuple):
    """Boxes of so many elements along each dimension; elements outside the array are zeros."""

    box: tuple[int, ...]
    swizzle: int  # bytes of a line


class Windows(NamedTuple):
    """Pixels of channels-last images (N, H, W, C) under a tap of a window: im2col, as the driver calls it.

    Corners of windows are walked, image after image, from `lower` to the images' size + `upper`, by steps, all (across,
    down); pixels outside an image are zeros.
    """

    lower: tuple[int, int]
    upper: tuple[int, int]
    steps: tuple[int, int]
    channels: int
    pixels: int
    swizzle: int  # bytes of a line


Form = Boxes | Windows


@dataclass(frozen=True, eq=False, slots=True)
class TensorMap:
    """An array, and what the driver made of it and a form: a kernel's argument."""

    array: Any
    encoded: np.void


class Maps:
    """The maps that one GPU has been given: an array at a known place, of a known form, is not encoded again."""

    _MOST = 4096

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], np.void] = {}

    def of(self, array: Any, form: Form) -> TensorMap:
        """Return the map of a C-contiguous array; raise GpuLaunchError where the driver makes none."""
        key = array.data.ptr, array.shape, array.dtype, form
        encoded = self._known.get(key)
        if encoded is None:
            if len(self._known) == self._MOST:
                self._known.clear()
            encoded = self._known[key] = encode(_driver(), *key)
        return TensorMap(array, encoded)


@functools.cache
def _driver() -> Any:
    try:
        return ctypes.CDLL(_DRIVER)
    except OSError as error:
        msg = f"tensor maps need CUDA's driver: {error}"
        raise GpuLaunchError(msg) from error


def encode(driver: Any, address: int, shape: tuple[int, ...], dtype: np.dtype, form: Form) -> np.void:
    """Return the driver's map of a C-contiguous array at an address."""
    sizes, rank = shape[::-1], len(shape)
    strides = [dtype.itemsize * int(np.prod(sizes[: i + 1])) for i in range(rank - 1)]
    room = (ctypes.c_char * (_BYTES + _ALIGNMENT))()
    place = -(-ctypes.addressof(room) // _ALIGNMENT) * _ALIGNMENT
    array = (
        ctypes.c_void_p(place),
        ctypes.c_int(_TYPES[dtype.name]),
        ctypes.c_uint32(rank),
        ctypes.c_void_p(address),
        _numbers(ctypes.c_uint64, sizes),
        _numbers(ctypes.c_uint64, strides),
    )
    how: tuple[Any, ...]
    if isinstance(form, Boxes):
        name, how = "cuTensorMapEncodeTiled", (_numbers(ctypes.c_uint32, form.box),)
        steps: tuple[int, ...] = (1,) * rank
    else:
        corners = (_numbers(ctypes.c_int32, corner) for corner in (form.lower, form.upper))
        name, how = "cuTensorMapEncodeIm2col", (*corners, *map(ctypes.c_uint32, (form.channels, form.pixels)))
        steps = (1, *form.steps, 1)
    end = map(ctypes.c_int, (0, _SWIZZLES[form.swizzle], _PROMOTION, 0))  # no interleaving; zeros outside
    try:
        failed = getattr(driver, name)(*array, *how, _numbers(ctypes.c_uint32, steps), *end)
    except AttributeError as error:
        msg = f"CUDA's driver has no {name}, which is there from CUDA 12 on"
        raise GpuLaunchError(msg) from error
    if failed:
        msg = f"{name} failed with CUDA error {failed}: array {dtype} {shape}, {form}"
        raise GpuLaunchError(msg)
    return np.frombuffer(ctypes.string_at(place, _BYTES), f"V{_BYTES}")[0]


def _numbers(kind: Any, values: Any) -> Any:
    return (kind * len(values))(*values)
