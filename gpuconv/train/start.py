"""The beginning of a run, or the way back into one: settings, data and folder, until the loop takes over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..backend import default_device, loops_in_words, using
from ..data.check import check_dataset
from ..data.dataset import Dataset
from ..data.drawn import SHAPES
from ..data.pictures import MIXED_SIZE, NAMED
from ..data.sources import is_path
from ..errors import CheckpointCorruptError, CheckpointMismatchError, ConfigError, GpuconvError
from ..folders import path_of, quoted
from ..plural import counted
from ..runs import checkpoint
from ..runs.board import check_tensorboard
from ..runs.checkpoint import Snapshot
from ..runs.config import Config
from ..runs.dataset import counts_in_words, load_dataset
from ..runs.folder import CONFIG, RunFolder, checkpoint_in, new_folder, refuse_several, way_to_start_again
from ..runs.journal import EVENTS
from ..runs.machine import began_with
from ..runs.origin import same_paths
from ..runs.result import Result, from_record
from ..runs.settings import difference, run_name
from ..show import terminal
from ..show.terminal import Progress
from ..show.words import setting
from . import recipe
from .listed import listed
from .loop import Training
from .place import check_place
from .team import Alone, gathered
from .weights import Weights, read_weights


def train(
    config: Config,
    *,
    folder: str | Path | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    progress: str = "auto",
    dataset: Dataset | None = None,
) -> Result:
    """Train a net from the beginning and return the Result; everything is kept in a new run folder.

        folder: the run folder itself, new or empty (None: the next free runs/<name>-<number>; name None: the net's).
        progress: "auto", "bar", "plain" or "none".   dataset: a gpuconv.data.Dataset in place of the one config names.

    With config.weights the net starts from those of a run or checkpoint, as weights.py has it.
    Raises ConfigError, what `read_weights` raises, CheckpointMismatchError for weights of another net, what `check_dataset`
    raises of a dataset whose parts do not belong together, NonFiniteLossError (the last good checkpoint is kept),
    CheckpointWriteError, what loading the data raises, and Interrupted after the
    first SIGINT, SIGTERM or SIGHUP, with everything saved.

    >>> pictures = data.draw_shapes(100, 40)
    >>> config = train.Config(widths=(4,), epochs=1, batch_size=20, validation=20)
    >>> result = train.train(config, folder="runs/one", dataset=pictures, progress="none")
    >>> result.steps, result.ended_by
    (4, 'epochs')
    >>> sorted(path.name for path in result.folder.glob("*.safetensors"))
    ['best.safetensors', 'last.safetensors']
    """
    with gathered(config) as team, team.placed(config.device), terminal.progress(progress, team.rank) as display:
        if config.tensorboard:
            check_tensorboard()
        training = begin(config, dataset, display, team)
        config = training.config
        path = None if folder is None else path_of(folder, "the run folder")
        runs, name = path_of(runs, "the folder of runs"), name or run_name(config)
        with (
            listed(display, new=path is None, first=not team.rank) as begin_in_index,
            team.folder(lambda: new_folder(path, runs=runs, name=name)) as training.folder,
        ):
            training.config = team.first(lambda: training.folder.start(config))
            training.folder.write_metrics([])
            training.open_journal()
            training.save_last()  # a disk that cannot be written shows now, not after the first epoch
            begin_in_index(training.folder.path)
            return training.go()


def check(config: Config, dataset: Any) -> None:
    """Raise what `train` would raise of these settings before it makes a folder."""
    if config.tensorboard:
        check_tensorboard()
    with using(config.device):
        begin(config, dataset, Progress())


def begin(
    config: Config,
    dataset: Any,
    display: Progress,
    team: Alone | None = None,
    rate: Callable[[int], float] | None = None,
) -> Training:
    """Return a new run before its first step, with its data and the weights it starts from, and without a folder.

    team: the processes of the run, where they are many.   rate: as of `Training`.
    """
    team = Alone() if team is None else team
    check_place(config)
    weights = read_weights(config)
    if dataset is None:
        settings = config
        dataset, config = team.each(lambda: load_data(settings, display, weights=weights))
    check_dataset(dataset)
    config = recipe.settled(config, dataset)
    fitted = recipe.fitted(config, dataset)
    if fitted != config:
        images = len(recipe.split(dataset, config).y_train)
        what = f"would leave an epoch of {counted(images, 'training image')} fewer than 8 steps"
        if config.batch_size > images:
            what = f"is more than the {counted(images, 'training image')}"
        size = setting("batch_size", config.batch_size)
        display.note(f"{size} {what}: batches of {fitted.batch_size} are taken instead")
    training = Training(fitted, dataset, display, weights=weights, team=team, rate=rate)
    training.prepare(weights)
    for note in training.notes:
        display.note(note)
    return training


def resume(
    run: str | Path,
    *,
    progress: str = "auto",
    dataset: Dataset | None = None,
    data_dir: str | None = None,
    graph: str | None = None,
) -> Result:
    """Go on with an interrupted run and return the Result that the uninterrupted one would have had, bit for bit.

    On the CPU that takes the way it was begun: compiled loops or NumPy alone, the same version of numba, a processor
    with vectors as wide.  A run that goes on another way says so, on the screen and in events.jsonl.

    run: the run folder (its last.safetensors is used), or one of its checkpoints.  A checkpoint in a folder that is no
    run's is refused, for a run would be made around it: Config(weights=...) starts a new one from it.
    graph: the setting from now on, if it is to be another one; it changes no bit.
    Raises CheckpointCorruptError, -MismatchError or -VersionError if that cannot be done, and what train raises.

    >>> result = train.resume("runs/first", dataset=data.draw_shapes(100, 40), progress="none")
    >>> result.steps, result.ended_by  # it was over: what it came to, and no step more
    (4, 'epochs')
    """
    path = path_of(run, "the run")
    with (
        gathered() as team,
        terminal.progress(progress, team.rank) as display,
        listed(display, new=False, first=not team.rank) as begin_in_index,
        team.folder(lambda: _to_go_on(path)) as folder,
    ):
        from_file = team.first(path.is_file)
        snapshot = team.first(lambda: load_snapshot(folder, path if from_file else folder.last))
        written = team.first(lambda: own_settings(folder, snapshot))
        config = snapshot.config if written is None else written
        if graph is not None:
            config = dataclasses.replace(config, graph=graph)
        check_place(config)
        new = team.first(lambda: snapshot.position.steps == 0 and not folder.has_events())
        if config.tensorboard:
            check_tensorboard()
        if dataset is None:
            known = snapshot.data_name, snapshot.data_fingerprint
            settings = config
            dataset, settled = team.each(lambda: load_data(settings, display, data_dir=data_dir, trained_on=known))
            if new:  # in place of "auto"
                config = dataclasses.replace(config, data=settled.data, validation=settled.validation)
        check_dataset(dataset)
        with team.placed(config.device):
            training = Training(config, dataset, display, snapshot, team=team)
            training.folder = folder
            training.restore(snapshot)
            training.note_saved()
            if config != written:  # it was not there, or says "auto"
                folder.write_config(config)
            begin_in_index(folder.path)
            return _go_on(training, snapshot, from_file=from_file, new=new)


def _to_go_on(path: Path) -> RunFolder:
    refuse_what_ends_here(path)
    return RunFolder(path.parent if path.is_file() else path)


def own_settings(folder: RunFolder, snapshot: Snapshot) -> Config | None:
    """Return the settings in config.toml, None without such a file; refuse others than the run was started with.

    A run that has gone on in another folder may hold other spellings of its paths; `graph`, which changes no bit, may differ.
    """
    written = folder.read_config()
    if written is None:
        return None
    settings = (same_paths(config, folder.path) for config in (snapshot.config, written))
    if changed := difference(*(dataclasses.replace(config, graph=written.graph) for config in settings)):
        msg = f"{folder.path / 'config.toml'} is not what the run was started with ({changed}): put it back"
        raise CheckpointMismatchError(msg)
    return written


def refuse_what_ends_here(path: Path) -> None:
    """Raise ConfigError for what no run goes on from, before anything is written there.

    That is a folder of several runs or without a checkpoint, and a checkpoint in no run's folder.
    """
    refuse_several(path)
    if path.is_dir():
        checkpoint_in(path, "last", "best")
    elif path.is_file() and not any((path.parent / name).exists() for name in (CONFIG, EVENTS)):
        checkpoint.load(path)
        msg = f"{path} lies in no run's folder: to start a new run from it, gpuconv train --weights {quoted(path)}"
        raise ConfigError(msg)


def _go_on(training: Training, snapshot: Snapshot, *, from_file: bool, new: bool) -> Result:
    folder, display, position = training.folder, training.display, snapshot.position
    result = None
    if training.finished:
        result = training.team.first(
            lambda: from_record(folder.path, folder.read_result(), position.rows, position.steps)
        )
    if result is None:
        folder.reopen()  # before anything that says how far the run is: a crash leaves no result of another one
    if from_file:
        training.save_last()
    if result is not None:
        display.note(f"{folder.path} is finished already: test accuracy {result.test_accuracy:.2%}")
        if result.ended_by in ("max-minutes", "patience"):
            later = f"gpuconv train --resume {quoted(folder.path)} --{result.ended_by} 0"
            display.note(f"it was ended by {result.ended_by}; to go on to its last epoch, in a new run:\n{later}")
        return result
    folder.write_metrics(position.rows)
    training.open_journal(resumed=not new)
    display.note(f"going on with {folder.path} after step {training.steps_done}")
    if notice := training.team.first(lambda: other_way(folder.path)):
        training.journal.event("notice", message=notice)
        display.note(f"{folder.path}: {notice}")
    return training.go()


def other_way(path: Path) -> str:
    """Return the warning that a run computes in another way than it was begun; empty where it does not."""
    begun = began_with(path) if default_device() == "cpu" else None
    if begun is None or begun == (here := loops_in_words()):
        return ""
    other = "its numbers may differ in the last bits from those of one way alone"
    return f"begun with {begun}, goes on with {here}: {other}"


def load_snapshot(folder: RunFolder, path: Path) -> Snapshot:
    """Return the snapshot to go on from; if it cannot be used, say which other one could."""
    try:
        return checkpoint.load(path)
    except (CheckpointCorruptError, ConfigError) as error:
        other = folder.best if path == folder.last else folder.last
        try:
            epoch = checkpoint.load(other).position.epoch
        except GpuconvError:
            msg = f"{error}; {way_to_start_again(folder.path)}"
        else:
            msg = f"{error}; {other} is sound, from the end of epoch {epoch}: gpuconv train --resume {quoted(other)}"
        raise type(error)(msg) from error


def load_data(
    config: Config,
    display: Progress,
    *,
    data_dir: str | None = None,
    trained_on: tuple[str, str] | None = None,
    weights: Weights | None = None,
) -> tuple[Dataset, Config]:
    """Return the data set and the settings as they are for good: its name for "auto", how many images validate.

    data_dir, trained_on: as of `load_dataset`.   weights: those a new run starts from; pictures of several sizes are
    scaled to the size that these know, and the settings say so from then on.
    """
    folder = data_dir or config.data_dir
    if folder and not path_of(folder, "data_dir").exists():
        msg = f"data_dir {folder} does not exist: name the folder that holds the data, or leave it out"
        raise ConfigError(msg)
    known_size = None if weights is None else weights.image_size
    dataset = load_dataset(
        config,
        data_dir=data_dir,
        notice=display.note,
        progress=display.download,
        trained_on=trained_on,
        mixed_size=known_size or MIXED_SIZE,
    )
    if known_size and is_path(config.data) and dataset.x_train.shape[2:] == (known_size, known_size):
        config = dataclasses.replace(config, image_size=known_size)
    if dataset.name.startswith(NAMED):
        display.note(counts_in_words(dataset))
    if config.data == "auto":
        config = dataclasses.replace(config, data="shapes" if dataset.classes == SHAPES else "cifar10")
    return dataset, recipe.settled(config, dataset)
