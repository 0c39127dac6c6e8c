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
from typing import Any, TypedDict

from .. import bounded, checks, durable, tables
from ..errors import ConfigError
from ..folders import path_of
from ..plural import counted
from ..runs import records
from ..runs.config import Config
from ..runs.folder import PLAN, RunFolder, new_folder
from ..runs.result import Result
from ..runs.settings import read, shareable
from ..show.terminal import progress as display_of
from .processes import refuse_many
from .signals import Interrupted
from .start import check, load_data, resume, train
from .weights import read_weights

_MOST_SEEDS = 10_000
_COLUMNS = ("validation_accuracy", "test_accuracy", "test_accuracy_tta", "seconds")


class Plan(TypedDict):
    """What plan.json holds."""

    count: int


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
        numbers = {}
        for name in _COLUMNS:
            values = [getattr(result, name) for result in self.results]
            if None not in values:
                spread = statistics.stdev(values) if len(values) > 1 else None
                numbers[name] = {"mean": statistics.fmean(values), "standard_deviation": spread}
        return numbers

    def _repr_html_(self) -> str:
        head = ["seed", *(name.replace("_", " ") for name in _COLUMNS)]
        return tables.html(self.folder.name, counted(len(self.seeds), "seed"), head, _rows(self))


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

    >>> config = train.Config(widths=(4,), max_steps=1, batch_size=20, validation=20)
    >>> outcome = train.train_seeds(config, 2, folder="two", dataset=data.draw_shapes(100, 40), progress="none")
    >>> [result.folder.name for result in outcome.results]
    ['seed-0', 'seed-1']
    """
    refuse_many("--seeds")
    if not 1 <= count <= _MOST_SEEDS or config.seed + count > 2**64:
        msg = f"seeds must be a number from 1 on, {_MOST_SEEDS:,} at most, and the last seed below 2^64, got seeds={count} from seed={config.seed}"
        raise ConfigError(msg)
    with display_of(progress) as display:
        if dataset is None:
            dataset, config = load_data(config, display, weights=read_weights(config))
        check(config, dataset)  # a folder of what cannot be trained would stand in the way of what can
    path = None if folder is None else path_of(folder, "the run folder")
    with new_folder(path, runs=path_of(runs, "the folder of runs"), name=name or f"{config.preset}-seeds") as several:
        several.start(config)
        durable.write(several.path / PLAN, json.dumps({"count": count}).encode() + b"\n")
        return _go(several, read(several.path / "config.toml"), count, progress, dataset)


def resume_seeds(
    folder: str | Path,
    *,
    progress: str = "auto",
    dataset: Any = None,
    data_dir: str | None = None,
    graph: str | None = None,
) -> Seeds:
    """Finish the runs of an interrupted `train_seeds`: those begun are gone on with, the others trained.

    >>> config = train.Config(widths=(4,), max_steps=1, batch_size=20, validation=20)
    >>> pictures = data.draw_shapes(100, 40)
    >>> outcome = train.train_seeds(config, 2, folder="two", dataset=pictures, progress="none")
    >>> train.resume_seeds("two", dataset=pictures, progress="none").seeds  # all are done: nothing is trained
    [0, 1]
    """
    refuse_many("a folder of several seeds")
    path = path_of(folder, "the folder of runs")
    with RunFolder(path) as several:
        try:
            plan = bounded.from_json(bounded.text(path / PLAN))
            records.check("", plan, Plan)
            count = _count(plan["count"])
        except (OSError, ValueError) as error:
            msg = f"{path / PLAN} does not say how many seeds were to be trained ({error})"
            raise ConfigError(msg) from error
        config = read(path / "config.toml")
        if graph is not None:
            config = dataclasses.replace(config, graph=graph)
        return _go(several, config, count, progress, dataset, data_dir)


def _count(value: Any) -> int:
    return checks.integer("count", value, least=1, most=_MOST_SEEDS)


def _go(
    several: RunFolder, config: Config, count: int, progress: str, dataset: Any, data_dir: str | None = None
) -> Seeds:
    """Train or finish every seed in a folder that this process holds, show the table, write seeds.json."""
    path = several.path
    if dataset is None:
        with display_of(progress) as display:
            dataset, _ = load_data(config, display, data_dir=data_dir)
    seeds = [config.seed + number for number in range(count)]
    results = []
    for seed in seeds:
        run = path / f"seed-{seed}"
        try:
            if _can_go_on(run):
                results.append(resume(run, progress=progress, dataset=dataset, graph=config.graph))
            else:
                settings = dataclasses.replace(config, seed=seed)
                results.append(train(settings, folder=run, progress=progress, dataset=dataset))
        except Interrupted as stop:  # what to go on with is all of them
            raise Interrupted(stop.signum, path) from None
    outcome = Seeds(path, seeds, results)
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
    durable.write(path / "seeds.json", text.encode() + b"\n")
    with display_of(progress) as display:
        for line in table(outcome):
            display.note(line)
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
