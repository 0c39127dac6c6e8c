"""Recordings of the emulated device: a list of what is done at each replay, on memory of their own.

As in a CUDA graph, a step knows addresses, not arrays, and keeps no array alive.  Memory of the recording that an array
gave back while work was recorded is given to a later array of that work, and to nobody else.
"""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from .array import EmulatedArray


class EmulatedRecording:
    """What work() would have done, step by step, and what it returned."""

    def __init__(self, work: Callable[[], Any]) -> None:
        from gpuconv.cuda import recording
        from gpuconv.errors import RecordingError

        self._rules, self._error = recording, RecordingError
        self._steps: list[tuple[Callable[..., None], list[Any]]] = []
        self._pool = _Pool()
        with recording.recorded(self):
            self.result = work()

    def replay(self) -> None:
        """Do all steps; raise RecordingError before the first where an array from elsewhere has died."""
        self._rules.forbid("a replay", "it is one launch, make it after")
        for place in itertools.chain.from_iterable(args for _, args in self._steps):
            if isinstance(place, _Place) and place.is_gone():
                msg = f"{place} that recorded work was given has died: keep it as long as the recording"
                raise self._error(msg)
        for do, args in self._steps:
            do(*(arg.array() if isinstance(arg, _Place) else arg for arg in args))

    def add(self, do: Callable[..., None], *args: Any) -> None:
        """Note a call; arrays among its arguments will be those that lie where these do."""
        self._steps.append((do, [_Place(arg) if isinstance(arg, EmulatedArray) else arg for arg in args]))

    def empty(self, shape: Any, dtype: Any, axes: tuple[int, ...] | None = None) -> EmulatedArray:
        """Return an array of the recording's memory, of 0xFF bytes at the beginning of each replay; axes: their order there."""
        shape = shape if isinstance(shape, tuple) else (shape,)
        axes = tuple(range(len(shape))) if axes is None else axes
        stored = tuple(shape[axis] for axis in axes)
        memory = self._pool.take(prod(shape) * np.dtype(dtype).itemsize)
        array = np.ndarray.__new__(EmulatedArray, stored, dtype, memory)
        self.add(uninitialised, array)
        return uninitialised(array).transpose(np.argsort(axes))

    def assign(self, target: EmulatedArray, value: Any) -> None:
        """Note target[...] = value, an array of the device or a number."""
        if isinstance(value, np.ndarray) and not isinstance(value, EmulatedArray) and value.ndim:
            self._rules.forbid("a copy from the host", "make it before")
        self.add(_assign, target, value)


def uninitialised(array: np.ndarray) -> Any:
    """Fill an array without gaps with 0xFF bytes, and return it."""
    ctypes.memset(array.ctypes.data, 0xFF, array.nbytes)
    return array


def _assign(target: EmulatedArray, value: Any) -> None:
    with np.errstate(all="ignore"):  # a GPU does not warn
        target[...] = value


class _Pool:
    """Memory of one recording; what nobody has any more is given out again."""

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = {}

    def take(self, size: int) -> np.ndarray:
        """Return `size` bytes, which come back when the last array in them dies."""
        free = self._free.setdefault(size, [])
        memory = free.pop() if free else np.empty(size, np.uint8)
        lent = memory.view(_Lent)
        weakref.finalize(lent, free.append, memory).atexit = False
        return lent


class _Lent(np.ndarray):
    """Memory of a recording's pool; arrays in it keep this alive, its steps the memory below."""


class _Place:
    """Where an array lies: its memory is watched, not kept, unless it is of a recording's pool."""

    def __init__(self, array: np.ndarray) -> None:
        self._array_kind = array.shape, array.dtype, array.strides
        memory = array
        while isinstance(memory.base, np.ndarray) and not isinstance(memory, _Lent):
            memory = memory.base
        low, high = np.lib.array_utils.byte_bounds(memory) if memory.size else (memory.ctypes.data,) * 2
        self._first, self._bytes = array.ctypes.data - low, high - low
        self._address = low
        self._kept = memory.base if isinstance(memory, _Lent) else None
        self._watched = weakref.ref(memory) if self._kept is None else None

    def __str__(self) -> str:
        shape, dtype, _ = self._array_kind
        return f"an array {dtype} {shape}"

    def is_gone(self) -> bool:
        return self._watched is not None and self._watched() is None

    def array(self) -> EmulatedArray:
        """Return the array that lies there now, as far from the beginning of its memory as it was."""
        shape, dtype, strides = self._array_kind
        if not self._bytes:
            return np.empty(shape, dtype).view(EmulatedArray)
        memory = np.frombuffer((ctypes.c_uint8 * self._bytes).from_address(self._address), np.uint8)
        return np.ndarray.__new__(EmulatedArray, shape, dtype, memory, self._first, strides)
