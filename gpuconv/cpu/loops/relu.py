"""Rectified linear unit of a run of elements."""

from __future__ import annotations

from .jit import compiled_pass, read, write

BLOCK = 128 * 1024


@compiled_pass(read(1), write(1))
def forward(x, y):
    zero = x.dtype.type(0)
    for i in range(len(x)):
        y[i] = zero if x[i] <= zero else x[i]  # NaN stays


@compiled_pass(read(1), read(1), write(1))
def backward(dy, y, dx):
    zero = dy.dtype.type(0)
    for i in range(len(y)):
        dx[i] = dy[i] if y[i] > zero else zero
