"""One recipe with several seeds: what a single run cannot say, the mean and the spread; seeds.json has all of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import durable, tables
from ..data.dataset import Dataset
from ..plural import counted
from ..runs.config import Config
from ..runs.result import Result
from ..runs.settings import run_name, shareable
from ..show.terminal import progress as display_of
from . import several
from .processes import refuse_many

COLUMNS = ("validation_accuracy", "test_accuracy", "test_accuracy_tta", "seconds")


@dataclass(frozen=True, slots=True, eq=False)
class Seeds:
    """The outcome: one Result for each seed, in order.

    >>> config = train.Config(widths=(4,), max_steps=1, batch_size=20, validation=20)
    >>> outcome = train.train_seeds(config, 2, folder="two", dataset=data.draw_shapes(100, 40), progress="none")
    >>> outcome.seeds, list(outcome.statistics()["test_accuracy"])
    ([0, 1], ['mean', 'standard_deviation'])
    """

    folder: Path
    seeds: list[int]
    results: list[Result]

    def statistics(self) -> dict[str, dict[str, float | None]]:
        """Return mean and standard deviation of each number that every run has; a single run has no deviation."""
        return statistics_of(self.results)

    def _repr_html_(self) -> str:
        head = ["seed", *(name.replace("_", " ") for name in COLUMNS)]
        return tables.html(self.folder.name, counted(len(self.seeds), "seed"), head, _rows(self))


def train_seeds(
    config: Config,
    count: int,
    *,
    folder: str | Path | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    progress: str = "auto",
    dataset: Dataset | None = None,
) -> Seeds:
    """Train with seeds config.seed to config.seed + count - 1, one after the other, and return their Results.

    folder, runs, name, progress, dataset: as of `train`.   Raises what `train` raises; `resume_several` goes on.

    >>> config = train.Config(widths=(4,), max_steps=1, batch_size=20, validation=20)
    >>> outcome = train.train_seeds(config, 2, folder="two", dataset=data.draw_shapes(100, 40), progress="none")
    >>> [result.folder.name for result in outcome.results]
    ['seed-0', 'seed-1']
    """
    refuse_many("--seeds")
    place: dict[str, Any] = {"folder": folder, "runs": runs, "progress": progress, "dataset": dataset}
    name = name or f"{run_name(config)}-seeds"
    return several.begin(config, count, {}, name, lambda trained: conclude(trained, progress), **place)


def conclude(trained: several.Trained, progress: str) -> Seeds:
    """Write seeds.json, show the table, and return the outcome."""
    outcome = Seeds(trained.folder, [member.seed for member in trained.members], trained.results)
    record = {
        "data": outcome.results[0].data,
        "seeds": [
            {"seed": seed, "ended_by": result.ended_by} | {name: getattr(result, name) for name in COLUMNS}
            for seed, result in zip(outcome.seeds, outcome.results, strict=True)
        ],
        "statistics": outcome.statistics(),
        "config": {name: value for name, value in shareable(trained.config).items() if name != "seed"},
    }
    write(outcome.folder / "seeds.json", record)
    with display_of(progress) as display:
        display.lines(table(outcome))
    return outcome


def statistics_of(results: Sequence[Result]) -> dict[str, dict[str, float | None]]:
    """Return mean and standard deviation of each number that every result has."""
    numbers = {}
    for name in COLUMNS:
        values = [getattr(result, name) for result in results]
        if None not in values:
            spread = statistics.stdev(values) if len(values) > 1 else None
            numbers[name] = {"mean": statistics.fmean(values), "standard_deviation": spread}
    return numbers


def write(path: Path, record: Any) -> None:
    """Write what several runs came to as JSON."""
    durable.write(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def table(outcome: Seeds) -> Sequence[str]:
    """Return a line for each seed, the mean, and the standard deviation between seeds."""
    numbers = outcome.statistics()
    views = "test_accuracy_tta" in numbers
    heading = f"{'seed':<12}{'validation':>13}{'test':>11}{'with views' if views else '':>13}{'seconds':>12}"
    lines = ["", heading.rstrip()]
    for label, validation, test, with_views, seconds in _rows(outcome):
        if label == "mean":
            lines.append("-" * len(heading))
        lines.append(f"{label:<12}{validation:>13}{test:>11}{with_views if views else '':>13}{seconds:>12}")
    return [*lines, f"everything is in {outcome.folder}"]


def _rows(outcome: Seeds) -> list[list[str]]:
    """Return label and cells, one for each of COLUMNS, of every seed, of the mean and of the deviation."""
    numbers = outcome.statistics()
    rows: list[tuple[str, dict[str, float | None]]] = [
        (str(seed), {name: getattr(result, name) for name in COLUMNS})
        for seed, result in zip(outcome.seeds, outcome.results, strict=True)
    ]
    rows.append(("mean", {name: of["mean"] for name, of in numbers.items()}))
    rows.append(("deviation", {name: of["standard_deviation"] for name, of in numbers.items()}))
    return [[label, *(_cell(name, values.get(name)) for name in COLUMNS)] for label, values in rows]


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if column == "seconds" else f"{value:.2%}"
