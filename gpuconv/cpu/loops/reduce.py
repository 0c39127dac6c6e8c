"""What is asked of a run of elements as a whole, and sums over everything but the channels."""

from __future__ import annotations

from math import prod

import numpy as np
from numba import boolean, float32, float64

from ...shapes import is_channels_last
from ..layout import stored
from ..parallel import share_out
from .atomic import COUNTER, blocks
from .jit import NUMBER, apart_loop, compiled_pass, read, summing_loop, write
from .pieces import part

BLOCK = 128 * 1024
_CHANNELS_BLOCK = 64 * 1024
_WIDE = 128  # pixels of fewer channels are joined to runs of about so many values


def channel_sums(x: np.ndarray) -> np.ndarray:
    """Return the sums of (N, C) or (N, C, H, W) over all axes but the second, float64 (C,)."""
    C, pixels = x.shape[1], prod(x.shape[2:])
    flat = stored(x, x)[0].reshape(-1)
    last = x.ndim == 2 or is_channels_last(x)
    width = C * max(1, _WIDE // C)
    run = width if last else C * pixels
    size = run * max(1, _CHANNELS_BLOCK // run)
    sums = np.zeros((-(-flat.size // size), width if last else C))

    def work(counter: np.ndarray) -> None:
        if last:
            _row_sums(counter, size, flat, sums)
        else:
            _plane_sums(counter, size, flat, sums, pixels)

    share_out(work, len(sums), 2)
    return sums.reshape(-1, C).sum(axis=0)


@apart_loop
def _add(total, values):
    for j in range(len(values)):
        total[j] += float64(values[j])


@summing_loop
def _sum(values):
    total = 0.0
    for j in range(len(values)):
        total += float64(values[j])
    return total


@compiled_pass(COUNTER, NUMBER, read(1), write(2, float64))
def _row_sums(counter, size, x, sums):
    """Add up runs of pixels side by side, in a row of sums for each block."""
    width = sums.shape[1]
    for block in blocks(counter, len(x), size):
        total = part(sums, block.start // size * width, width)
        for i in range(block.start, block.stop, width):
            _add(total, part(x, i, min(width, block.stop - i)))


@compiled_pass(COUNTER, NUMBER, read(1), write(2, float64), NUMBER)
def _plane_sums(counter, size, x, sums, pixels):
    """Add up planes, in a row of sums for each block of images."""
    C = sums.shape[1]
    for block in blocks(counter, len(x), size):
        for i in range(block.start, block.stop, pixels):
            sums[block.start // size, i // pixels % C] += _sum(part(x, i, pixels))


@compiled_pass(read(1), write(1, boolean), sums=True)
def finite(x, flag):
    total = float32(0)
    for i in range(len(x)):
        total += x[i] * float32(0)  # NaN for NaN and infinities
    flag[0] = total == 0


@compiled_pass(read(1), write(1, float64), sums=True)
def square_sum(x, total):
    added = 0.0
    for i in range(len(x)):
        added += float64(x[i]) * float64(x[i])
    total[0] = added
