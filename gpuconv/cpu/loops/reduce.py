"""What is asked of a run of elements as a whole."""

from __future__ import annotations

from numba import boolean, float32, float64

from .jit import compiled_pass, read, write

BLOCK = 128 * 1024


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
