"""Several runs of one recipe in one folder, one after the other: with seeds, and values of settings, of their own.

The folder holds config.toml (the first seed in it), copies of the nets' files if there are any, plan.json (how many
seeds, which values), a run folder each, called by what is its own, and, when all are done, what they came to.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from .. import bounded, checks, durable
from ..errors import ConfigError
from ..folders import path_of
from ..nn.spec import NET_FILES
from ..runs import records
from ..runs.config import Config
from ..runs.folder import PLAN, RunFolder, new_folder
from ..runs.result import Result
from ..runs.settings import read
from ..show.terminal import progress as display_of
from .listed import listed
from .processes import refuse_many
from .signals import Interrupted
from .start import check, load_data, resume, train
from .weights import read_weights

_MOST_RUNS = 10_000
# What all runs of a folder share: their data, on which they are compared, and where and for what they are trained.
_SHARED = (
    *("preset", "weights", "data", "data_dir", "download", "image_size", "skip_broken", "test_images"),
    *("device", "overfit", "tensorboard"),
)

Values = Mapping[str, Sequence[Any]]
Outcome = TypeVar("Outcome")


class _Count(TypedDict):
    count: int


class Plan(_Count, total=False):
    """What plan.json holds: how many seeds, and the values of settings that are tried with each."""

    sweep: dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Member:
    """One of the runs: its seed, the settings that are its own, and the name of its folder."""

    seed: int
    changes: Mapping[str, Any]
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """All runs, in order, each with its Result."""

    folder: Path
    config: Config
    count: int
    members: list[Member]
    results: list[Result]


def begin(
    config: Config,
    count: int,
    sweep: Values,
    name: str,
    conclude: Callable[[Trained], Outcome],
    *,
    folder: str | Path | None,
    runs: str | Path,
    progress: str,
    dataset: Any,
) -> Outcome:
    """Train every combination of values with every seed, and return what conclude makes of it, in the folder still held.

    Whatever cannot be trained is refused before a folder is made.
    """
    sweep = _checked(config, sweep)
    combinations = math.prod(len(values) for values in sweep.values())
    if not 1 <= count * combinations <= _MOST_RUNS or config.seed + count > 2**64:
        number = f"{count * combinations} runs" if sweep else f"seeds={count}"
        msg = f"seeds must be a number from 1 on, {_MOST_RUNS:,} runs at most, and the last seed below 2^64, got {number} from seed={config.seed}"
        raise ConfigError(msg)
    with display_of(progress) as display:
        if dataset is None:
            dataset, config = load_data(config, display, weights=read_weights(config))
        for changes in _combinations(sweep):
            check(dataclasses.replace(config, **changes), dataset)
    path = None if folder is None else path_of(folder, "the run folder")
    with (
        display_of(progress) as display,
        listed(display, new=path is None) as begin_in_index,
        new_folder(path, runs=path_of(runs, "the folder of runs"), name=name) as several,
    ):
        several.start(config)
        plan: Plan = {"count": count}
        if sweep:
            plan["sweep"] = {setting: [several.keep(setting, value) for value in sweep[setting]] for setting in sweep}
        durable.write(several.path / PLAN, json.dumps(plan, ensure_ascii=False).encode() + b"\n")
        begin_in_index(several.path)
        return conclude(_go(several, read(several.path / "config.toml"), plan, progress, dataset))


def go_on(
    folder: str | Path,
    conclude: Callable[[Trained], Outcome],
    *,
    progress: str,
    dataset: Any,
    data_dir: str | None,
    graph: str | None,
) -> Outcome:
    """Finish the runs of a folder: those begun are gone on with, the others trained."""
    refuse_many("a folder of several runs")
    path = path_of(folder, "the folder of runs")
    with (
        display_of(progress) as display,
        listed(display, new=False) as begin_in_index,
        RunFolder(path) as several,
    ):
        plan = _read_plan(path)
        config = read(path / "config.toml")
        if graph is not None:
            config = dataclasses.replace(config, graph=graph)
        begin_in_index(several.path)
        return conclude(_go(several, config, plan, progress, dataset, data_dir))


def _read_plan(path: Path) -> Plan:
    try:
        plan: Plan = bounded.from_json(bounded.text(path / PLAN))
        records.check("", plan, Plan)
        checks.integer("count", plan["count"], least=1, most=_MOST_RUNS)
        _checked(Config(), plan.get("sweep", {}))
        if plan.get("sweep") == {}:
            msg = "sweep has no settings"
            raise ConfigError(msg)
    except (OSError, ValueError, ConfigError) as error:
        msg = f"{path / PLAN} does not say which runs were to be trained ({error})"
        raise ConfigError(msg) from error
    return plan


def _go(
    several: RunFolder, config: Config, plan: Plan, progress: str, dataset: Any, data_dir: str | None = None
) -> Trained:
    """Train or finish every run of a folder that this process holds."""
    path = several.path
    if dataset is None:
        with display_of(progress) as display:
            dataset, _ = load_data(config, display, data_dir=data_dir)
    members, results = members_of(config, plan), []
    for member in members:
        run = path / member.name
        try:
            if _can_go_on(run):
                results.append(resume(run, progress=progress, dataset=dataset, graph=config.graph))
            else:
                settings = dataclasses.replace(config, seed=member.seed, **_placed(member.changes, path))
                results.append(train(settings, folder=run, progress=progress, dataset=dataset))
        except Interrupted as stop:  # what to go on with is all of them
            raise Interrupted(stop.signum, path) from None
    return Trained(path, config, plan["count"], members, results)


def members_of(config: Config, plan: Plan) -> list[Member]:
    """Return the runs of a plan, in order: each combination of values with all seeds."""
    seeds, sweep = range(config.seed, config.seed + plan["count"]), plan.get("sweep", {})
    members = []
    for changes in _combinations(sweep):
        own = [f"{setting}={in_name(value)}" for setting, value in changes.items()]
        for seed in seeds:
            last = [f"seed-{seed}"] if len(seeds) > 1 or not sweep else []
            members.append(Member(seed, changes, ",".join([*own, *last])))
    return members


def in_name(value: Any) -> str:
    """Return the value of a setting as it stands in the name of a run; a net's file without its folder."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ":".join(map(str, value))
    return Path(value).name if isinstance(value, str) else repr(value)


