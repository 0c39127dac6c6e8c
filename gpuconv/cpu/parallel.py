"""Worker threads over blocks of a batch, and the scratch memory they reuse.

NumPy releases the interpreter lock in copies, sums and matrix products, so threads use every core.  While they run,
BLAS is held to one thread: its threads and ours never multiply.  How work is cut into blocks depends on sizes alone,
never on the number of threads, so results are equal bit for bit for any GPUCONV_THREADS.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
import math
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from ..errors import ConfigError
from .lock import alone, new_lock
from .memory import aligned

# Elements of an array that one block covers where work is a few NumPy calls on long rows: each call then lasts about
# 50 microseconds, so threads rarely meet at the interpreter lock, and blocks still fit the L3 cache.
BLOCK_ELEMENTS = 512 * 1024

Block = TypeVar("Block")
Function = TypeVar("Function", bound=Callable)


def threads() -> int:
    """Return how many threads work at once: GPUCONV_THREADS, else the cores this process may use."""
    wanted = os.environ.get("GPUCONV_THREADS", "")
    if not wanted:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not wanted.isdecimal() or not 1 <= int(wanted) <= 1024:
        msg = f"GPUCONV_THREADS must be a number from 1 to 1024, got {wanted!r}"
        raise ConfigError(msg)
    return int(wanted)


def for_each(work: Callable[[Block], object], blocks: Iterable[Block], *, blas: bool = True) -> None:
    """Call work(block) for every block, on all threads, in any order; raise the first error after all have stopped.

    blas=False: work calls no BLAS, which is left alone then.

    An interrupt ends it like an error.  Others may come while it is ending: see _end.
    """
    job = _Blocks(work, blocks)
    _run(job, min(threads(), len(job.blocks)) - 1, quiet(job.drain), blas=blas)


def share_out(work: Callable[[np.ndarray], object], count: int, least: int = 1) -> None:
    """Call work(counter) on all threads, once each: it takes numbers of blocks from the counter until `count` is reached.

    It does so by take(counter), of loops/atomic.py or below: each number is given out once.  A thread is asked for
    every `least` blocks, which should last longer than it takes to wake one.  NumPy's warnings are the caller's affair,
    and BLAS is left alone.

    An error or an interrupt sets the counter to the end: other threads stop before their next block, then it is raised.
    """
    counter = np.zeros(1, np.int64)
    workers = min(threads(), count // least)
    if workers < 2:
        if count > 0:
            work(counter)
        return
    job = _Shares(work, counter, count)
    _run(job, workers - 1, job.drain, blas=False)


def take(counter: np.ndarray) -> int:
    """Return the next number of a counter of share_out: what loops do by an instruction of the processor."""
    return _numbers.take(counter)


def _run(job: _Job, helpers: int, drain: Callable[[], None], *, blas: bool) -> None:
    """Do a job with so many helpers; here by drain().

    _end is called once more for an interrupt that hits the very step into it.
    """
    try:
        try:
            if blas:
                _blas.hold(sys._getframe())
            if helpers > 0:
                _crew.call(job, helpers)
            drain()
        finally:
            _end(job, sys._getframe() if blas else None)
    finally:
        if not job.ended:
            _end(job, sys._getframe() if blas else None)
    if job.errors:
        raise job.first_error()


def _end(job: _Job, frame: FrameType | None) -> None:
    """Wait for helpers and give BLAS back its threads, where a frame has held it; then raise the last interrupt of these."""
    interrupt = None
    while True:
        try:
            job.close()
            if frame is not None:
                _blas.let_go(frame)
            job.ended = True
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        job.errors.clear()  # see first_error
        raise interrupt


def quiet(function: Function) -> Function:
    """Compute as IEEE says, without NumPy's warnings: NaN and infinities are results here.

    What NumPy warns of is a context variable.  It is set in a context of the call's own, which Python leaves in one
    step: an interrupt cannot leave the caller without warnings.
    """
    silent = np.errstate(all="ignore")(function)

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return contextvars.copy_context().run(silent, *args, **kwargs)

    return run  # type: ignore[return-value]


def ranges(total: int, size: int) -> list[tuple[int, int]]:
    """Cut range(total) into pieces of at most `size`: [(first, past the last), ...]."""
    return [(first, min(first + size, total)) for first in range(0, total, size)]


def scratch(slot: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return uninitialised memory of this thread, reused by its next call with the same slot."""
    count = math.prod(shape)
    nbytes = count * dtype.itemsize
    buffers: dict[str, np.ndarray] = _local.__dict__
    buffer = buffers.get(slot)
    if buffer is None or buffer.nbytes < nbytes:
        buffer = buffers[slot] = aligned(nbytes)
    return buffer[:nbytes].view(dtype).reshape(shape)


