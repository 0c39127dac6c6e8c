"""The arrays of one launch, copied into memory that this process and a launch server share.

Layout of a region: [guard page][canaries | data | fewer than 256 bytes of canaries][guard page].  Arrays whose memory
overlaps share a region, so a kernel that is given an array and a view of it sees one memory.  A data address keeps its
distance from a 256-byte boundary, so a float4 access to a view that is not aligned is seen.  The server lets a kernel
touch regions only, and read-only ones only for reading.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

_PAGE = mmap.PAGESIZE
_ALIGNMENT = 256  # of a device allocation
_CANARY = 0xFF  # also NaN, where a kernel reads it
HEAD_BYTES = 1 << 20  # before the arrays: what describes the launch, as in runtime/launch.hpp
KEPT_BYTES = 1 << 26


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


class Arena:
    """Shared memory, given out from its start; pages that were never used cost nothing."""

    BYTES = 1 << 36

    def __init__(self) -> None:
        self.file = os.memfd_create("emulate", os.MFD_CLOEXEC)
        os.ftruncate(self.file, self.BYTES)
        self.map = mmap.mmap(self.file, self.BYTES)
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.server_base = 0  # where the server sees it
        self._head = self._used = 0

    def clear(self, head: int) -> None:
        """Take everything back but the first `head` bytes; give the system what a large launch used."""
        if self._used > KEPT_BYTES:
            os.ftruncate(self.file, KEPT_BYTES)
            os.ftruncate(self.file, self.BYTES)
        self._head, self._used = head, HEAD_BYTES

    def put(self, data: bytes | ctypes.Array | ctypes.Structure) -> int:
        """Store a small part of a launch's description; return its address in the server."""
        start, size = -(-self._head // 16) * 16, len(memoryview(data).cast("B"))
        self._head = start + size
        if self._head > HEAD_BYTES:
            msg = f"a launch is described by at most {HEAD_BYTES} bytes"
            raise ValueError(msg)
        self.map[start : self._head] = memoryview(data).cast("B")
        return self.server_base + start

    def take(self, size: int) -> int:
        """Return the offset of `size` bytes of whole pages, a guard page before and behind them."""
        start = self._used + _PAGE
        self._used = start + size
        if self._used + _PAGE > self.BYTES:
            msg = f"the arrays of a launch have more than {self.BYTES} bytes"
            raise MemoryError(msg)
        return start

    def close(self) -> None:
        """Give the memory back, once nothing refers to it any more."""
        if self.file >= 0:
            os.close(self.file)
        self.file = -1


def _host_bytes(low: int, size: int) -> np.ndarray:
    """Return `size` bytes of this process's memory from address `low` as an array."""
    return np.frombuffer((ctypes.c_uint8 * size).from_address(low), np.uint8)


def allocation(array: np.ndarray) -> np.ndarray:
    """Return the array that owns the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@dataclass
class _Span:
    """Host addresses [low, high) that one or more arrays of a launch cover."""

    low: int
    high: int
    phase: int  # distance of `low` from a boundary of a device allocation
    arrays: list[np.ndarray] = field(default_factory=list)
    argument: int = 0  # the first that uses it
    writable: bool = False


class Region:
    """One span of host memory, copied between guard pages."""

    def __init__(self, span: _Span, arena: Arena) -> None:
        self.span, self._arena = span, arena
        self.size = span.high - span.low
        self.element = min(a.dtype.itemsize for a in span.arrays)
        inner = _pages(self.size + _ALIGNMENT)
        start = arena.take(inner)
        end = start + inner
        # Whole pages: these offsets lie to a boundary of an allocation as the server's addresses do.
        data = end - self.size - (end - self.size - span.phase) % _ALIGNMENT
        self.base = arena.server_base + data
        self._data = arena.bytes[data : data + self.size]
        self._beside = arena.bytes[start:data], arena.bytes[data + self.size : end]
        for canaries in self._beside:
            canaries[:] = _CANARY
        self._data[:] = _host_bytes(span.low, self.size)
        self._valid = self._elements()

    def _elements(self) -> np.ndarray | None:
        """Return a byte per byte, 1 where an element of some array lies; None if that is everywhere."""
        arrays = self.span.arrays
        if any(a.size * a.dtype.itemsize == self.size for a in arrays):
            return None
        mask = np.zeros(self.size, np.uint8)
        for a in arrays:
            at = mask[a.ctypes.data - self.span.low :]
            shape, strides = (*a.shape, a.dtype.itemsize), (*a.strides, 1)
            np.lib.stride_tricks.as_strided(at, shape, strides)[...] = 1
        return mask

    def valid(self) -> int:
        """Store for the server where elements lie, and return the address; 0 if they lie everywhere."""
        if self._valid is None:
            return 0
        start = self._arena.take(_pages(self.size))
        self._arena.bytes[start : start + self.size] = self._valid
        return self._arena.server_base + start

    def copy_back(self) -> bool:
        """Copy what the kernel wrote back to the arrays; return False if it wrote bytes beside them."""
        intact = all(bool((canaries == _CANARY).all()) for canaries in self._beside)
        if self.span.writable:
            host = _host_bytes(self.span.low, self.size)
            if self._valid is not None:
                gaps = self._valid == 0
                intact = intact and bool((host[gaps] == self._data[gaps]).all())
            host[:] = self._data
        return intact


class Memory:
    """The guarded copies of all arrays of one launch."""

    def __init__(self, arena: Arena, arrays: Iterable[tuple[int, np.ndarray, bool]]) -> None:
        """Take (argument number, array, may the kernel write it)."""
        spans: list[_Span] = []
        for argument, array, writable in arrays:
            low = high = array.ctypes.data
            if array.size:
                low, high = np.lib.array_utils.byte_bounds(array)
            phase = (low - allocation(array).ctypes.data) % _ALIGNMENT
            merged = _Span(low, high, phase, [array], argument, writable)
            for other in [s for s in spans if (s.low < high and low < s.high) or (s.low, s.high) == (low, high)]:
                spans.remove(other)
                if other.low < merged.low:
                    merged.low, merged.phase = other.low, other.phase
                merged.high = max(merged.high, other.high)
                merged.arrays += other.arrays
                merged.argument = min(merged.argument, other.argument)
                merged.writable |= other.writable
            spans.append(merged)
        self.regions = [Region(s, arena) for s in spans]

    def address(self, array: np.ndarray) -> int:
        """Return where the kernel finds the array's first element."""
        at = array.ctypes.data
        for region in self.regions:
            if any(a is array for a in region.span.arrays):
                return region.base + at - region.span.low
        msg = "the array is not part of this launch"
        raise KeyError(msg)

    def copy_back(self) -> list[int]:
        """Copy results back; return the arguments beside which the kernel wrote."""
        return [r.span.argument for r in self.regions if not r.copy_back()]
