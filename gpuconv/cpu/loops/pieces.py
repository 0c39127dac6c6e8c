"""What several operators' passes are made of."""

from __future__ import annotations

from .jit import apart_loop, loop


@apart_loop
def fill(values, value):
    for i in range(len(values)):
        values[i] = value


@loop
def inside(tap, size, windows, stride, pad):
    """Return the first and the past-the-last window whose tap lies in the image."""
    return max(0, -((tap - pad) // stride)), max(0, min(windows, (size - 1 + pad - tap) // stride + 1))
