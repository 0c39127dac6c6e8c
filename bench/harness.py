"""The one way of comparing: check every side against the oracle, then time them in turn, round by round.

Each side lives in a process of its own, where its threads, its allocator and its CUDA libraries disturb nobody.  All
get the same cores, threads and arrays, and are warm before they are timed.  Rounds go through the sides and their
memory formats forwards and backwards by turns (A B C, C B A, ...), so that a machine that slows down slows all alike.
Where a process's arrays happen to lie can make it faster or slower for all its life; so a case's rounds can be spread
over several processes of each side, one after the other.

A second process of each side, of one thread, can measure processor time beside it: other work on the machine takes cores
from a side that wants them all, and little from that.
"""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from typing import Any, Protocol

import numpy as np

from gpuconv.backend import loops_in_words
from gpuconv.runs.machine import blas, processor

from . import oracle, peers, worker
from .cases import Case
from .inputs import REGIMES, draw
from .load import OtherWork
from .results import FAILED, MEASURED, NOT_INSTALLED, NOT_OFFERED, ONE_THREAD, OURS, WRONG, Entry, Result, Row

_ROUND_SECONDS = 0.06
_REST_SECONDS = 0.01  # lets the threads of the side that just ran stop spinning
_LEAST_ROUNDS = 4  # and one for each process
_ONE_THREAD_SECONDS = 0.01  # of a round: processor time needs no long ones
_ONE_THREAD_ROW_SECONDS = 0.5  # of all rounds of a row
_ONE_THREAD_ROUNDS = (3, 8)  # the least and the most
_THREAD_VARIABLES = ("GPUCONV_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Settings:
    """How a run measures.

    row_seconds: a row of slow calls gets fewer rounds, but never below four.   processes: how many of each side, one
    after the other, share the rounds of a case.   one_thread: processor time of one thread, too.
    """

    device: str = "cpu"
    threads: int = 1
    rounds: int = 12
    processes: int = 1
    row_seconds: float = 20.0
    regimes: tuple[str, ...] = ("float32",)
    memory: bool = True
    one_thread: bool = False


class SideError(Exception):
    """A side that cannot: status is "not offered", "not installed" or "failed", the message says why."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


class CutShort(KeyboardInterrupt):
    """Ctrl-C between the first row and the last; result has the rows until then, of whole cases."""

    def __init__(self, result: Result) -> None:
        super().__init__()
        self.result = result


class Asked(Protocol):
    """What the harness asks of a side; raises SideError."""

    name: str

    def ask(self, method: str, *arguments: Any) -> Any:
        """Return what Worker's method of that name returns."""

    def memory(self, case: Case, layout: str, regime: str) -> dict[str, int]:
        """Return the peak extra bytes of each direction."""

    def stop(self) -> None:
        """End the process; the next question starts another."""


class Side:
    """The harness's end of one worker process, which is started again if it dies."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name, self._settings = name, settings
        peer = peers.load(name)
        self._metered, self._variables = settings.device in peer.metered, peer.variables
        self._process: Any = None
        self._busy = False

    def ask(self, method: str, *arguments: Any) -> Any:
        if self._process is None:
            self._start()
            if method != "start":
                self.ask("start")
        self._busy = True
        try:
            self._pipe.send((method, arguments))
            status, answer = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join()
            code, self._process = self._process.exitcode, None
            raise SideError(FAILED, f"its process ended with status {code}") from None
        self._busy = False
        if status != "ok":
            raise SideError(status, answer)
        return answer

    def memory(self, case: Case, layout: str, regime: str) -> dict[str, int]:
        if not self._metered:
            return {}
        fresh = Side(self.name, self._settings)
        try:
            return fresh.ask("memory", case, layout, regime)
        finally:
            fresh.stop()

    def stop(self) -> None:
        """End the process, at once if it still works on an answer; the next question starts another."""
        if self._process is not None:
            if self._busy:
                self._process.terminate()
            with contextlib.suppress(OSError):
                self._pipe.send(None)
            self._process.join()
            self._process = None

    def _start(self) -> None:
        settings = self._settings
        self._pipe, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")  # a fork would inherit thread pools that are not there
        arguments = (self.name, settings.device, settings.threads, other)
        self._process = context.Process(target=worker.serve, args=arguments, daemon=True)
        with _environment(settings.threads, self._variables), _deaf_to_ctrl_c():
            self._process.start()
        other.close()
        self._busy = False


@contextlib.contextmanager
def _environment(threads: int, variables: Mapping[str, str]) -> Iterator[None]:
    """Give processes started inside these variables, so many threads and, where the system can, as many cores."""
    given = dict.fromkeys(_THREAD_VARIABLES, str(threads)) | variables
    before = {name: os.environ.get(name) for name in given}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    os.environ.update(given)
    if len(cores) > threads:
        os.sched_setaffinity(0, sorted(cores)[:threads])
    try:
        yield
    finally:
        if len(cores) > threads:
            os.sched_setaffinity(0, cores)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Let processes started inside leave Ctrl-C, which a terminal sends to all, to this one; here it waits until they are."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would let it through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Watch:
    """What a run tells while it goes on; this one does not listen."""

    def peaks(self, peaks: Mapping[str, float]) -> None:
        """The machine has been measured for the first time."""

    def case(self, case: Case, regime: str) -> None:
        """A case begins."""

    def doing(self, what: str) -> None:
        """Something within it begins."""

    def row(self, row: Row) -> None:
        """A row is done."""

    def end_case(self) -> None:
        """The case is over."""


def run(cases: Sequence[Case], names: Sequence[str], settings: Settings, watch: Watch) -> Result:
    """Measure cases in gpuconv and in peers; raise CutShort for Ctrl-C, if there is a row."""
    other_work = OtherWork()
    started, known = _start([OURS, *names], settings)
    if known[OURS]["status"] != MEASURED:
        raise SideError(known[OURS]["status"], f"gpuconv itself: {known[OURS]['why']}")
    rows: list[Row] = []
    interrupted = False
    alone = [Side(side.name, replace(settings, threads=1)) for side in started] if settings.one_thread else []
    try:
        ours = started[0]
        peaks = ours.ask("peaks")
        watch.peaks(peaks)
        for regime in settings.regimes:
            for case in cases:
                watch.case(case, regime)
                done = compare(case, regime, started, settings, alone, watch)
                rows += done
                for row in done:
                    watch.row(row)
                watch.end_case()
        for name, value in ours.ask("peaks").items():  # the machine may have been busy the first time
            peaks[name] = max(value, peaks[name])
    except KeyboardInterrupt:
        if not rows:
            raise
        interrupted = True
    finally:
        for side in (*started, *alone):
            side.stop()
    where = machine(settings) | {"other_work": other_work.cores()}
    result = Result(where, _plain(settings), peaks, known, rows)
    if interrupted:
        result.settings["cut_short_of"] = len(cases) * len(settings.regimes)
        raise CutShort(result)
    return result


def _start(names: Sequence[str], settings: Settings) -> tuple[list[Side], dict[str, dict[str, str]]]:
    """Start every side that can be had; return them, and what is known of all."""
    started, known = [], {}
    for name in names:
        peer = peers.load(name)
        known[name] = {"label": peer.label if name != "self" else "gpuconv again", "version": "", "status": MEASURED}
        known[name]["why"] = ""
        if absent := peer.missing():
            known[name] |= {"status": NOT_INSTALLED, "why": f"no package {', '.join(absent)}"}
            continue
        side = Side(name, settings)
        try:
            known[name]["version"] = side.ask("start")
            started.append(side)
        except SideError as error:
            known[name] |= {"status": error.status, "why": str(error)}
            side.stop()
    return started, known


def compare(
    case: Case,
    regime: str,
    sides: Sequence[Asked],
    settings: Settings,
    alone: Sequence[Asked] = (),
    watch: Watch | None = None,
) -> list[Row]:
    """Return a row for each direction of a case: every side in every memory format, checked, then timed in turn.

    alone: the same sides in processes of one thread, whose processor time is measured last; none: it is not.
    """
    watch = watch or Watch()
    rows = {
        direction: Row(
            case.name,
            case.op,
            direction,
            regime,
            case.x[0],
            case.flop(direction),
            case.bytes(direction, np.dtype(REGIMES[regime]).itemsize),
        )
        for direction in case.directions
    }
    expected = oracle.references(draw(case, regime=regime))  # the layout changes no number
    by_name = {side.name: side for side in sides}
    for side in sides:
        watch.doing(f"checking {side.name}")
        for layout in case.layouts:
            for direction, entry in _checked(side, case, layout, regime, expected, settings).items():
                rows[direction].entries.append(entry)
    for process in range(settings.processes):
        if process:
            _renew(sides, case, regime, list(rows.values()))
        for direction, row in rows.items():
            watch.doing(f"timing {direction}")
            _time(row, direction, by_name, settings, process)
    if alone:
        watch.doing("timing one thread")
        _time_one_thread(case, regime, rows, alone, expected)
    for side in (*sides, *alone):
        with contextlib.suppress(SideError):
            side.ask("forget")
    return list(rows.values())


def _checked(
    side: Asked,
    case: Case,
    layout: str,
    regime: str,
    expected: dict[str, list[oracle.Reference]],
    settings: Settings,
) -> dict[str, Entry]:
    """Return a side's entries by direction, without times: "measured" says only that it may be timed."""
    entries = {direction: Entry(side.name, layout) for direction in case.directions}
    try:
        samples = side.ask("prepare", case, layout, regime)
    except SideError as error:
        for entry in entries.values():
            entry.status, entry.why = error.status, str(error)
        return entries
    extra: dict[str, int] = {}
    if settings.memory:
        with contextlib.suppress(SideError):
            extra = side.memory(case, layout, regime)
    for direction, entry in entries.items():
        if direction not in samples:
            entry.status, entry.why = NOT_OFFERED, f"has no {direction}"
            continue
        found = list(zip(expected[direction], samples[direction], strict=True))
        entry.error = max(reference.error(got) for reference, got in found)
        entry.extra_bytes = extra.get(direction)
        wrong = [reference.name for reference, got in found if not reference.agrees(got)]
        if wrong:
            entry.status, entry.why = WRONG, f"{', '.join(wrong)} off by {entry.error:.1e}"
            entry.error = entry.error if np.isfinite(entry.error) else None  # JSON knows no infinity
    return entries


def _renew(sides: Sequence[Asked], case: Case, regime: str, rows: Sequence[Row]) -> None:
    """Give every side a new process that is ready for what it is timed on."""
    for side in sides:
        side.stop()
        for layout in case.layouts:
            entries = [row.entry(side.name, layout) for row in rows]
            if not any(entry is not None and entry.measured for entry in entries):
                continue
            try:
                side.ask("prepare", case, layout, regime)
            except SideError as error:
                for entry in entries:
                    if entry is not None and entry.measured:
                        _drop(entry, error.status, str(error))


def _time(row: Row, direction: str, sides: dict[str, Asked], settings: Settings, process: int) -> None:
    """Fill in the times of a row's entries that this process of each side, counted from 0, is to take."""
    running, slowest = [], 0.0
    for entry in row.entries:
        if entry.measured:
            try:
                slowest += sides[entry.side].ask("warm", entry.layout, direction, _ROUND_SECONDS)
                running.append(entry)
            except SideError as error:
                entry.status, entry.why = error.status, str(error)
    rounds = min(
        settings.rounds, max(_LEAST_ROUNDS, settings.processes, int(settings.row_seconds / max(slowest, 1e-9)))
    )
    first, last = (rounds * share // settings.processes for share in (process, process + 1))
    for entry in turns(running, last - first, first):
        if not entry.measured:
            continue  # it failed in an earlier round
        time.sleep(_REST_SECONDS)
        try:
            for name, value in sides[entry.side].ask("time", entry.layout, direction).items():
                entry.times.setdefault(name, []).append(round(value, 6))
        except SideError as error:
            _drop(entry, error.status, str(error))


def _time_one_thread(
    case: Case,
    regime: str,
    rows: dict[str, Row],
    alone: Sequence[Asked],
    expected: dict[str, list[oracle.Reference]],
) -> None:
    """Add the processor times of one thread to the entries that are measured, where they are right there, too."""
    settings = Settings(memory=False)
    by_name = {side.name: side for side in alone}
    for side in alone:
        for layout in case.layouts:
            if not any((entry := row.entry(side.name, layout)) and entry.measured for row in rows.values()):
                continue
            for direction, checked in _checked(side, case, layout, regime, expected, settings).items():
                entry = rows[direction].entry(side.name, layout)
                if entry is not None and entry.measured and not checked.measured:
                    _drop(entry, checked.status, f"one thread: {checked.why}")
    for direction, row in rows.items():
        running, slowest = [], 0.0
        for entry in row.entries:
            if entry.measured:
                try:
                    slowest += by_name[entry.side].ask("warm", entry.layout, direction, _ONE_THREAD_SECONDS)
                    running.append(entry)
                except SideError as error:
                    _drop(entry, error.status, f"one thread: {error}")
        least, most = _ONE_THREAD_ROUNDS
        rounds = min(most, max(least, int(_ONE_THREAD_ROW_SECONDS / max(slowest, 1e-9))))
        for entry in turns(running, rounds):
            if not entry.measured:
                continue  # it failed in an earlier round
            try:
                ms = by_name[entry.side].ask("processor_time", entry.layout, direction)
                entry.times.setdefault(ONE_THREAD, []).append(round(ms, 6))
            except SideError as error:
                _drop(entry, error.status, f"one thread: {error}")


def _drop(entry: Entry, status: str, why: str) -> None:
    entry.status, entry.why, entry.times = status, why, {}


def turns(entries: Sequence[Any], rounds: int, first: int = 0) -> Iterator[Any]:
    """Yield the entries of each round, those of odd rounds in reverse, counted from `first`."""
    for index in range(first, first + rounds):
        yield from entries if index % 2 == 0 else reversed(entries)


def machine(settings: Settings) -> dict[str, Any]:
    """Return what a reader needs to know of this machine and its software."""
    found = {
        "processor": processor(),
        "cores": usable_cores(),
        "threads": settings.threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": blas(),
        "loops": loops_in_words(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    if settings.device == "cuda":
        from gpuconv.backend import gpu_name, use

        use("cuda")
        found["gpu"] = gpu_name()
    return found


def _plain(settings: Settings) -> dict[str, Any]:
    return {**vars(settings), "regimes": list(settings.regimes)}
