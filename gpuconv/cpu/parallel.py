"""Worker threads over blocks of a batch, and the scratch memory they reuse.

NumPy and compiled loops release the interpreter lock, so threads use every core.  for_each calls work for block after
block, and holds BLAS to one thread meanwhile: its threads and ours never multiply.  share_out calls loops once a
thread, which take one block after the other without meeting at that lock.  How work is cut into blocks depends on sizes
alone, never on the number of threads, so results are equal bit for bit for any GPUCONV_THREADS.
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
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from ..errors import ConfigError
from .arrays import watch as asleep
from .compiled import loaded, passes
from .lock import alone, new_lock
from .memory import aligned

# Elements of an array that one block covers where work is a few NumPy calls on long rows: each call then lasts about
# 50 microseconds, so threads rarely meet at the interpreter lock, and blocks still fit the L3 cache.
BLOCK_ELEMENTS = 512 * 1024

# How many calls of share_out at once may have counters that helpers look at.
_SLOTS = 64
_FLOAT32 = np.dtype(np.float32)

Block = TypeVar("Block")
Function = TypeVar("Function", bound=Callable)


def threads() -> int:
    """Return how many threads work at once: GPUCONV_THREADS, else the cores this process may use."""
    wanted = os.environ.get("GPUCONV_THREADS", "")
    if not wanted:
        return _cores()
    if not wanted.isdecimal() or not 1 <= int(wanted) <= 1024:
        msg = f"GPUCONV_THREADS must be a number from 1 to 1024, got {wanted!r}"
        raise ConfigError(msg)
    return int(wanted)


_shares = [1]  # among how many processes the cores are shared


def share_cores(processes: int) -> None:
    """Take one of so many equal shares of the cores from now on."""
    _shares[0] = processes


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (usable or 1) // _shares[0])


def for_each(work: Callable[[Block], object], blocks: Iterable[Block], *, blas: bool = True) -> None:
    """Call work(block) for every block, on all threads, in any order; raise the first error after all have stopped.

    blas=False: work calls no BLAS, which is left alone then.
    An interrupt ends it like an error.  Others may come while it is ending: see _end.
    """
    blocks = list(blocks)
    job = _Job(_each(work, blocks), len(blocks))
    helpers = min(threads(), len(blocks)) - 1 if len(blocks) > 1 else 0
    _run(job, helpers, functools.partial(_quietly, job.share), blas=blas)


def share_out(work: Callable[[np.ndarray], object], count: int, least: int = 1) -> None:
    """Call work(counter) on all threads, once each: it takes numbers of blocks from the counter until `count` is reached.

    It does so by take(counter), here or in loops/atomic.py: each number is given out once.  A thread is asked for every
    `least` blocks, which should last longer than to ask for it.  NumPy's warnings are the caller's affair, and BLAS is
    left alone.

    An error or an interrupt sets the counter to the end: other threads stop before their next block, then it is raised.
    """
    workers = min(threads(), count // least)  # a wrong setting is named in any call
    if workers < 2:
        if count > 0:
            work(np.zeros(1, np.int64))
        return
    job, crew = _Job(work, count), _crew
    try:
        crew.lend_counter(job)
        _run(job, workers - 1, job.share, blas=False)
    finally:
        if job.slot and (job.ended or not job.turns):  # else a helper may know it still
            crew.free.append(job.slot)


def take(counter: np.ndarray) -> int:
    """Return the next number of a counter of share_out: for NumPy what loops/atomic.py has for loops."""
    return _numbers.take(counter)


def blocks(counter: np.ndarray, total: int, size: int) -> Iterator[slice]:
    """Cut range(total) into pieces of at most `size`, and yield those that fall to this thread."""
    while (first := take(counter) * size) < total:
        yield slice(first, min(first + size, total))


def _each(work: Callable[[Any], object], blocks: list[Any]) -> Callable[[np.ndarray], None]:
    """Return what a thread does of work on blocks; the counter only tells it to stop."""
    numbers = itertools.count()  # each is given out once, whoever asks

    def share(counter: np.ndarray) -> None:
        # Whoever has a number works on its block, whatever ends meanwhile: nobody else will.
        while counter[0] == 0 and (index := next(numbers)) < len(blocks):
            work(blocks[index])

    return share


def _run(job: _Job, helpers: int, share: Callable[[], None], *, blas: bool) -> None:
    """Do a job with so many helpers, here by share().

    _end is called once more for an interrupt that hits the very step into it.
    """
    if helpers > 0 or blas:
        try:
            try:
                if blas:
                    _blas.hold(sys._getframe())
                if helpers > 0:
                    _crew.call(job, helpers)
                share()
            finally:
                _end(job, sys._getframe() if blas else None)
        finally:
            if not job.ended:
                _end(job, sys._getframe() if blas else None)
    else:
        share()
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

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return _quietly(function, *args, **kwargs)

    return run  # type: ignore[return-value]


def _quietly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return contextvars.copy_context().run(_silent, function, args, kwargs)


@np.errstate(all="ignore")
def _silent(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return function(*args, **kwargs)


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


class _Turn:
    """A helper's part in a job: it holds a lock while it works, and the caller in the end for good.

    Where loops run, the caller looks out for the helper's end before it sleeps.  The helper says so in a word, when the
    lock is free and it needs the interpreter no more.
    """

    def __init__(self, watch: Any) -> None:
        self.watch = watch
        self.ended = np.zeros(1, np.int64)
        self._lock = threading.RLock()

    def begin(self) -> bool:
        """Return whether the helper is not too late."""
        return self._lock.acquire(blocking=False)

    def end(self) -> None:
        """Let the caller go on."""
        self._lock.release()

    def close(self) -> None:
        """Wait for the helper if it has begun, and let it not begin any more."""
        if not self._lock.acquire(blocking=False):
            # No longer than about what it takes to be woken: the core may be what the helper waits for.
            self.watch.changes(self.ended, 0, self.watch.LOOKS // 3)
            self._lock.acquire()


class _Job:
    """The work of one call, which its caller and helpers do together: each a share, until the counter is at its end.

    slot: which of the counters that helpers look at is this one's, or 0.
    """

    def __init__(self, work: Callable[[np.ndarray], object], count: int) -> None:
        self.ended = False
        self.errors: list[BaseException] = []
        self.counter: np.ndarray = np.zeros(1, np.int64)
        self.slot = 0
        self.turns: list[_Turn] = []
        self._count = count
        self._work = work

    def turn(self, watch: Any) -> _Turn:
        """Return the turn of a new helper."""
        turn = _Turn(watch)
        self.turns.append(turn)
        return turn

    def help(self, turn: _Turn) -> None:
        """Work in a helper's thread; one that comes too late does nothing."""
        if turn.begin():
            try:
                self.share()
            finally:
                turn.end()

    def share(self) -> None:
        """Work until no block is left to begin, or until an error."""
        try:
            self._work(self.counter)
        except BaseException as error:  # noqa: BLE001 - raised by the caller, after all have stopped
            self.errors.append(error)
            self._stop()

    def first_error(self) -> BaseException:
        """Return the first error and forget them all: a job that knew its own frames would keep their arrays alive."""
        first = self.errors[0]
        self.errors.clear()
        return first

    def close(self) -> None:
        """Let no block be begun any more, and wait for those that are; once is as good as twice."""
        if self.turns:
            self._stop()
        for turn in self.turns:
            turn.close()
        self._work = _nothing  # helpers that come too late have the job still, but no array any more

    def _stop(self) -> None:
        if self.counter[0] < self._count:
            _numbers.set(self.counter, self._count)