class _Job:
    """The work of one call, which its caller and helpers do together: drain() does what nobody else has begun."""

    def __init__(self) -> None:
        self.ended = False
        self.errors: list[BaseException] = []
        self._turns: list[Any] = []  # a lock for each helper, which holds it while it works; in the end the caller's

    def drain(self) -> None:
        """Work until nothing is left to begin, or until an error."""
        raise NotImplementedError

    def stop(self) -> None:
        """Let nothing be begun any more."""
        raise NotImplementedError

    def forget(self) -> None:
        """Let go of arrays."""
        raise NotImplementedError

    def turn(self) -> Any:
        """Return the lock of a new helper."""
        turn = threading.RLock()
        self._turns.append(turn)
        return turn

    def help(self, turn: Any) -> None:
        """Work in a helper's thread; one that comes too late does nothing."""
        if turn.acquire(blocking=False):
            try:
                self.drain()
            finally:
                turn.release()

    def first_error(self) -> BaseException:
        """Return the first error and forget them all: a job that knew its own frames would keep their arrays alive."""
        first = self.errors[0]
        self.errors.clear()
        return first

    def close(self) -> None:
        """Let nothing be begun any more, and wait for what has been; once is as good as twice."""
        self.stop()
        for turn in self._turns:
            turn.acquire()
        self.forget()  # helpers that come too late have the job still


class _Blocks(_Job):
    """Blocks that Python takes one after the other."""

    def __init__(self, work: Callable[[Any], object], blocks: Iterable[Any]) -> None:
        super().__init__()
        self.blocks = list(blocks)
        self._next = itertools.count()  # each number is given out once, whoever asks
        self._stopped = False
        self._work = work

    def drain(self) -> None:
        """Work until no block is left, or until an error."""
        blocks, count = self.blocks, len(self.blocks)
        # Whoever has a number works on its block, whatever ends meanwhile: nobody else will.
        while not (self.errors or self._stopped) and (index := next(self._next)) < count:
            try:
                self._work(blocks[index])
            except BaseException as error:  # noqa: BLE001 - raised by the caller, after all have stopped
                self.errors.append(error)

    def stop(self) -> None:
        """Let no block be begun any more."""
        self._stopped = True

    def forget(self) -> None:
        """Let go of arrays."""
        self.blocks.clear()
        self._work = _nothing


class _Shares(_Job):
    """Blocks whose numbers the work itself takes from a counter."""

    def __init__(self, work: Callable[[np.ndarray], object], counter: np.ndarray, count: int) -> None:
        super().__init__()
        self._counter, self._count = counter, count
        self._work = work

    def drain(self) -> None:
        """Do a share of the work."""
        try:
            self._work(self._counter)
        except BaseException as error:  # noqa: BLE001 - raised by the caller, after all have stopped
            self.errors.append(error)
            self.stop()

    def stop(self) -> None:
        """Let no block be begun any more."""
        _numbers.set(self._counter, self._count)

    def forget(self) -> None:
        """Let go of arrays."""
        self._work = _nothing


