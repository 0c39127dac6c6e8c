"""Launches of kernels/arithmetic.cu."""

from __future__ import annotations

from typing import Any

from ..placed import Number, placed_number
from .device import device_of
from .elementwise import pack_blocks, pointwise
from .kernel import Kernel

_ADD = Kernel("arithmetic.cu", "arithmetic_add")
_SCALE = Kernel("arithmetic.cu", "arithmetic_scale")


def add(a: Any, b: Any) -> Any:
    """Return a + b, two arrays of one shape and dtype, in the memory format of a."""
    return pointwise(_ADD, a, b, like=a)


def multiple(array: Any, factor: float) -> Any:
    """Return factor array, with the factor rounded to the array's dtype as NumPy rounds it, in its memory format."""
    return pointwise(_SCALE, array, like=array, settings=(None, float(array.dtype.type(factor))))


def scale(array: Any, factor: float | Number) -> None:
    """Multiply a C-contiguous array by a factor, in place."""
    device = device_of(array)
    _SCALE(device, (array.dtype,), pack_blocks(device, array), array, array, array.size, *placed_number(factor))
