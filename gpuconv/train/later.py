"""A run with a later end: a new run that goes on where the old one stopped, which stays as it is.

The new run is the one that the old would have been with the later end: the same order, rates, weights and optimiser, bit
for bit.  So the end moves only where nothing of what is done depends on it.  A time limit and patience change nothing
before they end a run, and a constant rate or one in steps does not know how many steps there will be.  But one-cycle and
cosine come down over all steps: after the last one the rate is as good as 0, and with more steps the first ones would
have had other rates.  To train on from there is a new run with a schedule of its own, which starts from the weights.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import durable
from ..backend import using
from ..data.check import check_dataset
from ..data.dataset import Dataset
from ..errors import ConfigError
from ..folders import path_of
from ..nn.spec import NET_FILES
from ..runs import checkpoint
from ..runs.board import check_tensorboard
from ..runs.checkpoint import Position
from ..runs.config import Config
from ..runs.folder import CONFIG, RunFolder, new_folder
from ..runs.journal import EVENTS, TENSORBOARD
from ..runs.machine import ENVIRONMENT
from ..runs.result import Result
from ..runs.settings import difference, run_name
from ..show import terminal, words
from . import recipe
from .listed import listed
from .loop import Training
from .place import check_place
from .processes import refuse_many
from .start import load_data, load_snapshot, other_way, own_settings, refuse_what_ends_here

ENDS = ("epochs", "max_steps", "max_minutes", "patience")  # the settings that say when a run ends

_OVER_ALL_STEPS = ("cosine", "one-cycle")  # schedules


def prolong(
    run: str | Path,
    end: Mapping[str, Any],
    *,
    folder: str | Path | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    progress: str = "auto",
    dataset: Dataset | None = None,
    data_dir: str | None = None,
    graph: str | None = None,
) -> Result:
    """Go on with a run to a later end, in a new run folder, and return the Result; the run itself is left as it is.

    run: the run folder, or one of its checkpoints.   end: the settings of ENDS that change, as {"max_minutes": 0.0}.
    The new run has the old one's epochs, and can be interrupted and gone on with like any other.  Of an epoch that was
    cut short the other steps are done first; if its validation was the best so far, that stays a best one.
    folder, runs, name, progress, dataset: as of `train`.   data_dir: where the data lie now, if not where they were.
    graph: as of `resume`.
    Raises ConfigError, before anything is written, for an end that is none or would have changed what is done; and what
    `resume` raises.

    >>> pictures = data.draw_shapes(100, 40)
    >>> config = train.Config(widths=(4,), epochs=1, batch_size=20, validation=20, schedule="constant", lr=0.01)
    >>> first = train.train(config, folder="short", dataset=pictures, progress="none")
    >>> longer = train.prolong("short", {"epochs": 2}, folder="longer", dataset=pictures, progress="none")
    >>> first.steps, longer.steps
    (4, 8)
    """
    path, target = path_of(run, "the run"), None if folder is None else path_of(folder, "the run folder")
    refuse_many("a later end")
    if unknown := [setting for setting in end if setting not in ENDS]:
        msg = f"{', '.join(unknown)} cannot be changed when a run goes on, only its end: {', '.join(ENDS)}"
        raise ConfigError(msg)
    refuse_what_ends_here(path)
    with terminal.progress(progress) as display:
        with RunFolder(path.parent if path.is_file() else path) as old:
            snapshot = load_snapshot(old, path if path.is_file() else old.last)
            before = own_settings(old, snapshot) or snapshot.config
            kept = _files(old.path)
        config = dataclasses.replace(before, **end, graph=before.graph if graph is None else graph)
        check_place(config)
        if config.net.endswith(NET_FILES):
            config = dataclasses.replace(config, net=str(old.path / Path(config.net).name))
        if config.tensorboard:
            check_tensorboard()
        if dataset is None:
            known = snapshot.data_name, snapshot.data_fingerprint
            dataset, _ = load_data(config, display, data_dir=data_dir, trained_on=known)
        check_dataset(dataset)
        with using(config.device):
            training = Training(config, dataset, display, snapshot)
            position = _reopened(snapshot.position, training.plan, config.batch_size)
            _check_end(old.path, before, training, position)
            training.restore(snapshot)
            training.position = position
            changed = difference(before, dataclasses.replace(config, net=before.net))
            name = name or run_name(config)
            with (
                listed(display, new=target is None) as begin_in_index,
                new_folder(target, runs=path_of(runs, "the folder of runs"), name=name) as training.folder,
            ):
                training.config = training.folder.start(config)
                for relative, content in kept.items():
                    (training.folder.path / relative).parent.mkdir(parents=True, exist_ok=True)
                    durable.write(training.folder.path / relative, content)
                if training.position.best_epoch:
                    checkpoint.copy(old.best, training.folder.best, training.config)
                training.folder.write_metrics(training.position.rows)
                training.save_last()
                training.open_journal(resumed=True)
                note = f"goes on from {old.path.resolve().name} after step {training.steps_done}, with {changed}"
                for message in filter(None, (note, other_way(training.folder.path))):
                    training.journal.event("notice", message=message)
                    display.note(f"{training.folder.path}: {message}")
                begin_in_index(training.folder.path)
                return training.go()


def _files(folder: Path) -> dict[str, bytes]:
    """Return what a run has noted down as it went, by path, for the run that goes on."""
    paths = [folder / EVENTS, folder / ENVIRONMENT, *sorted((folder / TENSORBOARD).rglob("*"))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def _reopened(position: Position, plan: recipe.Plan, batch_size: int) -> Position:
    """Return a position without its end: that within the last epoch, if this was cut short.

    What its steps summed up to follows from their means, up to the rounding of these.
    """
    whole = position.step > 0 or position.steps == position.epoch * plan.steps_per_epoch
    if whole:
        return dataclasses.replace(position, ended_by="")
    row, epoch = position.rows[-1], position.epoch - 1
    steps = position.steps - epoch * plan.steps_per_epoch
    return dataclasses.replace(
        position,
        epoch=epoch,
        step=steps,
        loss_sum=row["train_loss"] * steps,
        correct=round(row["train_accuracy"] * steps * batch_size),
        seconds=row["seconds"],
        rows=position.rows[:-1],
        ended_by="",
    )


def _check_end(run: Path, old: Config, training: Training, position: Position) -> None:
    """Raise ConfigError if the end of a run that goes on is not a later one, or would have changed what is done."""
    config, steps = training.config, training.plan.steps
    planned = recipe.plan(old, len(training.split.y_train)).steps
    msg = ""
    if steps != planned and position.steps and config.schedule in _OVER_ALL_STEPS:
        more = "epochs" if config.epochs != old.epochs else "max_steps"
        count = max(getattr(config, more) - (old.epochs if more == "epochs" else position.steps), 1)
        msg = (
            f"the rate of {run} comes down over its {planned:,} steps (schedule {config.schedule}), and would have been "
            f"another one with {steps:,}: to train on from its weights, in a run with a schedule of its own, "
            f"{_from_its_weights(run)} --{more.replace('_', '-')} {count}"
        )
    elif steps <= position.steps:
        msg = f"{run} has done {position.steps:,} steps, and these settings end it after {steps:,}"
        if config.schedule in _OVER_ALL_STEPS:
            msg += f": {_from_its_weights(run)} trains on"
        else:
            msg += ": a larger --epochs N (epochs) or --max-steps N (max_steps) goes on"
    elif config.max_minutes and position.run_seconds >= 60 * config.max_minutes:
        msg = (
            f"{run} has taken {words.duration(position.run_seconds)}: --max-minutes X (max_minutes) must be more than that, "
            "or 0 for no limit"
        )
    elif config.patience and (waited := position.epoch - position.best_epoch) >= config.patience:
        msg = (
            f"{run} is {waited} epochs past its best: --patience N (patience) must be more than that, or 0 for no limit"
        )
    if msg:
        raise ConfigError(msg)


def _from_its_weights(run: Path) -> str:
    """Return the command that trains on from a run's weights, with its settings where they are there."""
    command = ["gpuconv", "train", "--weights", str(run)]
    if (run / CONFIG).is_file():
        command += ["--config", str(run / CONFIG)]
    return shlex.join(command)
