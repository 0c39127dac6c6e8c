"""What a run found: every round of every side, as JSON, and the statistics made from it.

The file keeps the times of all rounds and no ratio, so that every number in a table can be computed again.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuconv.errors import ConfigError

OURS, OURS_AGAIN = "gpuconv", "self"
ONE_THREAD = "one_thread_ms"  # processor time
SCHEMA = 1
MEASURED, WRONG, NOT_OFFERED, NOT_INSTALLED, FAILED = STATUSES = (
    "measured",
    "wrong",
    "not offered",
    "not installed",
    "failed",
)


@dataclass
class Entry:
    """One side in one memory format, in one row.  times: by what was measured, milliseconds of a call in each round."""

    side: str
    layout: str
    status: str = MEASURED
    why: str = ""
    error: float | None = None  # the largest difference to the oracle, relative to its largest value
    extra_bytes: int | None = None
    times: dict[str, list[float]] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        return self.status == MEASURED

    @property
    def ms(self) -> float:
        return statistics.median(self.times["ms"])

    @property
    def one_thread_ms(self) -> float | None:
        """Return the processor time of a call in one thread, where it was measured."""
        times = self.times.get(ONE_THREAD)
        return lower_quartile(times) if times else None


def lower_quartile(times: Sequence[float]) -> float:
    """Return the time that a quarter of all times is below: other work only ever adds to a time."""
    return sorted(times)[len(times) // 4]


@dataclass(frozen=True)
class Ratio:
    """Time of gpuconv over a peer's: of the medians, and its 10th and 90th percentile over the rounds."""

    value: float
    low: float
    high: float


@dataclass
class Row:
    """A case in one direction and one regime."""

    case: str
    op: str
    direction: str
    regime: str
    images: int
    flop: int
    bytes: int
    entries: list[Entry] = field(default_factory=list)

    def entry(self, side: str, layout: str | None = None) -> Entry | None:
        """Return a side's entry in a memory format, or the fastest of those measured; None where there is none."""
        found = [entry for entry in self.entries if entry.side == side and layout in (None, entry.layout)]
        if layout is not None:
            return found[0] if found else None
        return min((entry for entry in found if entry.measured), key=lambda entry: entry.ms, default=None)

    def ratio(self, peer: str, layout: str | None = None) -> Ratio | None:
        """Return the ratio in one memory format, or of the best to the best; None where a side was not measured."""
        ours, theirs = self.entry(OURS, layout), self.entry(peer, layout)
        if ours is None or theirs is None or not (ours.measured and theirs.measured):
            return None
        each = sorted(a / b for a, b in zip(ours.times["ms"], theirs.times["ms"], strict=True))
        cut = len(each) // 10
        return Ratio(ours.ms / theirs.ms, each[cut], each[-1 - cut])

    def one_thread_ratio(self, peer: str, layout: str | None = None) -> float | None:
        """Return the ratio of processor times of one thread, else as `ratio`; None where a side has none."""
        ours, theirs = (self.one_thread_ms(side, layout) for side in (OURS, peer))
        return None if ours is None or theirs is None else ours / theirs

    def one_thread_ms(self, side: str, layout: str | None = None) -> float | None:
        """Return the least processor time of a side: of one memory format, or of the better one."""
        entries = [entry for entry in self.entries if entry.side == side and layout in (None, entry.layout)]
        return min((ms for entry in entries if (ms := entry.one_thread_ms) is not None), default=None)

    def rate(self, ms: float) -> tuple[float, str]:
        """Return how much was done in that time: GFLOP/s of a convolution, images/s of a step, else GB/s."""
        if self.flop:
            return self.flop / ms / 1e6, "GFLOP/s"
        if self.op == "train_step":
            return self.images / ms * 1e3, "images/s"
        return self.bytes / ms / 1e6, "GB/s"


@dataclass(frozen=True)
class Summary:
    """Geometric mean and worst of the ratios to a peer: format by format, and best format against best format.

    one_thread: the mean of the ratios of processor times, best against best, where they were measured.
    """

    rows: int
    same_mean: float
    same_worst: float
    best_mean: float
    best_worst: float
    same_least: float
    one_thread: float | None


@dataclass(frozen=True)
class Noise:
    """Ratios of gpuconv to itself, format by format: their geometric mean, and how far most and all are from 1."""

    mean: float
    nine_of_ten: float
    largest: float


