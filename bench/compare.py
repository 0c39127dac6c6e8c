"""A run beside older ones of the same machine: the time of gpuconv now over its time then, and whether it became slower.

Within a process times vary little, from one to the next by a quarter and more: where arrays happen to lie biases all rounds of
a process.  So a row has become slower only if its median in every process now is that much above that in every one then, and if
nine of ten pairs of single rounds say so, too.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuconv.errors import ConfigError
from gpuconv.plural import counted

from . import results
from .results import MEASURED, OURS, OURS_AGAIN, Entry, Ratio, Result

LEAST_PROCESSES = 3
_SAME = ("processor", "gpu", "system", "threads", "python", "numpy", "blas", "loops")

_OURS = (OURS, OURS_AGAIN, "gpuconv-numpy")  # sides that run what has changed

_Key = tuple[str, str, str, str]  # case, direction, regime, format


@dataclass(frozen=True)
class Then:
    """Older runs of one machine, as one."""

    names: str
    runs: Sequence[Result]

    def check(self, machine: Mapping[str, Any], cases: Sequence[str], regimes: Sequence[str]) -> None:
        """Raise ConfigError unless they were measured where and with what a new run will be, with a case of it."""
        for run in self.runs:
            there = run.machine
            if unlike := [name for name in _SAME if there.get(name) != machine.get(name)]:
                facts = "; ".join(
                    f"{name}: {there.get(name, 'not recorded')} there, {machine.get(name, 'none')} here"
                    for name in unlike
                )
                msg = f"--compare: {self.names} is of another machine or other versions, with which times cannot be compared ({facts})"
                raise ConfigError(msg)
        if not any(case in cases and regime in regimes for case, _, regime, _ in self.entries()):
            msg = f"--compare: {self.names} has no case of this run: choose its cases by --set, --ops, --only"
            raise ConfigError(msg)

    def processes(self) -> int:
        """Return how many processes of each side took part."""
        return sum(run.settings.get("processes", 1) for run in self.runs)

    def entries(self, side: str = OURS) -> dict[_Key, list[float]]:
        """Return the median of each process, of all that a side was measured at."""
        found: dict[_Key, list[float]] = {}
        for run in self.runs:
            for key, entry in _entries(run, side):
                if entry.measured:
                    found.setdefault(key, []).extend(_medians(entry, run))
        return found

    def rounds(self, side: str = OURS) -> dict[_Key, list[float]]:
        """Return all rounds."""
        found: dict[_Key, list[float]] = {}
        for run in self.runs:
            for key, entry in _entries(run, side):
                if entry.measured:
                    found.setdefault(key, []).extend(entry.times["ms"])
        return found

    def same_version(self, side: str, now: Result) -> bool:
        """Tell whether a side is what it is now."""
        return all(side in run.sides and run.sides[side]["version"] == now.sides[side]["version"] for run in self.runs)


@dataclass(frozen=True)
class Change:
    """One row in one memory format: milliseconds then and now, their ratio, and the least ratio of two processes."""

    case: str
    direction: str
    regime: str
    layout: str
    then: float
    now: float
    ratio: Ratio
    least: float

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Which row it is of."""
        return self.case, self.direction, self.regime, self.layout

    def slower(self, limit: float) -> bool:
        """Tell whether every process now was slower than every one then, by more than the limit, and rounds were, too."""
        return self.least > limit and self.ratio.low > 1


def read(paths: Sequence[Path]) -> Then:
    """Return the runs kept in files; raise ConfigError for one that is not there or holds none."""
    runs = []
    for path in paths:
        try:
            runs.append(results.read(path))
        except OSError as error:
            msg = f"--compare: {path} cannot be read: {error.strerror}"
            raise ConfigError(msg) from None
    return Then(", ".join(path.name for path in paths), runs)


def changes(now: Result, then: Then, side: str = OURS) -> list[Change]:
    """Return what both have measured, in the order of the new run."""
    medians, rounds = then.entries(side), then.rounds(side)
    found = []
    for key, entry in _entries(now, side):
        if not entry.measured or key not in medians:
            continue
        each = sorted(new / old for new in entry.times["ms"] for old in rounds[key])
        cut = len(each) // 10
        old = statistics.median(rounds[key])
        ratio = Ratio(entry.ms / old, each[cut], each[-1 - cut])
        least = min(_medians(entry, now)) / max(medians[key])
        found.append(Change(*key, old, entry.ms, ratio, least))
    return found


def lost(now: Result, then: Then) -> list[str]:
    """Return what was measured then and is wrong or failed now."""
    known = then.entries()
    return [
        f"{key[0]} {key[1]}, {key[3]}, {key[2]}: {entry.status}, {entry.why}"
        for key, entry in _entries(now, OURS)
        if key in known and entry.status != MEASURED
    ]


def lines(now: Result, then: Then, limit: float | None = None) -> list[str]:
    """Return the comparison as text: a line for each row below its case, then the means."""
    found = [f"time now / then ({then.names}), of the medians, with nine of ten ratios of two rounds beside it:"]
    made, last = changes(now, then), ""
    several = len({change.regime for change in made}) > 1
    for change in made:
        title = change.case + (f", {change.regime}" if several else "")
        if title != last:
            found += ["", title]
        last = title
        ratio = change.ratio
        mark = "  slower" if limit is not None and change.slower(limit) else ""
        found.append(
            f"  {change.direction:8}  {change.layout:4}  {change.then:10.3f} -> {change.now:10.3f} ms  "
            f"{ratio.value:5.2f} ({ratio.low:.2f}-{ratio.high:.2f}){mark}"
        )
    found += ["", *means(now, then)]
    return found


def means(now: Result, then: Then) -> list[str]:
    """Return a sentence of gpuconv, and one of each peer that is as it was: what it changed by, the machine did."""
    found = []
    for side in now.sides:
        ours = side in _OURS
        if not ours and not then.same_version(side, now):
            continue
        ratios = [change.ratio.value for change in changes(now, then, side)]
        if ratios:
            found.append(
                f"{now.label(side)} now / then: geometric mean {statistics.geometric_mean(ratios):.2f} of "
                f"{counted(len(ratios), 'row')}, from {min(ratios):.2f} to {max(ratios):.2f}"
                + ("" if ours else ", the same version: a measure of the machine")
            )
    return found


def _entries(run: Result, side: str) -> Iterator[tuple[_Key, Entry]]:
    for row in run.rows:
        for entry in row.entries:
            if entry.side == side:
                yield (row.case, row.direction, row.regime, entry.layout), entry


def _medians(entry: Entry, run: Result) -> list[float]:
    """Return the median time of each process, which took a share of the rounds one after the other."""
    times, processes = entry.times["ms"], run.settings.get("processes", 1)
    edges = [len(times) * share // processes for share in range(processes + 1)]
    return [statistics.median(times[first:last]) for first, last in itertools.pairwise(edges)]
