"""What `gpuconv bench` does: choose cases and peers, run them, print the table, keep the JSON, compare with older ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpuconv.backend import resolve_device
from gpuconv.errors import ConfigError, GpuconvError
from gpuconv.plural import counted
from gpuconv.show import plots
from gpuconv.tables import wrapped

from . import cases, harness, load, peers, quiet, tables
from .compare import LEAST_PROCESSES, Change, Then, changes, lines, lost, read
from .display import Display, display
from .inputs import REGIMES
from .results import Result, Row
from .terminal import Table

_REGIMES = {"cpu": ("float32",), "cuda": ("float32", "tf32", "float16")}


class BenchError(GpuconvError, RuntimeError):
    """A run that cannot be done, though its settings are right."""


def bench(
    *,
    set_name: str = "readme",
    ops: Sequence[str] = (),
    only: str = "",
    peer_names: Sequence[str] = (),
    device: str = "cpu",
    regimes: Sequence[str] = (),
    threads: int | None = None,
    rounds: int = 12,
    processes: int = 1,
    memory: bool = True,
    one_thread: bool = False,
    save: Path | None = None,
    picture: Path | None = None,
    compare: Sequence[Path] = (),
    fail_above: float | None = None,
) -> bool:
    """Run and print a comparison; see `gpuconv bench --help` for what the arguments mean.

    Ctrl-C ends it by a KeyboardInterrupt: first what was measured until then is summed up, marked as cut short, and kept.

    Return False if fail_above is given and something is that much slower than it was, or not right any more.
    Raises ConfigError for a name or number that cannot be used, GpuUnavailableError for a GPU that is not there.
    """
    device = resolve_device(device)
    chosen = cases.choose(set_name, tuple(ops), only)
    names = peers.choose(tuple(peer_names), device)
    for regime in regimes:
        if regime not in REGIMES:
            msg = f"there is no regime {regime!r}: choose from {', '.join(REGIMES)}"
            raise ConfigError(msg)
    cores = harness.usable_cores()
    threads = cores if threads is None else threads
    if not 1 <= threads <= cores:
        msg = f"threads must be from 1 to {cores}, the cores of this process, got {threads}"
        raise ConfigError(msg)
    if rounds < 2:
        msg = f"rounds must be at least 2, so that both orders occur, got {rounds}"
        raise ConfigError(msg)
    if not 1 <= processes <= rounds:
        msg = f"processes must be from 1 to the number of rounds, {rounds}, got {processes}"
        raise ConfigError(msg)
    if one_thread and device != "cpu":
        msg = f"processor time of one thread is of the CPU, not of {device}"
        raise ConfigError(msg)
    for flag, path in (("--save", save), ("--picture", picture)):
        if path is not None and not path.parent.is_dir():
            msg = f"{flag}: there is no folder {path.parent}"
            raise ConfigError(msg)
    if picture is not None:
        plots.check(picture)
    settings = harness.Settings(
        device=device,
        threads=threads,
        rounds=rounds,
        processes=processes,
        regimes=tuple(regimes) or _REGIMES[device],
        memory=memory,
        one_thread=one_thread,
    )
    machine = harness.machine(settings)
    then = _then(compare, fail_above, settings, machine, chosen)
    other_work = load.look()
    with display() as shown:
        watch = _Watch(shown, machine, settings, chosen, names)
        watch.say(quiet.before(other_work))
        shown.begin(len(chosen) * len(settings.regimes))
        found: list[Change] = []
        repeated, stopped = None, False
        try:
            result = harness.run(chosen, names, settings, watch)
            if then is not None and fail_above is not None:
                found = [change for change in changes(result, then) if change.slower(fail_above)]
                repeated, stopped = _again(found, chosen, names, settings, watch)
        except harness.CutShort as cut:
            result, stopped = cut.result, True
        except harness.SideError as error:
            raise BenchError(str(error)) from None
    result.machine["other_work_before"] = other_work
    result.settings |= {"set": set_name, "ops": list(ops), "only": only}
    watch.say(watch.wrapped("", *tables.facts(result)))
    watch.say(watch.wrapped(quiet.after(result.machine)))
    if save is not None:
        save.write_text(result.to_json(), encoding="utf-8")
        watch.say(watch.wrapped(f"kept in {save}"))
    if stopped:
        raise KeyboardInterrupt(tables.cut_short(result) or "stopped before what seems slower was measured twice")
    if picture is not None:
        watch.say(watch.wrapped(_draw(result, picture, settings.regimes[0])))
    if then is None:
        return True
    watch.say(watch.wrapped("", *lines(result, then, fail_above)))
    return fail_above is None or _judge(result, then, fail_above, found, repeated, watch)


def _then(
    paths: Sequence[Path],
    fail_above: float | None,
    settings: harness.Settings,
    machine: Mapping[str, Any],
    chosen: Sequence[cases.Case],
) -> Then | None:
    """Return the older runs to compare with, if there are any; raise ConfigError if nothing could be said by them."""
    if fail_above is not None:
        if not paths:
            msg = "--fail-above is of a comparison: name older results by --compare FILE"
            raise ConfigError(msg)
        if not fail_above >= 1:
            msg = f"--fail-above must be at least 1, got {fail_above:g}"
            raise ConfigError(msg)
    if not paths:
        return None
    then = read(paths)
    then.check(machine, [case.name for case in chosen], settings.regimes)
    if fail_above is not None and min(then.processes(), settings.processes) < LEAST_PROCESSES:
        msg = (
            f"--fail-above needs {LEAST_PROCESSES} processes or more of each side, then and now, for where the arrays of one lie "
            f"biases all its rounds: {then.names} has {then.processes()}, this run {settings.processes}; "
            f"--processes {LEAST_PROCESSES} --save FILE measures so, and --compare takes several files"
        )
        raise ConfigError(msg)
    return then


def _again(
    found: Sequence[Change],
    chosen: Sequence[cases.Case],
    names: Sequence[str],
    settings: harness.Settings,
    watch: _Watch,
) -> tuple[Result | None, bool]:
    """Measure once more what seems to be slower, in other processes; return that, or None if nothing does, and whether Ctrl-C came."""
    suspects = {change.case for change in found}
    if not suspects:
        return None, False
    watch.say(watch.wrapped("", f"{counted(len(suspects), 'case')} once more, to be sure that what seems slower is:"))
    doubtful = [case for case in chosen if case.name in suspects]
    watch.begin(doubtful)
    try:
        return harness.run(doubtful, names, settings, watch), False
    except KeyboardInterrupt:
        return None, True


def _judge(
    result: Result, then: Then, limit: float, found: Sequence[Change], repeated: Result | None, watch: _Watch
) -> bool:
    """Say what has become slower, in both measurements, or wrong; return whether nothing has."""
    still = set() if repeated is None else {one.key for one in changes(repeated, then) if one.slower(limit)}
    slower = [
        f"slower: {one.case} {one.direction}, {one.layout}, {one.regime}: {one.ratio.value:.2f}, "
        f"{one.least:.2f} of the nearest two processes"
        for one in found
        if one.key in still
    ]
    failed = [*slower, *lost(result, then)]
    doubt = len(found) - len(slower)
    if doubt:
        watch.say(watch.wrapped(f"{counted(doubt, 'row')} seemed slower, and not when measured once more"))
    verdict = (
        f"{counted(len(failed), 'row')} above {limit:g}, or not right any more"
        if failed
        else f"nothing above {limit:g}"
    )
    watch.say(watch.wrapped(*failed, verdict))
    return not failed


def _draw(result: Result, path: Path, regime: str) -> str:
    """Draw the picture, and say where it is."""
    from . import picture

    if not picture.draw(result, path, regime):
        return f"{path} is not drawn: no peer was measured beside gpuconv"
    return f"drawn in {path}"


class _Watch(harness.Watch):
    """Prints rows as they are done, and shows how far the run is."""

    def __init__(
        self,
        shown: Display,
        machine: Mapping[str, Any],
        settings: harness.Settings,
        chosen: Sequence[cases.Case],
        names: Sequence[str],
    ) -> None:
        self._shown, self._machine, self._settings = shown, machine, settings
        self.table = Table(
            chosen,
            names,
            settings.regimes,
            width=shown.width,
            memory=settings.memory,
            one_thread=settings.one_thread,
        )

    def say(self, text: str) -> None:
        """Print text, if there is any."""
        if text:
            self._shown.say(text)

    def wrapped(self, *sentences: str) -> str:
        """Return sentences as lines that fit the terminal."""
        width = self._shown.width
        if width is None:
            return "\n".join(sentences)
        return "\n".join(line for text in sentences for line in wrapped(text, width, indent="  "))

    def begin(self, chosen: Sequence[cases.Case]) -> None:
        """Begin anew, with these cases."""
        self._shown.begin(len(chosen) * len(self._settings.regimes))

    def peaks(self, peaks: Mapping[str, float]) -> None:
        self.say(self.wrapped(quiet.low_peaks(self._machine, peaks)))
        self.say(self.table.head())

    def case(self, case: cases.Case, regime: str) -> None:
        self._shown.case(case.name)

    def doing(self, what: str) -> None:
        self._shown.doing(what)

    def row(self, row: Row) -> None:
        self.say("\n".join(self.table.lines(row)))

    def end_case(self) -> None:
        self._shown.end_case()


def listing() -> str:
    """Return what there is to choose from: sets with their cases, operators, peers."""
    lines = []
    for name, chosen in cases.SETS.items():
        lines.append(f"{name}: {counted(len(chosen), 'case')}")
        if name != "all":
            lines += [f"  {case.name}" for case in chosen]
    lines += [f"operators: {', '.join(cases.OPS)}", "peers:"]
    for name in peers.MODULES:
        if name == "gpuconv":
            continue
        peer = peers.load(name)
        state = f"not installed: {', '.join(absent)}" if (absent := peer.missing()) else "installed"
        lines.append(f"  {name:14s} {', '.join(peer.devices):10s} {state}")
    return "\n".join(lines)
