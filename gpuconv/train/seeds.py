"""One recipe with several seeds: what a single run cannot say, the mean and the spread.

A folder of its own holds config.toml (the first seed in it), with a copy of the net's file if there is one, plan.json
(how many), one run folder seed-<number> each, and, when all are done, seeds.json.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import bounded, durable
from ..errors import ConfigError
from . import run_folder
from .config import Config, read, shareable
from .loop import Result, check, load_data, resume, train
from .notebook import table as html_table
from .report import report
from .run_folder import PLAN, RunFolder
from .signals import Interrupted

_COLUMNS = ("validation_accuracy", "test_accuracy", "test_accuracy_tta", "seconds")


@dataclass(frozen=True, slots=True, eq=False)
class Seeds:
    """The outcome: one Result for each seed, in order."""

    folder: Path
    seeds: list[int]
    results: list[Result]

    def statistics(self) -> dict[str, dict[str, float | None]]:
        """Return mean and standard deviation of each number that every run has; a single run has no deviation."""
        found = {}
        for name in _COLUMNS:
            values = [getattr(result, name) for result in self.results]
            if None not in values:
                spread = statistics.stdev(values) if len(values) > 1 else None
                found[name] = {"mean": statistics.fmean(values), "standard_deviation": spread}
        return found

    def _repr_html_(self) -> str:
        head = ["seed", *(name.replace("_", " ") for name in _COLUMNS)]
        return html_table(self.folder.name, f"{len(self.seeds)} seeds", head, _rows(self))


def train_seeds(
    config: Config,
    count: int,
    *,
    folder: str | Path | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    progress: str = "auto",
    dataset: Any = None,
) -> Seeds:
    """Train with seeds config.seed to config.seed + count - 1, one after the other, and return their Results.

    folder, runs, name, progress, dataset: as of `train`.   Raises what `train` raises; `resume_seeds` goes on.
    """
    if count < 1 or config.seed + count > 2**64:
        msg = (
            f"seeds must be a number from 1 on, and the last seed below 2^64, got seeds={count} from seed={config.seed}"
        )
        raise ConfigError(msg)
    with report(progress) as says:
        if dataset is None:
            dataset, config = load_data(config, says)
        check(config, dataset)  # a folder of what cannot be trained would stand in the way of what can
    path = None if folder is None else Path(folder)
    with run_folder.create(path, runs=Path(runs), name=name or f"{config.preset}-seeds") as place:
        place.start(config)
        durable.write(place.path / PLAN, json.dumps({"count": count}).encode() + b"\n")
        return _go(place, read(place.path / "config.toml"), count, progress, dataset)


def resume_seeds(
    folder: str | Path, *, progress: str = "auto", dataset: Any = None, data_dir: str | None = None
) -> Seeds:
    """Finish the runs of an interrupted `train_seeds`: those begun are gone on with, the others trained."""
    place = Path(folder)
    with RunFolder(place) as held:
        try:
            count = int(bounded.from_json(bounded.text(place / PLAN))["count"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"{place / PLAN} does not say how many seeds were to be trained ({error})"
            raise ConfigError(msg) from error
        return _go(held, read(place / "config.toml"), count, progress, dataset, data_dir)


def is_seeds(folder: Path) -> bool:
    """Return whether a folder is one that `train_seeds` made."""
    return (folder / PLAN).is_file()


def _go(held: RunFolder, config: Config, count: int, progress: str, dataset: Any, data_dir: str | None = None) -> Seeds:
    """Train or finish every seed in a folder that this process holds, show the table, write seeds.json."""
    place = held.path
    if dataset is None:
        with report(progress) as says:
            dataset, _ = load_data(config, says, data_dir=data_dir)
    seeds = [config.seed + number for number in range(count)]
    results = []
    for seed in seeds:
        run = place / f"seed-{seed}"
        try:
            if _can_go_on(run):
                results.append(resume(run, progress=progress, dataset=dataset))
            else:
                settings = dataclasses.replace(config, seed=seed)
                results.append(train(settings, folder=run, progress=progress, dataset=dataset))
        except Interrupted as stop:  # what to go on with is all of them
            raise Interrupted(stop.signum, place) from None
    outcome = Seeds(place, seeds, results)
    record = {
        "data": results[0].data,
        "seeds": [
            {"seed": seed, "ended_by": result.ended_by} | {name: getattr(result, name) for name in _COLUMNS}
            for seed, result in zip(seeds, results, strict=True)
        ],
        "statistics": outcome.statistics(),
        "config": {name: value for name, value in shareable(config).items() if name != "seed"},
    }
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    durable.write(place / "seeds.json", text.encode() + b"\n")
    with report(progress) as says:
        for line in table(outcome):
            says.note(line)
    return outcome


def _can_go_on(run: Path) -> bool:
    """Return whether there is something to go on with; what a run left that had not come so far is cleared away."""
    if not run.is_dir():
        return False
    with RunFolder(run) as folder:
        if folder.last.exists() or folder.best.exists():
            return True
        folder.clear()
        return False


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
    """Return label and cells, one for each of _COLUMNS, of every seed, of the mean and of the deviation."""
    numbers = outcome.statistics()
    rows: list[tuple[str, dict[str, float | None]]] = [
        (str(seed), {name: getattr(result, name) for name in _COLUMNS})
        for seed, result in zip(outcome.seeds, outcome.results, strict=True)
    ]
    rows.append(("mean", {name: of["mean"] for name, of in numbers.items()}))
    rows.append(("deviation", {name: of["standard_deviation"] for name, of in numbers.items()}))
    return [[label, *(_cell(name, values.get(name)) for name in _COLUMNS)] for label, values in rows]


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if column == "seconds" else f"{value:.2%}"
