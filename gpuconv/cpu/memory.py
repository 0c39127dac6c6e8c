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
import threading
import weakref
from collections import OrderedDict, deque
from typing import Any

import numpy as np

from ..errors import ConfigError

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


class _Pool:
    """Blocks that no array uses, by size, the size longest unused first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Blocks whose arrays have died.  An array may die anywhere, inside a locked section too, where a garbage
        # collection can run: so its end only appends here, and everything else waits for the next call.
        self._returned: deque[np.ndarray] = deque()
        self._idle: OrderedDict[int, list[np.ndarray]] = OrderedDict()
        self._idle_bytes = self._used_bytes = self._most_used = 0

    def lend(self, nbytes: int) -> np.ndarray:
        """Return at least nbytes of uninitialised memory, (size,) uint8, whose block comes back when no view is left."""
        size = -(-nbytes // _PAGE) * _PAGE
        keep = _keep_bytes()
        with self._lock:
            self._take_back()
            block = self._take(size)
            self._used_bytes += size
            self._most_used = max(self._most_used, self._used_bytes)
            self._shrink(keep)
        if block is None:
            block = self._fresh(size)
        # An array over a memoryview: its views have it, and nothing beyond it, as their base, so its end is theirs.
        lent = np.frombuffer(block.data, np.uint8)
        weakref.finalize(lent, self._returned.append, block).atexit = False
        return lent

    def clear(self) -> int:
        """Let go of all idle blocks; return how many bytes that was."""
        with self._lock:
            self._take_back()
            freed, self._idle_bytes = self._idle_bytes, 0
            self._idle.clear()
            self._most_used = self._used_bytes
            return freed

    def state(self) -> tuple[int, int, int]:
        """Return the bytes that arrays use, that are idle, and that arrays used at most."""
        with self._lock:
            self._take_back()
            return self._used_bytes, self._idle_bytes, self._most_used

    def start_anew(self) -> None:
        """Forget what is idle, and who held the lock: for a forked child, where that thread does not exist.

        What is lent stays counted: those arrays live on in the child, and their blocks come back here.
        """
        self._lock = threading.Lock()
        self._idle, self._idle_bytes = OrderedDict(), 0

    def _fresh(self, size: int) -> np.ndarray:
        """Return a new block; if there is no memory for it, after giving back what is idle."""
        try:
            return aligned(size)
        except MemoryError:
            self.clear()
        try:
            return aligned(size)
        except MemoryError:
            with self._lock:
                self._used_bytes -= size
            raise

    def _take_back(self) -> None:
        """Sort in the blocks whose arrays have died."""
        while self._returned:
            block = self._returned.popleft()
            self._used_bytes -= block.size
            self._idle_bytes += block.size
            self._idle.setdefault(block.size, []).append(block)
            self._idle.move_to_end(block.size)

    def _take(self, size: int) -> np.ndarray | None:
        blocks = self._idle.get(size)
        if not blocks:
            return None
        block = blocks.pop()
        self._idle_bytes -= size
        if not blocks:
            del self._idle[size]
        return block

    def _shrink(self, keep: int) -> None:
        """Let go of blocks, of the sizes longest unused, until the idle ones are within their bounds."""
        bound = min(keep, self._most_used - self._used_bytes)
        while self._idle and self._idle_bytes > bound:
            self._take(next(iter(self._idle)))


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
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size]


_pool = _Pool()


def _after_fork() -> None:
    _pool.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