def _nothing(block: Any) -> None:
    """Work that is over."""


class _Numbers:
    """Takes numbers from counters, one thread at a time.  Loops do without: to them, set() is one step as well."""

    def __init__(self) -> None:
        self._lock = new_lock()

    @alone
    def take(self, counter: np.ndarray) -> int:
        """Return counter[0] and add 1 to it."""
        number = int(counter[0])
        counter[0] = number + 1
        return number

    @alone
    def set(self, counter: np.ndarray, number: int) -> None:
        """Go on from a number."""
        counter[0] = number


class _Crew:
    """Threads that wait for jobs to help with: as many as were ever wanted at once, for as long as the process lives.

    A job never depends on them: its caller takes block after block until none is left, and waits for those who have
    begun.  So threads that are busy, or that the system refuses, cost time and nothing else.
    """

    def __init__(self) -> None:
        self._lock = new_lock()
        self._jobs: queue.SimpleQueue[tuple[_Job, Any]] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()

    def call(self, job: _Job, helpers: int) -> None:
        """Ask for so many helpers."""
        if len(self._threads) < helpers:
            self._grow(helpers)
        for _ in range(min(helpers, len(self._threads))):
            self._jobs.put((job, job.turn()))

    @alone
    def _grow(self, count: int) -> None:
        while len(self._threads) < count:
            thread = threading.Thread(target=self._serve, name="gpuconv", daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError):  # no more threads, or the interpreter is shutting down
                return
            self._threads.add(thread)

    def _serve(self) -> None:
        self._threads.add(threading.current_thread())  # _grow may have been interrupted before it did
        np.seterr(all="ignore")  # as in quiet
        while True:
            job, turn = self._jobs.get()
            job.help(turn)
            del job, turn  # and the arrays they know


class _Blas:
    """Holds BLAS to one thread while anyone is inside; the last one out restores what was.

    Who is inside is known by thread and by the frame of its call, for an interrupt may hit the very way out: a frame
    that is on its thread's stack no more has left.
    """

    def __init__(self, counts: list[tuple[Any, int]] | None = None) -> None:
        self._lock = new_lock()
        self._inside: dict[int, FrameType] = {}
        self._counts = counts  # of each library what is to be restored; None: BLAS is not held
        self._libraries: list[Any] | None = None

    @alone
    def hold(self, frame: FrameType) -> None:
        """Enter; frame is the caller's own."""
        outer = self._inside.get(threading.get_ident())
        if outer is not None and _is_running(outer):
            return  # a call inside a call of this thread, which leaves last
        self._inside[threading.get_ident()] = frame
        if self._libraries is None:
            self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        if self._counts is None:
            self._counts = [(library, library.get_num_threads()) for library in self._libraries]
        for library, _ in self._counts:
            library.set_num_threads(1)

    @alone
    def let_go(self, frame: FrameType) -> None:
        """Leave; once is as good as twice."""
        if self._inside.get(threading.get_ident()) is frame:
            self._inside.pop(threading.get_ident(), None)
        if self._counts is not None and not self._inside:
            for library, count in self._counts:
                library.set_num_threads(count)
            self._counts = None

    def forked(self) -> _Blas:
        """Return what a forked child begins with: nobody is inside, and what was not restored is to be."""
        return _Blas(self._counts)


def _is_running(frame: FrameType) -> bool:
    """Return whether a frame is one of those below, in this thread."""
    below: FrameType | None = sys._getframe()
    while below is not None and below is not frame:
        below = below.f_back
    return below is not None


_local = threading.local()
_crew = _Crew()
_blas = _Blas()
_numbers = _Numbers()


def _forget_threads() -> None:
    """Start anew in a forked child, where the parent's threads do not exist."""
    global _crew, _blas, _numbers
    _crew, _blas, _numbers = _Crew(), _blas.forked(), _Numbers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
