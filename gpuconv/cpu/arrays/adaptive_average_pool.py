"""Average pooling to a size along one axis of arrays (outer, pixels, inner): a pass for each place in a window."""

from __future__ import annotations

import numpy as np

from ..parallel import BLOCK_ELEMENTS, for_each, scratch
from ..runs import RunningSum
from ..taps import image_ranges


def forward(x: np.ndarray, y: np.ndarray, first: np.ndarray, end: np.ndarray, share: np.ndarray) -> None:
    """Fill y with the sums of x over windows from first to end, times their share."""

    def work(rows: slice) -> None:
        total = y[rows]
        _add_up(x[rows], total, first, end)
        np.multiply(total, share[:, None], out=total)

    for_each(work, image_ranges(max(x, y, key=np.size), BLOCK_ELEMENTS))


def backward(dy: np.ndarray, dx: np.ndarray, first: np.ndarray, end: np.ndarray, share: np.ndarray) -> None:
    """Fill dx with the sums of dy, times its share, over the entries from first to end, which lie over a pixel."""

    def work(rows: slice) -> None:
        gradient = scratch("gradient", dy[rows].shape, dx.dtype)
        np.multiply(dy[rows], share[:, None], out=gradient)
        _add_up(gradient, dx[rows], first, end)

    for_each(work, image_ranges(max(dy, dx, key=np.size), BLOCK_ELEMENTS))


def _add_up(values: np.ndarray, total: np.ndarray, first: np.ndarray, end: np.ndarray) -> None:
    """Set total to the sums of values along the middle axis."""
    total.fill(0)
    longest, shortest = (int(pick(end - first)) for pick in (np.max, np.min))
    added = RunningSum(total, longest)
    for tap in range(longest):
        run = added.next()
        if tap < shortest:
            taken = scratch("taken", total.shape, values.dtype)
            np.take(values, first + tap, axis=1, out=taken, mode="clip")
            np.add(run, taken, out=run)
        else:
            has_it = np.flatnonzero(end - first > tap)
            run[:, has_it] += values[:, first[has_it] + tap]
    added.close()
