"""One recipe with several values of its settings, each combination trained: which is best, and is it by chance?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import tables
from ..data.dataset import Dataset
from ..errors import ConfigError
from ..folders import quoted
from ..plural import counted
from ..runs.config import Config
from ..runs.reading import Reading
from ..runs.result import Result
from ..runs.settings import run_name, shareable
from ..show import sides
from ..show.terminal import progress as display_of
from . import seeds, several
from .processes import refuse_many


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """The outcome: of each run its values, its seed and its Result, in order.

    >>> config = train.Config(widths=(4,), max_steps=1, batch_size=20, validation=20)
    >>> rates, pictures = {"lr": [0.01, 0.03]}, data.draw_shapes(100, 40)
    >>> outcome = train.train_sweep(config, rates, folder="rates", dataset=pictures, progress="none")
    >>> outcome.best in outcome.values
    True
    """

    folder: Path
    values: list[Mapping[str, Any]]
    seeds: list[int]
    results: list[Result]

    @property
    def best(self) -> Mapping[str, Any]:
        """The values with the highest mean validation accuracy; of runs without validation there are none to choose by."""
        groups = self._groups()
        means = [seeds.statistics_of(results).get("validation_accuracy", {}).get("mean") for _, results in groups]
        if None in means:
            msg = "the best values are chosen by validation accuracy, and these runs have no validation images"
            raise ConfigError(msg)
        return groups[means.index(max(mean for mean in means if mean is not None))][0]

    def _groups(self) -> list[tuple[Mapping[str, Any], list[Result]]]:
        """Return each combination of values with the results of its seeds."""
        groups: list[tuple[Mapping[str, Any], list[Result]]] = []
        for values, result in zip(self.values, self.results, strict=True):
            if groups and groups[-1][0] == values:
                groups[-1][1].append(result)
            else:
                groups.append((values, [result]))
        return groups

    def records(self) -> list[dict[str, Any]]:
        """Return a row for each combination: its values, and mean and deviation of each number of its runs."""
        return [
            {"settings": dict(values), "runs": len(results), "statistics": seeds.statistics_of(results)}
            for values, results in self._groups()
        ]

    def _repr_html_(self) -> str:
        head = [*self.values[0], "runs", *(name.replace("_", " ") for name in seeds.COLUMNS)]
        rows = []
        for record in self.records():
            numbers = [record["statistics"].get(name, {}).get("mean") for name in seeds.COLUMNS]
            cells = [
                "-" if number is None else f"{number:.1f}" if name == "seconds" else f"{number:.2%}"
                for name, number in zip(seeds.COLUMNS, numbers, strict=True)
            ]
            rows.append([*map(several.in_name, record["settings"].values()), str(record["runs"]), *cells])
        return tables.html(self.folder.name, counted(len(self.results), "run"), head, rows)


def train_sweep(
    config: Config,
    values: Mapping[str, Sequence[Any]],
    *,
    seeds: int = 1,
    folder: str | Path | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    progress: str = "auto",
    dataset: Dataset | None = None,
) -> Sweep:
    """Train each combination of values of settings, with so many seeds from config.seed on, and return their Results.

    values: of each setting those to try, as {"lr": [0.01, 0.03], "batch_size": [64, 128]}.
    folder, runs, name, progress, dataset: as of `train`.   Raises what `train` raises, of each combination before the
    first is trained; `resume_several` goes on.

    >>> config = train.Config(widths=(4,), max_steps=1, batch_size=20, validation=20)
    >>> rates, pictures = {"lr": [0.01, 0.03]}, data.draw_shapes(100, 40)
    >>> outcome = train.train_sweep(config, rates, folder="rates", dataset=pictures, progress="none")
    >>> outcome.values
    [{'lr': 0.01}, {'lr': 0.03}]
    """
    refuse_many("--sweep")
    if not values:
        msg = 'a sweep needs settings and values to try, as {"lr": [0.01, 0.03]}'
        raise ConfigError(msg)
    place: dict[str, Any] = {"folder": folder, "runs": runs, "progress": progress, "dataset": dataset}
    name = name or f"{run_name(config)}-sweep"
    return several.begin(config, seeds, values, name, lambda trained: conclude(trained, progress), **place)


def conclude(trained: several.Trained, progress: str) -> Sweep:
    """Write sweep.json, show the table, and return the outcome."""
    members = trained.members
    changes = [member.changes for member in members]
    outcome = Sweep(trained.folder, changes, [member.seed for member in members], trained.results)
    record = {
        "data": outcome.results[0].data,
        "runs": [
            {"run": member.name, "seed": member.seed, "settings": dict(member.changes), "ended_by": result.ended_by}
            | {name: getattr(result, name) for name in seeds.COLUMNS}
            for member, result in zip(members, outcome.results, strict=True)
        ],
        "combinations": outcome.records(),
        "config": {
            name: value for name, value in shareable(trained.config).items() if name not in {"seed", *changes[0]}
        },
    }
    seeds.write(outcome.folder / "sweep.json", record)
    with display_of(progress) as display:
        display.lines(table(outcome))
    return outcome


def table(outcome: Sweep) -> list[str]:
    """Return the first table of a comparison of all combinations, and which is the best."""
    found = sides.sides_of([outcome.folder], Reading)
    lines = ["", *sides.outcomes(found).splitlines(), sides.LEGEND]
    if all(result.validation_accuracy is not None for result in outcome.results):
        best = ", ".join(f"{setting} {several.in_name(value)}" for setting, value in outcome.best.items())
        lines.append(f"best by validation: {best}")
    return [*lines, f"everything is in {outcome.folder}", f"side by side: gpuconv compare {quoted(outcome.folder)}"]


def resume_several(
    folder: str | Path,
    *,
    progress: str = "auto",
    dataset: Dataset | None = None,
    data_dir: str | None = None,
    graph: str | None = None,
) -> seeds.Seeds | Sweep:
    """Finish the runs of an interrupted `train_seeds` or `train_sweep`: those begun are gone on with, the others trained.

    >>> config = train.Config(widths=(4,), max_steps=1, batch_size=20, validation=20)
    >>> pictures = data.draw_shapes(100, 40)
    >>> outcome = train.train_seeds(config, 2, folder="two", dataset=pictures, progress="none")
    >>> train.resume_several("two", dataset=pictures, progress="none").seeds  # all are done: nothing is trained
    [0, 1]
    """

    def conclude_either(trained: several.Trained) -> seeds.Seeds | Sweep:
        of_sweep = bool(trained.members[0].changes)
        return conclude(trained, progress) if of_sweep else seeds.conclude(trained, progress)

    return several.go_on(folder, conclude_either, progress=progress, dataset=dataset, data_dir=data_dir, graph=graph)
