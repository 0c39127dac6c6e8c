"""Recipes side by side, of which some were trained with several seeds: means, spreads, and what can be chance."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import tables
from ..plural import counted
from ..runs.folder import members
from ..runs.reading import Reading
from ..runs.settings import shareable
from ..runs.significance import paired, standard_error, welch
from .compare import compare_runs
from .words import duration

LEGEND = "\u00b1: standard error of a run's test accuracy; of several runs their deviation"
_WIDTH = 80  # columns of text; what stands in tables is as wide as it is
_SURE = 0.05
_MOST_CLASSES = 20


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """What is held against others: a run, or several that differ in their seeds alone."""

    name: str
    runs: list[Reading]

    @property
    def finished(self) -> list[dict[str, Any]]:
        """What the finished runs came to."""
        return [run.result for run in self.runs if run.result is not None]

    def mean(self, name: str) -> float | None:
        """Return the mean of a number that every finished run has; None if there is none."""
        values = [value for result in self.finished if (value := result.get(name)) is not None]
        return statistics.fmean(values) if values and len(values) == len(self.finished) else None

    @property
    def spread(self) -> float | None:
        """How far the test accuracy may be off: of one run the standard error, of several the standard deviation."""
        results = self.finished
        if len(results) > 1:
            return statistics.stdev(result["test_accuracy"] for result in results)
        return standard_error(results[0]["test_accuracy"], results[0]["test_images"]) if results else None


def sides_of(paths: Sequence[Path], read: Callable[[Path], Reading] = Reading) -> list[Side]:
    """Return what folders hold to compare: a run; several seeds as one; of a sweep every combination of values.

    Of one folder of several seeds alone, each run is a side.
    """
    sides = []
    for path in paths:
        inside = members(path)
        if inside is None:
            sides.append(Side(read(path).name, [read(path)]))
            continue
        by_name: dict[str, list[Reading]] = {}
        for member in inside:
            if (member / "config.toml").is_file():
                own = re.sub(r",?seed-\d+$", "", member.name)
                by_name.setdefault(own, []).append(read(member))
        before = f"{path.resolve().name}/" if len(paths) > 1 else ""
        if len(paths) == 1 and [*by_name] == [""]:
            return [Side(run.name, [run]) for run in by_name[""]]
        sides += [Side((before + own).rstrip("/"), runs) for own, runs in by_name.items()]
    if len({side.name for side in sides}) < len(sides):  # tell them apart by the folders above
        sides = [
            Side(str(side.runs[0].path.parent if len(side.runs) > 1 else side.runs[0].path), side.runs)
            for side in sides
        ]
    return sides


def compare_sides(sides: Sequence[Side], columns: int | None = None) -> str:
    """Return the comparison as lines; every side is held against the first.   columns: how wide its tables may be."""
    if all(len(side.runs) == 1 for side in sides):
        return compare_runs([side.runs[0] for side in sides]).text(columns)
    parts = [outcomes(sides, columns), LEGEND, _settings(sides, columns), _data(sides), _tests(sides)]
    parts.append(_classes(sides, columns))
    return "\n\n".join(filter(None, parts))


def outcomes(sides: Sequence[Side], columns: int | None = None) -> str:
    """Return a table with a line for each side."""
    several = any(len(side.runs) > 1 for side in sides)
    rows = [
        ["run", "runs" if several else "", "test", "\u00b1", "validation", "best", "time", "images/s", "parameters"]
    ]
    notes = []
    for side in sides:
        done, results = len(side.finished), side.finished
        number = f"{done}" if several else ""
        if done < len(side.runs):
            unfinished = next(run for run in side.runs if not run.finished)
            state = unfinished.state if len(side.runs) == 1 else f"{done} of {len(side.runs)} runs finished"
            notes.append(f"{side.name}: {state}")
        if not done:
            rows.append([side.name, number, *["-"] * 7])
            continue
        best = f"{results[0]['best_epoch']}/{results[0]['epochs']}" if done == 1 else f"{side.mean('best_epoch'):.1f}"
        rows.append(
            [
                side.name,
                number,
                _share(side.mean("test_accuracy")),
                _share(side.spread),
                _share(side.mean("validation_accuracy")),
                best,
                duration(side.mean("seconds") or 0.0),
                f"{side.mean('images_per_second'):,.0f}",
                f"{results[0]['parameters']:,}",
            ]
        )
    return "\n".join([*tables.ruled(rows, columns), *notes])


def values(sides: Sequence[Side]) -> dict[str, Any]:
    """Return the comparison as plain values."""
    names = _differing(sides)
    rows = []
    for side in sides:
        settings = shareable(side.runs[0].config)
        rows.append(
            {
                "name": side.name,
                "runs": [{"path": str(run.path), "seed": run.config.seed, **_result_values(run)} for run in side.runs],
                "settings": {name: settings[name] for name in names},
                "data": side.runs[0].facts.get("data"),
                "data_fingerprint": side.runs[0].facts.get("data_fingerprint"),
                "test_accuracy": side.mean("test_accuracy"),
                "uncertainty": side.spread,
                "validation_accuracy": side.mean("validation_accuracy"),
                "seconds": side.mean("seconds"),
            }
        )
    return {"sides": rows, "against_the_first": [_against(sides[0], side) for side in sides[1:]]}


def _result_values(run: Reading) -> dict[str, Any]:
    names = (
        "test_accuracy",
        "test_accuracy_tta",
        "test_loss",
        "validation_accuracy",
        "best_epoch",
        "epochs",
        "seconds",
    )
    result = run.result or {}
    return {"finished": run.finished, **{name: result.get(name) for name in names}}


def _against(first: Side, side: Side) -> dict[str, Any]:
    """Return how a side differs from the first, and by which test it is told from chance."""
    held: dict[str, Any] = {"first": first.name, "other": side.name, "difference": None, "test": None, "p": None}
    if not _same_data([first, side]) or not (first.finished and side.finished):
        return held
    if len(first.runs) == len(side.runs) == 1:
        pair = paired(first.runs[0], side.runs[0])
        if pair is not None:
            share = (pair.only_second - pair.only_first) / pair.images
            held |= {"difference": share, "test": "McNemar", "p": pair.p}
        return held
    accuracies = [[result["test_accuracy"] for result in each.finished] for each in (first, side)]
    means = welch(*accuracies)
    return held | {"difference": means.difference, "test": None if means.p is None else "Welch", "p": means.p}


def _differing(sides: Sequence[Side]) -> list[str]:
    """Return the settings in which sides differ, the seeds of several runs aside."""
    known = [shareable(side.runs[0].config) for side in sides]
    several = any(len(side.runs) > 1 for side in sides)
    return [
        name
        for name in known[0]
        if any(other[name] != known[0][name] for other in known) and not (several and name == "seed")
    ]


def _settings(sides: Sequence[Side], columns: int | None) -> str:
    differing = _differing(sides)
    if not differing:
        return "settings: all the same"
    known = [shareable(side.runs[0].config) for side in sides]
    # A line for each side: settings are few where several runs were meant to be compared, and sides may be many.
    rows = [["settings", *differing]]
    rows += [
        [side.name, *(tables.shown(of[name]) for name in differing)] for side, of in zip(sides, known, strict=True)
    ]
    return "\n".join(tables.ruled(rows, columns))


def _same_data(sides: Sequence[Side]) -> bool:
    prints = {run.facts.get("data_fingerprint") for side in sides for run in side.runs if run.finished}
    return len(prints) == 1


def _data(sides: Sequence[Side]) -> str:
    if not _same_data(sides):
        return "data: NOT the same, accuracies cannot be held against each other"
    facts = next(run.facts for side in sides for run in side.runs if run.finished)
    return "\n".join(tables.wrapped(f"data: the same, {facts['data']}", _WIDTH, indent="  "))


def _tests(sides: Sequence[Side]) -> str:
    lines = []
    for side in sides[1:]:
        held = _against(sides[0], side)
        if held["difference"] is None:
            continue
        counts = f"{len(side.finished)} against {counted(len(sides[0].finished), 'run')}"
        lines.append(
            f"{side.name} against {sides[0].name}: {100 * held['difference']:+.2f} points of accuracy, {counts}"
        )
        if held["p"] is None:
            lines.append("  with one run, or runs that are all alike, nothing says whether that can be chance")
            continue
        what = "seeds" if held["test"] == "Welch" else "test images"
        verdict = "is more than chance" if held["p"] < _SURE else "can be chance"
        test = "Welch's t-test," if held["test"] == "Welch" else "McNemar"
        lines.append(f"  {test} p = {held['p']:.2g}: on these {what} the difference {verdict}")
    return "\n".join(part for line in lines for part in tables.wrapped(line, _WIDTH, indent="  "))


def _classes(sides: Sequence[Side], columns: int | None) -> str:
    """Return the mean accuracy of each class, of finished sides with the same classes."""
    known = [(side, [result["test_accuracy_by_class"] for result in side.finished]) for side in sides if side.finished]
    if len(known) < 2:
        return ""
    classes = [name for name in known[0][1][0] if all(name in share for _, shares in known for share in shares)]
    rows = [["class", *(side.name for side, _ in known)]]
    for name in classes[:_MOST_CLASSES]:
        cells = []
        for _, shares in known:
            found = [share[name] for share in shares if share[name] is not None]
            cells.append(f"{statistics.fmean(found):.1%}" if found else "-")
        rows.append([name, *cells])
    more = f"\n(and {len(classes) - _MOST_CLASSES} more classes)" if len(classes) > _MOST_CLASSES else ""
    return "\n".join(tables.ruled(rows, columns)) + more


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
