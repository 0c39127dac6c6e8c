"""Leaky rectified linear unit of a run of elements.

Products are float64 and rounded once: what float32 would give where it holds the factor, and right where it does not.
"""

from __future__ import annotations

from numba import float32, float64, types

from .jit import compiled_pass, read, write

BLOCK = 128 * 1024


@compiled_pass(read(1), write(1), types.float64)
def forward(x, y, factor):
    for i in range(len(x)):
        y[i] = x[i] if x[i] > 0 else float32(float64(x[i]) * factor)


@compiled_pass(read(1), read(1), write(1), types.float64)
def backward(dy, y, dx, factor):
    for i in range(len(y)):
        dx[i] = dy[i] if y[i] > 0 else float32(float64(dy[i]) * factor)
