"""Memory for results, kept when an array dies and given to the next one of its size.

The system hands out fresh memory page by page, each cleared at its first touch: for arrays of megabytes that takes as
long as a pass of arithmetic.  A training step makes the same arrays again and again, so from the second step on nearly
all its results lie where earlier ones lay.

What is kept is bounded, whenever a new array is made: together with the arrays in use it comes to no more than arrays
in use once did, and itself to no more than GPUCONV_KEEP_MB megabytes (1024; 0: nothing is kept).  The scratch memory of
the worker threads (parallel.py) is apart from this: a few megabytes each, for as long as the thread lives.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Mapping, Sized
from typing import Any

import numpy as np

from ..errors import ConfigError
from .lock import alone, new_lock

# Smaller arrays come from the C library, which reuses what it has without asking the system.
_LEAST_BYTES = 64 * 1024
_PAGE = 4096
_ALIGNMENT = 64  # of a cache line, and of the widest vector load
_KEEP_MB = 1024


def empty_array(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an uninitialised C-contiguous array, in memory that an earlier one may have used."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < _LEAST_BYTES:
        return np.empty(shape, dtype)
    return _pool.lend(nbytes)[:nbytes].view(dtype).reshape(shape)


def zero_array(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return a C-contiguous array of zeros, in memory that an earlier one may have used."""
    zeros = empty_array(shape, dtype)
    zeros.fill(0)
    return zeros


def free_memory() -> int:
    """Give the memory that is kept for coming arrays back to the system; return how many bytes that was."""
    return _pool.clear()


class _Lent(weakref.ref):
    """A lent array, known without being kept alive, and the size of its block (0 until it is filled in)."""

    size = 0
    # Arrays have no hash; two of these are equal if they are one.
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class _Pool:
    """Blocks that no array uses, by size, the size longest unused first; and those that are lent, to be counted.

    An interrupt, a failed allocation or a call from a signal's handler may come between any two steps here.  So nothing
    is counted that could be found out: bytes are those of the blocks that are there.  A block changes places by leaving
    the one before it enters the next: what is interrupted in between is memory that goes back to the system.
    """

    def __init__(self) -> None:
        self._lock = new_lock()
        # The ends of arrays.  An array may die anywhere, inside a locked section too, where a garbage collection can
        # run: so its end only adds a key here, and everything else waits for the next call.
        self._returned: dict[_Lent, None] = {}
        self._lent: dict[int, dict[_Lent, np.ndarray]] = {}
        self._idle: dict[int, list[np.ndarray]] = {}
        self._most_used = 0

    @alone
    def lend(self, nbytes: int) -> np.ndarray:
        """Return at least nbytes of uninitialised memory, (size,) uint8, whose block comes back when no view is left."""
        size = -(-nbytes // _PAGE) * _PAGE
        keep = _keep_bytes()
        self._take_back()
        block = self._take(size)
        if block is None:
            coming = _bytes(self._lent) + size
            self._shrink(min(keep, max(self._most_used - coming, 0)))
            lent = self._hand_out(self._fresh(size))
            self._most_used = max(self._most_used, coming)
            return lent
        if self._most_used > keep:  # else no more is idle than may be kept
            self._shrink(keep)
        return self._hand_out(block)

    @alone
    def clear(self) -> int:
        """Let go of all idle blocks; return how many bytes that was."""
        self._take_back()
        freed = _bytes(self._idle)
        self._idle.clear()
        self._most_used = _bytes(self._lent)
        return freed

    @alone
    def state(self) -> tuple[int, int, int]:
        """Return the bytes that arrays use, that are idle, and that arrays used at most."""
        self._take_back()
        return _bytes(self._lent), _bytes(self._idle), self._most_used

    def start_anew(self) -> None:
        """Forget what is idle, and who held the lock: for a forked child, where that thread does not exist.

        What is lent stays counted: those arrays live on in the child, and their blocks come back here.
        """
        self._lock = new_lock()
        self._idle = {}

    def _hand_out(self, block: np.ndarray) -> np.ndarray:
        # An array over a memoryview: its views have it, and nothing beyond it, as their base, so its end is theirs.
        array = np.frombuffer(block.data, np.uint8)
        lent = _Lent(array, self._returned.setdefault)
        lent.size = block.size
        while lent not in self._lent.get(block.size, ()):  # a call in between may have done away with the empty dict
            self._lent.setdefault(block.size, {})[lent] = block
        return array

    def _fresh(self, size: int) -> np.ndarray:
        """Return a new block; if there is no memory for it, after giving back what is idle."""
        try:
            return aligned(size)
        except MemoryError:
            self.clear()
        return aligned(size)

    def _take_back(self) -> None:
        """Sort in the blocks whose arrays have died."""
        for lent in list(self._returned):
            size = lent.size
            arrays = self._lent.get(size, {})
            block = arrays.pop(lent, None)
            if block is not None:  # else this was interrupted before
                blocks = self._idle.pop(size, [])  # and to the end: used last
                blocks.append(block)
                self._idle[size] = blocks
            if not arrays:
                self._lent.pop(size, None)
            self._returned.pop(lent, None)

    def _take(self, size: int) -> np.ndarray | None:
        blocks = self._idle.get(size)
        block = blocks.pop() if blocks else None
        if not blocks:
            self._idle.pop(size, None)
        return block

    def _shrink(self, bound: int) -> None:
        """Let go of blocks, of the sizes longest unused, until the idle ones come to no more than so many bytes."""
        excess = _bytes(self._idle) - bound
        for size in list(self._idle):
            while excess > 0 and self._take(size) is not None:
                excess -= size


def _bytes(blocks: Mapping[int, Sized]) -> int:
    return sum(size * len(group) for size, group in list(blocks.items()))


def _keep_bytes() -> int:
    wanted = os.environ.get("GPUCONV_KEEP_MB", "")
    if not wanted:
        return _KEEP_MB * 10**6
    if not wanted.isdecimal() or int(wanted) > 10**6:
        msg = f"GPUCONV_KEEP_MB must be a number of megabytes from 0 to 1000000, got {wanted!r}"
        raise ConfigError(msg)
    return int(wanted) * 10**6


def aligned(size: int) -> np.ndarray:
    """Return fresh memory that begins with a cache line."""
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = (
        -room.__array_interface__["data"][0] % _ALIGNMENT
    )  # .ctypes would import, which an interpreter that ends cannot
    return room[start : start + size]


_pool = _Pool()


def _after_fork() -> None:
    _pool.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
