"""The arrays of one launch, copied into guarded pages that the forked kernel shares with this process.

Layout of a region: [guard page][canaries | data | fewer than 256 bytes of canaries][guard page].  Arrays whose memory
overlaps share a region, so a kernel that is given an array and a view of it sees one memory.  A data address keeps its
distance from a 256-byte boundary, so a float4 access to a view that is not aligned is seen.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

_PAGE = mmap.PAGESIZE
_ALIGNMENT = 256  # of a device allocation
_CANARY = 0xFF  # also NaN, where a kernel reads it
_libc = ctypes.CDLL(None, use_errno=True)


def _protect(address: int, size: int, protection: int) -> None:
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), protection):
        number = ctypes.get_errno()
        msg = "mprotect of a guard page failed"
        raise OSError(number, msg)


def _host_bytes(low: int, size: int) -> np.ndarray:
    """Return `size` bytes of this process's memory from address `low` as an array."""
    return np.frombuffer((ctypes.c_uint8 * size).from_address(low), np.uint8)


def _allocation(array: np.ndarray) -> np.ndarray:
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
    """One span of host memory, mirrored between guard pages."""

    def __init__(self, span: _Span) -> None:
        self.span = span
        self.size = span.high - span.low
        self.element = min(a.dtype.itemsize for a in span.arrays)
        inner = (self.size + _ALIGNMENT - 1 + _PAGE) // _PAGE * _PAGE
        self._map = mmap.mmap(-1, inner + 2 * _PAGE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        end = self._start + _PAGE + inner
        self.base = end - self.size - (end - self.size - span.phase) % _ALIGNMENT
        self._inner = np.frombuffer(self._map, np.uint8, inner, _PAGE)
        self._offset = self.base - self._start - _PAGE
        self._inner[:] = _CANARY
        self._data[:] = _host_bytes(span.low, self.size)
        self.valid = self._elements()
        _protect(self._start, _PAGE, 0)
        _protect(end, _PAGE, 0)
        if not span.writable:
            _protect(self._start + _PAGE, inner, mmap.PROT_READ)

    @property
    def _data(self) -> np.ndarray:
        return self._inner[self._offset : self._offset + self.size]

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

    def close(self) -> bool:
        """Copy what the kernel wrote back to the arrays; return False if it wrote bytes beside them."""
        _protect(self._start, len(self._map), mmap.PROT_READ | mmap.PROT_WRITE)
        after = self._offset + self.size
        intact = bool((self._inner[: self._offset] == _CANARY).all() and (self._inner[after:] == _CANARY).all())
        if self.span.writable:
            host = _host_bytes(self.span.low, self.size)
            if self.valid is not None:
                gaps = self.valid == 0
                intact = intact and bool((host[gaps] == self._data[gaps]).all())
            host[:] = self._data
        return intact


class Memory:
    """The guarded copies of all arrays of one launch."""

    def __init__(self, arrays: Iterable[tuple[int, np.ndarray, bool]]) -> None:
        """Take (argument number, array, may the kernel write it)."""
        spans: list[_Span] = []
        for argument, array, writable in arrays:
            low = high = array.ctypes.data
            if array.size:
                low, high = np.lib.array_utils.byte_bounds(array)
            phase = (low - _allocation(array).ctypes.data) % _ALIGNMENT
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
        self.regions = [Region(s) for s in spans]

    def address(self, array: np.ndarray) -> int:
        """Return where the kernel finds the array's first element."""
        at = array.ctypes.data
        for region in self.regions:
            if any(a is array for a in region.span.arrays):
                return region.base + at - region.span.low
        msg = "the array is not part of this launch"
        raise KeyError(msg)

    def close(self) -> list[int]:
        """Copy results back; return the arguments beside which the kernel wrote."""
        return [r.span.argument for r in self.regions if not r.close()]
