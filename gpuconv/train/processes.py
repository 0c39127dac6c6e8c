"""Processes that train one net together: who they are, and how bytes and objects go from each to the others, by MPI.

All of it is one exchange: a process sends some buffers and receives some.  While it waits it looks for a word of a
process that has failed, and at the time, so that none waits for ever for one that is gone, stopped or in trouble.
"""

from __future__ import annotations

import atexit
import os
import pickle
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import (
    CheckpointWriteError,
    ConfigError,
    GpuconvError,
    NonFiniteLossError,
    ProcessError,
    SaidElsewhereError,
)
from ..extras import install
from .last_word import LastWord

WAIT_SETTING = "GPUCONV_WAIT"
_WAIT = 12.0  # seconds that a process which does not answer is waited for, beside three times what was needed here
_LONG_WAIT = 600.0  # for what one process does for all: reading, downloading, writing
_ROLL_CALL = 3.0  # seconds in which the others are to say that they have failed, too
_LOOK_EVERY = 50  # tries of an exchange between two looks at the others
_SPINS = 2000  # tries before a waiting process lets others have its core

# What starts processes says how many there are: MPICH and Intel MPI, Open MPI, and Slurm for a task of a job step.
_COUNTS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE")

OWN, LATE, FOLLOWS = range(3)  # why a process fails: by itself, having waited too long, or after another one
_SAID = 1  # the tag of the word that all has been said
_EXPECTED = (GpuconvError, OSError, MemoryError, KeyboardInterrupt, SystemExit)


