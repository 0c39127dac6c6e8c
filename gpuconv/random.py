"""Counter-based random numbers: a draw is a pure function of (seed, stream, step, place), on every backend.

The generator is Philox4x64-10 as NumPy implements it (`numpy.random.Philox`): key (seed, stream), counter
(block, step, 0, 0), four 64-bit words a block, blocks counted from 1 as NumPy does.  A GPU thread computes the same
word from its place alone.  Nothing has a state that could be lost: a resumed run asks again with the same numbers.
Source: Salmon, Moraes, Dror, Shaw, Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Purposes that draw from one seed and must not meet."""

    INIT = 1
    SHUFFLE = 2
    AUGMENT = 3
    DROPOUT = 4
    DATA = 5


def generator(seed: int, stream: Stream, step: int = 0) -> np.random.Generator:
    """Return NumPy's Generator on the words of (seed, stream, step): for shuffling, initial weights, drawn data."""
    return np.random.Generator(_philox(seed, stream, step))


def words(count: int, *, seed: int, stream: Stream, step: int = 0, first: int = 0) -> np.ndarray:
    """Return `count` random 64-bit words, (count,) uint64: word i is a function of (seed, stream, step, first + i)."""
    block, before = divmod(first, 4)
    return _philox(seed, stream, step, block).random_raw(before + count)[before:]


def _philox(seed: int, stream: Stream, step: int, block: int = 0) -> np.random.Philox:
    key = np.array([seed, int(stream)], dtype=np.uint64)
    return np.random.Philox(key=key, counter=np.array([block, step, 0, 0], dtype=np.uint64))