def _nothing(counter: np.ndarray) -> None:
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

    Where loops run, whoever has helped looks out for the next call a moment before it sleeps.  None does so where there
    are more threads than cores: it would take the place of one that works.
    """

    def __init__(self) -> None:
        self._lock = new_lock()
        self._jobs: queue.SimpleQueue[tuple[_Job, _Turn]] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._cores = _cores()
        # What helpers look at, for as long as the crew lives: the number of the latest call, whose remainder is the
        # slot of its counter, and counters, in a cache line each; 0 is that of jobs that have none.
        self._call = np.zeros(1, np.int64)
        self._counters = aligned(_SLOTS * 64).view(np.int64).reshape(_SLOTS, 8)
        self._counters.fill(1)
        self._numbers = itertools.count(_SLOTS, _SLOTS)
        self.free = list(range(1, _SLOTS))
        self._awake: Any = None  # loops of watch.py, from the first call on that finds loops in use

    def lend_counter(self, job: _Job) -> None:
        """Give a job, which has not begun, a counter that helpers look at, if there is one in no use."""
        try:
            job.slot = self.free.pop()
        except IndexError:  # as many calls at once, or interrupted while they gave theirs back
            return
        job.counter = self._counters[job.slot]
        job.counter[0] = 0

    def call(self, job: _Job, helpers: int) -> None:
        """Ask for so many helpers."""
        if len(self._threads) < helpers:
            self._grow(helpers)
        watch = self._watch()
        for _ in range(min(helpers, len(self._threads))):
            self._jobs.put((job, job.turn(watch)))
        self._call[0] = next(self._numbers) + job.slot

    def _watch(self) -> Any:
        """Return how the threads of a call wait for each other."""
        if len(self._threads) >= self._cores:
            return asleep
        if self._awake is None and loaded():
            self._awake = passes("watch", _FLOAT32)
        return self._awake or asleep

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
            watch, ended = turn.watch, turn.ended
            del job, turn  # and the arrays they know
            seen = int(self._call[0])  # before the queue is looked at: a call that comes later has another number
            looks = watch.LOOKS if self._jobs.empty() else 0
            watch.report(ended, self._call, self._counters, seen, looks)


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
