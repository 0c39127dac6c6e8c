"""Launches of kernels/arithmetic.cu."""

from __future__ import annotations

from typing import Any

from ..placed import Number, placed_number
from .device import device_of
from .elementwise import outputs, pack_blocks, pointwise, same_storage
from .kernel import Kernel

_ADD = Kernel("arithmetic.cu", "arithmetic_add")
_SCALE = Kernel("arithmetic.cu", "arithmetic_scale")
_CAST = Kernel("arithmetic.cu", "arithmetic_cast")


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


def cast(array: Any, dtype: Any, factor: float | Number = 1.0) -> Any:
    """Return factor array in another dtype whose sums are of the same type, rounded once, in its memory format."""
    device = device_of(array)
    ((out, target),) = outputs(device, array, dtype)
    (stored,) = same_storage(array, like=array)
    cast_into(stored, target, factor)
    return out


def cast_into(array: Any, out: Any, factor: float | Number = 1.0) -> None:
    """Fill `out` with factor array, both C-contiguous, as `cast` does."""
    device = device_of(array)
    wider = max(array, out, key=lambda one: one.dtype.itemsize)
    templates = array.dtype, out.dtype
    _CAST(device, templates, pack_blocks(device, wider), array, out, array.size, *placed_number(factor))