@dataclass
class Result:
    """A run.  sides: name to label, version, status and why.   peaks: "GB/s", and "GFLOP/s <regime>"."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    peaks: dict[str, float]
    sides: dict[str, dict[str, str]]
    rows: list[Row]

    def peers(self) -> list[str]:
        """Return the peers that were measured in some row."""
        found = [name for name in self.sides if name != OURS]
        return [name for name in found if any(row.ratio(name) for row in self.rows)]

    def label(self, side: str) -> str:
        return self.sides[side]["label"]

    @property
    def has_one_thread(self) -> bool:
        """True if processor times of one thread were measured somewhere."""
        return any(ONE_THREAD in entry.times for row in self.rows for entry in row.entries)

    def summary(self, peer: str, regime: str, without: str = "") -> Summary | None:
        """Return the ratios to a peer, `without` a case, in one sentence; None where nothing was compared."""
        rows = [row for row in self.rows if row.regime == regime and row.case != without]
        layouts = dict.fromkeys(entry.layout for row in rows for entry in row.entries)
        same = [ratio.value for row in rows for layout in layouts if (ratio := row.ratio(peer, layout))]
        best = [ratio.value for row in rows if (ratio := row.ratio(peer))]
        if not best:
            return None
        mean = statistics.geometric_mean
        same = same or best  # no format in common: only the best can be compared
        alone = [ratio for row in rows if (ratio := row.one_thread_ratio(peer))]
        one_thread = mean(alone) if alone else None
        return Summary(len(best), mean(same), max(same), mean(best), max(best), min(same), one_thread)

    def noise(self) -> Noise | None:
        """Return how far gpuconv is from itself by lower quartiles; None where it was not measured twice."""
        ratios = [
            lower_quartile(ours.times["ms"]) / lower_quartile(again.times["ms"])
            for row in self.rows
            for ours in row.entries
            if ours.side == OURS and ours.measured
            if (again := row.entry(OURS_AGAIN, ours.layout)) is not None and again.measured
        ]
        if not ratios:
            return None
        away = sorted(max(ratio, 1 / ratio) - 1 for ratio in ratios)
        return Noise(statistics.geometric_mean(ratios), away[math.ceil(len(away) * 0.9) - 1], away[-1])

    def share(self, row: Row, ms: float) -> float | None:
        """Return the least time that the machine's measured peaks allow, as a share of a time."""
        flops, bandwidth = self.peaks.get(f"GFLOP/s {row.regime}"), self.peaks.get("GB/s")
        if not bandwidth or not row.bytes or (row.flop and not flops):
            return None
        least = max(row.flop / flops / 1e6 if row.flop and flops else 0.0, row.bytes / bandwidth / 1e6)
        return least / ms

    def to_json(self) -> str:
        """Return the text of a file: the rounds of an entry on one line."""
        text = json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1) + "\n"
        return re.sub(r"\[[-+.\de,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text)


def middle(runs: Sequence[Result]) -> Result:
    """Return several runs of the same cases as one, whose times are the medians of the runs: a round is a run.

    Processor times of one thread are those of all runs.  Raises ConfigError for runs that are not of one kind.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    for run in runs[1:]:
        for name in ("processor", "threads", "numpy", "loops"):
            if run.machine.get(name) != first.machine.get(name):
                msg = f"runs of one table differ in {name}: {first.machine.get(name)!r} and {run.machine.get(name)!r}"
                raise ConfigError(msg)
        if run.sides != first.sides:
            msg = "runs of one table differ in their sides"
            raise ConfigError(msg)
        if list(map(_key, run.rows)) != list(map(_key, first.rows)):
            msg = "runs of one table differ in their cases"
            raise ConfigError(msg)
    other_work = [work for run in runs if (work := run.machine.get("other_work")) is not None]
    machine = first.machine | {"runs": len(runs), "other_work": max(other_work, default=None)}
    peaks = {name: max(run.peaks.get(name, 0.0) for run in runs) for name in first.peaks}
    rows = [
        dataclasses.replace(
            rows[0], entries=[_middle(entries) for entries in zip(*(row.entries for row in rows), strict=True)]
        )
        for rows in zip(*(run.rows for run in runs), strict=True)
    ]
    return Result(machine, first.settings, peaks, first.sides, rows)


def _key(row: Row) -> tuple[Any, ...]:
    return row.case, row.direction, row.regime, [(entry.side, entry.layout) for entry in row.entries]


def _middle(entries: Sequence[Entry]) -> Entry:
    """Return an entry of several runs; one that was not measured in some run is as it is there."""
    for entry in entries:
        if not entry.measured:
            return entry
    names = dict.fromkeys(name for entry in entries for name in entry.times)
    times = {
        name: [statistics.median(entry.times[name]) for entry in entries if name in entry.times]
        if name != ONE_THREAD
        else [ms for entry in entries for ms in entry.times.get(name, ())]
        for name in names
    }
    errors = [entry.error for entry in entries if entry.error is not None]
    extra = [entry.extra_bytes for entry in entries if entry.extra_bytes is not None]
    return dataclasses.replace(
        entries[0], times=times, error=max(errors, default=None), extra_bytes=max(extra, default=None)
    )


def from_json(text: str, name: str = "the file") -> Result:
    """Return the Result that a text holds, or raise ConfigError with what is wrong with it."""
    try:
        values = json.loads(text)
        if values.pop("schema", None) != SCHEMA:
            msg = f"{name} is not a result of this version's benchmarks (schema {SCHEMA})"
            raise ConfigError(msg)
        rows = [Row(**{**row, "entries": [Entry(**entry) for entry in row["entries"]]}) for row in values.pop("rows")]
        result = Result(rows=rows, **values)
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        msg = f"{name} is not a benchmark result: {error}"
        raise ConfigError(msg) from None
    for row in result.rows:
        for entry in row.entries:
            if entry.status not in STATUSES or entry.measured != bool(entry.times.get("ms")):
                msg = f"{name}: {row.case} {row.direction}, {entry.side} is {entry.status!r} with times {entry.times}"
                raise ConfigError(msg)
    return result


def read(path: Path) -> Result:
    """Return the Result kept in a file."""
    return from_json(path.read_text(encoding="utf-8"), path.name)
