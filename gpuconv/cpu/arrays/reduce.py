"""What is asked of a run of elements as a whole, and sums over everything but the channels."""

from __future__ import annotations

import numpy as np

from ..layout import accumulator
from ..parallel import BLOCK_ELEMENTS, for_each
from ..reduce import channels_of

BLOCK = BLOCK_ELEMENTS


def finite(x: np.ndarray, flag: np.ndarray) -> None:
    """Set the flag (1,) if no element is NaN or infinite."""
    flag[0] = np.isfinite(x).all()


def square_sum(x: np.ndarray, total: np.ndarray) -> None:
    """Fill total (1,), float64, with the sum of the squares."""
    wide = x.astype(np.float64, copy=False)
    total[0] = wide @ wide


def channel_sums(x: np.ndarray) -> np.ndarray:
    """Return the sums of (N, C) or (N, C, H, W) over all axes but the second, float64 (C,)."""
    channels, kind = channels_of(x), accumulator(x.dtype)
    view, blocks = channels.view(x), channels.blocks()
    sums = np.zeros((len(blocks), channels.channels))

    def work(index: int) -> None:
        sums[index] = channels.sums(view[blocks[index]].astype(kind, copy=False))

    for_each(work, range(len(blocks)))
    return sums.sum(axis=0)
