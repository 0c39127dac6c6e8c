"""Recordings: work that was noted once, launch by launch, and is done again as one.

What is recorded is what runs otherwise: the same launchers, on the same arrays.  What a recording holds is fixed when it
is made: which kernels, on which memory, with which numbers by value.  Only what lies in arrays may change between replays.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from .. import checks
from ..errors import RecordingError


class Recording(Protocol):
    """Recorded work, the memory it works in, and what it returned."""

    result: Any  # arrays of the recording's own memory among it hold what the last replay made of them

    def replay(self) -> None:
        """Do the work again, after all that the current stream was given before; does not wait for it.

        It writes what it wrote before: a second replay must not begin, on another stream, before this one has ended.
        """


_NO_MEMORY = 2  # cudaErrorMemoryAllocation


class _Active(threading.local):
    recording: Any = None  # that this thread's work goes to; None: work is done


_active = _Active()


def active() -> Any:
    """Return the recording that this thread's work goes to, None where it is done at once."""
    return _active.recording


@contextlib.contextmanager
def recorded(recording: Any) -> Iterator[None]:
    """Let this thread's work go to a recording; raise RecordingError where that cannot be."""
    forbid("a recording", "record all of it at once")
    if checks.debug():
        msg = "GPUCONV_DEBUG=1 waits for every launch, which cannot be recorded: record without it"
        raise RecordingError(msg)
    _active.recording = recording
    try:
        yield
    finally:
        _active.recording = None


def forbid(what: str, instead: str) -> None:
    """Raise RecordingError, with what to do instead, where this thread's work is being recorded."""
    if _active.recording is not None:
        msg = f"{what} cannot be recorded: {instead}"
        raise RecordingError(msg)


class CupyRecording:
    """A CUDA graph, the memory pool that it allocated from, and the arrays from elsewhere that our kernels were given."""

    def __init__(self, cupy: Any, place: Any, work: Callable[[], Any]) -> None:
        self._cupy, self._place = cupy, place
        self._pool = cupy.cuda.MemoryPool(_allocator(cupy))
        weakref.finalize(self, self._pool.free_all_blocks).atexit = False  # CuPy 14 keeps a dead pool's memory
        self._own: set[int] = set()  # addresses that the pool gave out
        self._kept: dict[int, Any] = {}
        with place, recorded(self):
            self._pool.set_limit(size=0)  # at which it would free what recorded launches use, too
            self._graph, self.result = self._captured(work)

    def _captured(self, work: Callable[[], Any]) -> tuple[Any, Any]:
        cuda = self._cupy.cuda
        if cuda.get_current_stream().is_capturing():
            msg = "a recording cannot be made while the current stream is captured: call its work, it is captured as it is"
            raise RecordingError(msg)
        stream = cuda.Stream(non_blocking=True)
        with stream, cuda.using_allocator(self._malloc):
            stream.begin_capture()
            try:
                result = work()
            except BaseException:
                with contextlib.suppress(Exception):  # says that it was spoiled, if it was
                    stream.end_capture()
                raise
            return stream.end_capture(), result

    def _malloc(self, size: int) -> Any:
        pointer = self._pool.malloc(size)
        self._own.add(pointer.mem.ptr)
        return pointer

    def keep(self, args: tuple[Any, ...]) -> None:
        """Hold what a kernel was given as long as this recording lives; memory of its own pool lives anyway."""
        for arg in args:
            if isinstance(arg, self._cupy.ndarray) and arg.data.mem.ptr not in self._own:
                self._kept[arg.data.mem.ptr] = arg

    def replay(self) -> None:
        forbid("a replay", "it is one launch, make it after")
        with self._place:
            self._graph.launch()


def _allocator(cupy: Any) -> Callable[[int], Any]:
    """Return what a recording's pool allocates by.

    A pool that finds no memory frees what it holds unused, and a recording's is not: launches that were recorded use it.
    Here the common pool's is freed, and what the recording finds then is memory or an end.
    """
    cuda = cupy.cuda

    def allocate(size: int) -> Any:
        for last in (False, True):
            try:
                return cuda.MemoryPointer(cuda.Memory(size), 0)
            except cuda.runtime.CUDARuntimeError as error:
                if error.status != _NO_MEMORY:
                    raise
                if last:
                    msg = f"the GPU has no {size} bytes left for what is recorded"
                    raise MemoryError(msg) from None
            cupy.get_default_memory_pool().free_all_blocks()
        return None

    return allocate