def _combinations(sweep: Values) -> list[dict[str, Any]]:
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def _placed(changes: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return settings with a net's file, of which the folder has a copy, named in full."""
    net = changes.get("net", "")
    return {**changes, "net": str(folder / net)} if net.endswith(NET_FILES) else {**changes}


def _checked(config: Config, sweep: Values) -> dict[str, list[Any]]:
    """Return the values to be tried as settings have them; raise ConfigError for what cannot be tried."""
    checked = {}
    for setting, values in sweep.items():
        if setting == "seed":
            msg = "a sweep takes no seed: seeds=N (--seeds N) trains every combination with N of them"
            raise ConfigError(msg)
        if setting in _SHARED:
            msg = f"a sweep takes no {setting}: all of its runs share that, so that they can be compared"
            raise ConfigError(msg)
        if not isinstance(values, (list, tuple)) or not values:
            msg = f"a sweep needs values to try for {setting}, in a list, got {checks.shown(values)}"
            raise ConfigError(msg)
        # Config says what it does not know, and of which kind values must be.
        checked[setting] = [getattr(dataclasses.replace(config, **{setting: value}), setting) for value in values]
        names = [in_name(value) for value in checked[setting]]
        if twice := [name for name in names if names.count(name) > 1]:
            msg = f"a sweep needs values that differ, got {setting}={twice[0]} twice"
            raise ConfigError(msg)
        if unfit := [name for name in names if not name or {*name} & {*",/\\"}]:
            msg = f"a sweep names folders by its values, and {setting}={unfit[0]} cannot be one"
            raise ConfigError(msg)
    return checked


def _can_go_on(run: Path) -> bool:
    """Return whether there is something to go on with; what a run left that had not come so far is cleared away."""
    if not run.is_dir():
        return False
    with RunFolder(run) as folder:
        if folder.last.exists() or folder.best.exists():
            return True
        folder.clear()
        return False
