"""Inverted dropout, block by block."""

from __future__ import annotations

from numba import types

from .atomic import COUNTER, blocks
from .jit import NUMBER, compiled_pass, read, write

BLOCK = 256 * 1024  # less is done before another thread has begun


@compiled_pass(read(1), read(1, types.boolean), write(1), types.float32, NUMBER, COUNTER)
def scale_kept(values, kept, out, scale, block, counter):
    zero = values.dtype.type(0)
    for part in blocks(counter, len(out), block):
        source, keep, target = values[part], kept[part], out[part]
        for i in range(len(target)):
            scaled = source[i] * scale
            target[i] = scaled if keep[i] else zero
