"""Inverted dropout of a run of elements."""

from __future__ import annotations

from numba import types

from .jit import compiled_pass, read, write

BLOCK = 128 * 1024


@compiled_pass(read(1), read(1, types.boolean), write(1), types.float32)
def scale_kept(values, kept, out, scale):
    zero = values.dtype.type(0)
    for i in range(len(out)):
        scaled = values[i] * scale
        out[i] = scaled if kept[i] else zero
