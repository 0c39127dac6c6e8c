"""All runs of a folder, each in a few words: what it is, how far it has come, what it came to."""

from __future__ import annotations

import datetime
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import bounded
from ..data.sources import is_path
from ..errors import ConfigError
from ..folders import is_folder
from . import journal
from .config import OF_WEIGHTS, Config
from .folder import CONFIG, PLAN, held, in_order, members
from .reading import Reading
from .settings import read, shareable

RUNNING, DONE, FAILED, STOPPED, DAMAGED = "running", "done", "failed", "stopped", "damaged"


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A run, or several of one recipe in a folder of their own, which `runs` has; accuracies are then means."""

    path: Path
    state: str
    net: str = "-"
    data: str = "-"
    epochs: int = 0  # done; of several, runs
    planned: int | None = None
    validation: float | None = None  # the best
    test: float | None = None
    began: float | None = None  # seconds since the epoch of clocks
    seconds: float | None = None
    parameters: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    problem: str = ""  # why it is damaged
    curve: Sequence[tuple[float, float]] = ()  # (epoch, validation accuracy, or that of training)
    runs: list[Entry] | None = None

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.resolve().name

    @property
    def age(self) -> float | None:
        """Seconds since it was begun."""
        return None if self.began is None else max(0.0, time.time() - self.began)

    def values(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        began = None if self.began is None else datetime.datetime.fromtimestamp(self.began, datetime.UTC)
        values: dict[str, Any] = {
            "name": self.name,
            "path": str(self.path),
            "state": self.state,
            "net": self.net,
            "data": self.data,
            "epochs" if self.runs is None else "done": self.epochs,
            "planned": self.planned,
            "validation_accuracy": self.validation,
            "test_accuracy": self.test,
            "began": None if began is None else began.isoformat(timespec="seconds"),
            "seconds": self.seconds,
            "parameters": self.parameters,
            "settings": self.settings,
        }
        if self.problem:
            values["problem"] = self.problem
        if self.runs is not None:
            values["runs"] = [run.values() for run in self.runs]
        return values


def overview(folder: Path) -> list[Entry]:
    """Return the runs in a folder, the newest first; of a run's own folder, or one of several, those in it.

    A run that cannot be read is one of them, with the reason.   Raises ConfigError if there is no such folder.
    """
    if not is_folder(folder):
        msg = f"there is no folder {folder}: gpuconv train makes runs, and another folder of them can be named"
        raise ConfigError(msg)
    if (folder / PLAN).exists():
        return _of_several(folder).runs or []
    if (folder / CONFIG).exists():
        return [_of_one(folder)]
    try:
        inside = sorted(folder.iterdir(), key=lambda entry: in_order(entry.name))
    except OSError as error:
        msg = f"{folder} could not be read ({error.strerror or error})"
        raise ConfigError(msg) from error
    entries = []
    for path in inside:
        if (path / PLAN).is_file():
            entries.append(_of_several(path))
        elif (path / CONFIG).is_file():
            entries.append(_of_one(path))
    return sorted(entries, key=lambda entry: entry.age if entry.age is not None else math.inf)


SORTED = ("age", "name", "state", "net", "data", "epochs", "validation", "test")


def in_sequence(entries: Sequence[Entry], by: str) -> list[Entry]:
    """Return runs sorted by one of SORTED: words by the alphabet, accuracies from the highest, ages from the newest."""
    known = {
        "age": lambda entry: entry.age,
        "epochs": lambda entry: None if entry.epochs is None else -entry.epochs,
        "validation": lambda entry: None if entry.validation is None else -entry.validation,
        "test": lambda entry: None if entry.test is None else -entry.test,
    }
    if by not in known:
        return sorted(entries, key=lambda entry: (in_order(getattr(entry, by)), in_order(entry.name)))
    value = known[by]
    return sorted(entries, key=lambda entry: math.inf if value(entry) is None else value(entry))


def _of_one(path: Path) -> Entry:
    try:
        return _read(path)
    except ConfigError as error:
        return Entry(path, DAMAGED, problem=str(error))


def _read(path: Path) -> Entry:
    goes_on = held(path)  # before anything else: what has ended since is told from what it has written
    config = read(path / CONFIG, find_files=False)
    run = Reading(path)
    start, last = journal.ends(path)
    result, rows = run.result, run.metrics
    state = RUNNING if goes_on else DONE if result is not None else FAILED if last.get("event") == "failed" else STOPPED
    known = [(row["epoch"], row["validation_accuracy"]) for row in rows if row["validation_accuracy"] is not None]
    best = max((share for _, share in known), default=None)
    return Entry(
        path,
        state,
        **_of_config(config),
        epochs=len(rows),
        planned=start.get("epochs", config.epochs),
        validation=best if result is None else result["validation_accuracy"],
        test=None if result is None else result["test_accuracy"],
        began=_seconds(start.get("time")) or (path / CONFIG).stat().st_mtime,
        seconds=sum(row["seconds"] for row in rows),
        parameters=start.get("parameters"),
        curve=known or [(row["epoch"], row["train_accuracy"]) for row in rows],
    )


def _of_several(path: Path) -> Entry:
    """Return the entry of a folder of several runs; those that have not been begun are counted, too."""
    begun = [_of_one(run) for run in members(path) or [] if (run / CONFIG).is_file()]
    done = [run for run in begun if run.state == DONE]
    planned = _planned(path)
    if held(path):
        state = RUNNING
    elif planned is not None and len(done) >= planned:
        state = DONE
    else:
        state = FAILED if any(run.state == FAILED for run in begun) else STOPPED
    try:
        about = _of_config(read(path / CONFIG, find_files=False))
    except ConfigError as error:
        return Entry(path, DAMAGED, problem=str(error), runs=begun)
    return Entry(
        path,
        state,
        **about,
        epochs=len(done),
        planned=planned,
        validation=_mean([run.validation for run in done]),
        test=_mean([run.test for run in done]),
        began=min((run.began for run in begun if run.began is not None), default=(path / CONFIG).stat().st_mtime),
        seconds=sum(run.seconds or 0.0 for run in begun),
        parameters=begun[0].parameters if begun else None,
        runs=begun,
    )


def _planned(path: Path) -> int | None:
    """Return how many runs plan.json asks for; None if it does not say so."""
    plan = bounded.json_object(path / PLAN)
    try:
        values = [len(of) for of in (plan or {}).get("sweep", {}).values()]
        return int((plan or {})["count"]) * math.prod(values)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return None


def _of_config(config: Config) -> dict[str, Any]:
    settings = shareable(config)
    name = settings["data"]
    shown = ("preset", "lr", "batch_size", "seed", "optimizer", "schedule", "precision", "device")
    return {
        "net": f"from {settings['weights']}" if config.net == OF_WEIGHTS else settings["net"],
        "data": name.removeprefix("./") if is_path(config.data) else name,
        "settings": {key: settings[key] for key in shown},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _seconds(text: Any) -> float | None:
    """Return the time of an event in seconds; None if it is none."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