class Processes:
    """The processes of a run.

    rank: the number of this one, from 0.   size: how many.   local_rank, local_size: the same, on this machine.
    """

    def __init__(self, MPI: Any) -> None:
        world = MPI.COMM_WORLD
        self._MPI, self._talk, self._words = MPI, world.Dup(), world.Dup()
        self.rank, self.size = int(world.Get_rank()), int(world.Get_size())
        here = world.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = int(here.Get_rank()), int(here.Get_size())
        self.library = MPI.Get_library_version().splitlines()[0].replace("Version:", "").strip(" \t,\0")
        self._wait = _seconds_to_wait()
        self._since = time.monotonic()  # the end of the last exchange
        self._abandoned: list[Any] = []  # buffers of exchanges that never ended
        self._longest_watch: float | None = None  # in seconds
        self.on_failure: list[Callable[[], None]] = []  # what gives up work that waits for other processes
        self._speaks = False
        self.ended = False  # in an error that all processes know of
        self._failed: dict[int, tuple[int, int, str]] = {}  # why, exit code and text, by rank
        self._last_word = self._promise()

    def _promise(self) -> LastWord | None:
        """Let something be said if this process ends without a word: on Linux, and elsewhere by what started it."""
        name = self.first(lambda: f"gpuconv-{os.getpid()}-{time.time_ns()}")
        if sys.platform != "linux":
            return None
        msg = (
            f"gpuconv: error: process {self.rank} of {self.size} has ended without a word: it was killed, as by a system "
            "that runs out of memory, or has crashed"
        )
        word = LastWord(name, msg)
        atexit.register(word.withdraw)
        return word

    @property
    def others(self) -> list[int]:
        return [rank for rank in range(self.size) if rank != self.rank]

    def sharing_cores(self) -> int:
        """Return how many processes may use the cores that this one may use."""
        own = platform.node(), tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
        return self.gather_objects(own, long=True).count(own)

    # Exchanges ------------------------------------------------------------------------------------------------------

    def exchange(
        self, sends: Mapping[int, np.ndarray], receives: Mapping[int, np.ndarray], *, long: bool = False
    ) -> None:
        """Send arrays to processes and fill others with what these send, C-contiguous all; of the same size there.

        long: one of them may be at something that takes its time.
        Raises ProcessError if another process has failed, or one that is waited for does not answer.
        """
        own, talk = time.monotonic() - self._since, self._talk
        requests = {
            ("from", rank): talk.Irecv([_bytes(array), self._MPI.BYTE], rank) for rank, array in receives.items()
        }
        requests |= {("to", rank): talk.Isend([_bytes(array), self._MPI.BYTE], rank) for rank, array in sends.items()}
        pending = list(requests.values())
        try:
            self._finish(pending, requests, (_LONG_WAIT if long else self._wait) + 3 * own)
        except BaseException:
            self._abandon(requests, [*sends.values(), *receives.values()])
            raise
        self._since = time.monotonic()

    def _finish(self, pending: list[Any], requests: Mapping[Any, Any], limit: float) -> None:
        start, tries, test = time.monotonic(), 0, self._MPI.Request.Testall
        while not test(pending):
            tries += 1
            if tries % _LOOK_EVERY == 0:
                self._hear()
                self._follow()
                if time.monotonic() - start > limit:
                    raise self._late([rank for (_, rank), request in requests.items() if not _done(request)], limit)
            if tries > _SPINS:
                time.sleep(50e-6 if tries > 2 * _SPINS else 0)

    def watch(self) -> Callable[[], None]:
        """Return what to call again and again while a GPU is waited for: it raises ProcessError as an exchange does.

        The first time anything may still be compiled.
        """
        start, longest = time.monotonic(), self._longest_watch
        limit = _LONG_WAIT if longest is None else self._wait + 3 * longest

        def look() -> None:
            self._hear()
            self._follow()
            waited = time.monotonic() - start
            if waited > limit:
                raise self._late([], limit)
            self._longest_watch = max(waited, self._longest_watch or 0.0)
            time.sleep(50e-6)

        return look

    def _late(self, ranks: list[int], limit: float) -> ProcessError:
        names = " and ".join(map(str, sorted(set(ranks))))
        who = f"process {names} of {self.size}" if ranks else f"another process of {self.size}, or its GPU,"
        msg = (
            f"{who} has not answered for {limit:.0f} s: it hangs, was stopped, or works far slower "
            f"than the others ({WAIT_SETTING}=seconds waits longer)"
        )
        return ProcessError(msg, why=LATE)

    def _abandon(self, requests: Mapping[Any, Any], buffers: list[Any]) -> None:
        for (way, _), request in requests.items():
            if way == "from" and not _done(request):
                request.Cancel()
        self._abandoned += [*requests.values(), *buffers]

    def gather(self, array: np.ndarray, *, long: bool = False) -> np.ndarray:
        """Return the arrays of all processes, of one shape and dtype: (size, *shape)."""
        own = np.ascontiguousarray(array)
        found = np.empty((self.size, *own.shape), own.dtype)
        found[self.rank] = own
        self.exchange(dict.fromkeys(self.others, own), {rank: found[rank] for rank in self.others}, long=long)
        return found

    def gather_objects(self, value: Any, *, long: bool = False) -> list[Any]:
        """Return the values of all processes, whatever can be pickled."""
        own = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = self.gather(np.array([own.size]), long=long)[:, 0]
        found = {rank: np.empty(sizes[rank], np.uint8) for rank in self.others}
        self.exchange(dict.fromkeys(self.others, own), found, long=long)
        return [value if rank == self.rank else pickle.loads(found[rank].tobytes()) for rank in range(self.size)]

    def first(self, make: Callable[[], Any]) -> Any:
        """Return what the first process makes, on all; the error that it meets is raised on all."""
        if self.rank == 0:
            try:
                outcome = True, make()
            except Exception as error:  # noqa: BLE001 - raised below, on all
                outcome = False, error
            self._send_object(outcome)
        else:
            size = np.empty(1, np.int64)
            self.exchange({}, {0: size}, long=True)
            content = np.empty(int(size[0]), np.uint8)
            self.exchange({}, {0: content})
            outcome = pickle.loads(content.tobytes())
        made, value = outcome
        if not made:
            raise value
        return value

    def _send_object(self, value: Any) -> None:
        content = np.frombuffer(_pickled(value), np.uint8)
        self.exchange(dict.fromkeys(self.others, np.array([content.size])), {}, long=True)
        self.exchange(dict.fromkeys(self.others, content), {}, long=True)

    # Failures -------------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Take in what processes that have failed say."""
        status = self._MPI.Status()
        while self._words.Iprobe(self._MPI.ANY_SOURCE, self._MPI.ANY_TAG, status):
            rank = status.Get_source()
            self._failed[rank] = self._words.recv(source=rank)

    def _follow(self) -> None:
        """Raise ProcessError if another process has failed."""
        if self._failed:
            rank = min(self._failed, key=lambda rank: (self._failed[rank][0], rank))
            why, code, text = self._failed[rank]
            raise ProcessError(self._of(rank, text, why), code, FOLLOWS)

    def _of(self, rank: int, text: str, why: int) -> str:
        """Return what a process says, with its number where it speaks of itself."""
        return f"process {rank} of {self.size}: {text}" if why == OWN else text

    def end_in(self, error: BaseException, code: int) -> BaseException:
        """Tell the others of an error that ends this process; return the one to raise, which may be another's.

        One of the processes says what was wrong.  Where all have failed they end by themselves; where one does not
        answer, which cannot go on without the others, all are ended here.
        """
        self.ended = True
        expected = isinstance(error, _EXPECTED)
        if not expected:
            traceback.print_exception(error)
        why, text = getattr(error, "why", OWN), _in_words(error)
        own = why, code, text
        self._abandoned += [self._words.isend(own, rank) for rank in self.others]
        end = time.monotonic() + _ROLL_CALL
        while len(self._failed) < self.size - 1 and time.monotonic() < end:
            self._hear()
            time.sleep(1e-3)
        failed = {**self._failed, self.rank: own}
        cause = min(failed, key=lambda rank: (failed[rank][0], rank))
        why, code, text = failed[cause]
        alike = len(failed) == self.size and len(set(failed.values())) == 1
        if not alike:
            text = self._of(cause, text, why)
        speaks = self._speaks = self.rank == min(failed)
        if len(failed) < self.size:
            if speaks:
                sys.stdout.flush()
                sys.stderr.write(f"gpuconv: error: {text}\n")
                sys.stderr.flush()
                if self._last_word is not None:
                    self._last_word.silence()
                self._MPI.COMM_WORLD.Abort(code)
            time.sleep(_ROLL_CALL)  # whoever speaks ends this one, too
            self._MPI.COMM_WORLD.Abort(code)
        if not speaks:
            return SaidElsewhereError(text, code)
        return error if alike and expected else ProcessError(text, code)

    def leave(self, code: int) -> None:
        """End MPI before a process exits with a code other than 0, of which mpi4py would make an abort of all.

        All processes call this.  Where messages are still on their way MPI cannot be ended: the process ends here.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        if self._last_word is not None:
            self._last_word.withdraw()
        for give_up in self.on_failure:
            give_up()
        if self.on_failure or any(not _done(each) for each in self._abandoned if isinstance(each, self._MPI.Request)):
            self._until_said()
            os._exit(code)
        self._MPI.Finalize()

    def _until_said(self) -> None:
        """Wait until the one that speaks has done so: what started the processes ends all when the first one exits."""
        end = time.monotonic() + _ROLL_CALL
        sent = [self._words.isend(None, rank, _SAID) for rank in self.others] if self._speaks else []

        def said() -> bool:
            return all(map(_done, sent)) if sent else bool(self._words.Iprobe(self._MPI.ANY_SOURCE, _SAID))

        while not said() and time.monotonic() < end:
            time.sleep(1e-3)


@contextmanager
def ending_together() -> Iterator[None]:
    """Let an error in a with block end all processes, and one of them say it."""
    processes = start()
    try:
        yield
    except BaseException as error:
        if processes is None or processes.ended:
            raise
        raised = processes.end_in(error, code_of(error))
        if raised is error:
            raise
        raise raised from error


def leave(code: int) -> None:
    """End MPI, where there are many processes, before all exit with a code other than 0."""
    if _known:
        _known[0].leave(code)


_known: list[Processes] = []  # once they have been found


def start() -> Processes | None:
    """Return the processes of this run; None where there is one only.

    Raises ConfigError where several were started that cannot find each other.
    """
    if _known:
        return _known[0]
    count = started()
    if count < 2 and "mpi4py" not in sys.modules:  # by its name, as in python -m mpi4py
        return None
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        many = f"{count} processes were started" if count > 1 else "python -m mpi4py is for many processes"
        msg = f"{many}, but without MPI they cannot find each other ({error}): {install('mpi')}"
        raise ConfigError(msg) from error
    size = MPI.COMM_WORLD.Get_size()
    if size < count:
        library = MPI.Get_library_version().splitlines()[0]
        msg = (
            f"{count} processes were started, but by another MPI than mpi4py has found ({library.strip()}), in which each "
            "is alone: start them with the mpiexec that belongs to it, or by srun --mpi=pmi2 or --mpi=pmix"
        )
        raise ConfigError(msg)
    if size == 1:
        return None
    _known.append(Processes(MPI))
    return _known[0]


def refuse_many(what: str) -> None:
    """Raise ConfigError in one of many processes, for what only a single one does."""
    if start() is not None:
        msg = f"{what} is for one process: start it without mpiexec"
        raise ConfigError(msg)


def started() -> int:
    """Return how many processes were started together, as far as what started them says."""
    counts = [os.environ.get(name, "") for name in _COUNTS]
    if "mpi4py" in sys.modules:  # tasks of a job step may also be runs of their own
        counts.append(os.environ.get("SLURM_STEP_NUM_TASKS", ""))
    return max((int(count) for count in counts if count.isdecimal()), default=1)


def _seconds_to_wait() -> float:
    wanted = os.environ.get(WAIT_SETTING, "")
    try:
        seconds = float(wanted) if wanted else _WAIT
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        msg = f"{WAIT_SETTING} must be a number of seconds above 0, at most 86400, got {wanted!r}"
        raise ConfigError(msg)
    return seconds


def _bytes(array: np.ndarray) -> Any:
    return array.reshape(-1).view(np.uint8)


def _done(request: Any) -> bool:
    return bool(request.Test())


def code_of(error: BaseException) -> int:
    """Return what the command line exits with for an error."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + int(getattr(error, "signum", 2))
    if isinstance(error, ProcessError | SaidElsewhereError):
        return error.code
    for kind, code in ((ConfigError, 2), (CheckpointWriteError, 4), (NonFiniteLossError, 5)):
        if isinstance(error, kind):
            return code
    return 1


def _in_words(error: BaseException) -> str:
    """Return what is said of an error."""
    if isinstance(error, MemoryError):
        return f"out of memory ({error}): a smaller batch or net needs less"
    text = "stopped at once" if isinstance(error, SystemExit) else str(error) or "stopped at once"
    return text if isinstance(error, _EXPECTED) else f"{type(error).__name__}: {text}"


def _pickled(outcome: Any) -> bytes:
    """Return an outcome as bytes; an error that cannot go to others goes as what it says."""
    try:
        content = pickle.dumps(outcome)
        pickle.loads(content)
    except Exception:
        made, error = outcome
        if made:
            raise
        content = pickle.dumps((False, ProcessError(str(error), code_of(error))))
    return content
