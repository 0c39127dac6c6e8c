"""The training loop: step, look, save, and go on from where a run was, bit for bit.

A run moves through consistent points only: after a step, and after a batch of a validation.  Signals are looked at
and checkpoints written there and nowhere else.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import data, nn, ops
from ..backend import all_finite, asarray, asnumpy, using
from ..data.drawn import SHAPES
from ..errors import CheckpointCorruptError, CheckpointMismatchError, ConfigError, GpuconvError, NonFiniteLossError
from . import recipe, run_folder, snapshot
from .config import Config, difference, to_values
from .evaluation import Evaluation, evaluate
from .machine import gpuconv_version, machine, versions
from .report import Report, duration, report
from .run_folder import RunFolder
from .signals import Guard, Interrupted, Stop
from .snapshot import Position, Snapshot


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The outcome of a finished run.  Test numbers are those of its best epoch."""

    folder: Path
    data: str
    metrics: list[dict[str, Any]]
    best_epoch: int
    validation_accuracy: float | None
    test_accuracy: float
    test_loss: float
    steps: int
    seconds: float
    images_per_second: float


def train(
    config: Config,
    *,
    folder: str | Path | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    progress: str = "auto",
    dataset: Any = None,
) -> Result:
    """Train a net from the beginning and return the Result; everything is kept in a new run folder.

    folder: the run folder itself, new or empty (None: the next free runs/<name>-<number>; name None: the preset).
    progress: "auto", "bar", "plain" or "none".   dataset: a gpuconv.data.Dataset in place of the one config names.

    Raises ConfigError, NonFiniteLossError (the last good checkpoint is kept), CheckpointWriteError, what loading the
    data raises, and Interrupted after the first SIGINT or SIGTERM, with everything saved.
    """
    with using(config.device), report(progress) as says:
        if dataset is None:
            dataset, config = _load_data(config, says)
        run = _Run(config, dataset, says)
        path = None if folder is None else Path(folder)
        with run_folder.create(path, runs=Path(runs), name=name or config.preset) as run.folder:
            run.folder.write_config(config)
            run.folder.write_metrics([])
            run.save_last()  # a disk that cannot be written shows now, not after the first epoch
            return run.go()


def resume(run: str | Path, *, progress: str = "auto", dataset: Any = None, data_dir: str | None = None) -> Result:
    """Go on with an interrupted run and return the Result that the uninterrupted one would have had, bit for bit.

    run: the run folder (its last.safetensors is used), or one of its checkpoints.
    Raises CheckpointCorruptError, -MismatchError or -VersionError if that cannot be done, and what train raises.
    """
    path = Path(run)
    with report(progress) as says, RunFolder(path.parent if path.is_file() else path) as folder:
        then = _load(folder, path if path.is_file() else folder.last)
        config = then.config
        if changed := difference(config, folder.read_config()):
            msg = f"{folder.path / 'config.toml'} is not what the run was started with ({changed}): put it back"
            raise CheckpointMismatchError(msg)
        if dataset is None:
            where = config if data_dir is None else dataclasses.replace(config, data_dir=data_dir)
            dataset = _load_data(where, says)[0]
        with using(config.device):
            return _go_on(config, dataset, says, folder, then, from_file=path.is_file())


def _go_on(config: Config, dataset: Any, says: Report, folder: RunFolder, then: Snapshot, *, from_file: bool) -> Result:
    again = _Run(config, dataset, says)
    again.folder = folder
    again.restore(then)
    if from_file:
        again.save_last()
    if again.finished and (result := _finished(folder, then)) is not None:
        says.note(f"{folder.path} is finished already: test accuracy {result.test_accuracy:.2%}")
        return result
    folder.write_metrics(then.position.rows)
    says.note(f"going on with {folder.path} after step {again.steps_done}")
    return again.go()


class _Run:
    """A run in progress."""

    folder: RunFolder

    def __init__(self, config: Config, dataset: Any, says: Report) -> None:
        self.config = config
        self.dataset = dataset
        self.says = says
        self.split = recipe.split(dataset, config)
        recipe.check_moves(config, dataset.x_train.shape[1:])
        self.images = asarray(self.split.x_train)  # copied once: a step then reads them where it runs
        self.plan = recipe.plan(config, len(self.split.y_train))
        self.net = recipe.net(config, tuple(dataset.x_train.shape[1:]), len(dataset.classes))
        self.optimiser = recipe.optimiser(config, self.net)
        self.rate = recipe.schedule(config, self.plan)
        self.fingerprint = recipe.fingerprint(dataset)
        self.position = Position()
        self.saved = self._where
        self.guard = Guard()

    @property
    def steps_done(self) -> int:
        return min(self.position.epoch * self.plan.steps_per_epoch + self.position.step, self.plan.steps)

    @property
    def finished(self) -> bool:
        return self.position.epoch == self.plan.epochs

    @property
    def _where(self) -> tuple[int, int]:
        return self.position.epoch, self.position.step

    # To and from the disk -------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        snapshot.save(
            path,
            config=self.config,
            net=self.net,
            optimiser=self.optimiser,
            data_name=self.dataset.name,
            data_fingerprint=self.fingerprint,
            position=self.position,
        )

    def save_last(self) -> None:
        self.save(self.folder.last)
        self.saved = self._where

    def restore(self, then: Snapshot) -> None:
        if (then.data_name, then.data_fingerprint) != (self.dataset.name, self.fingerprint):
            same_name = "another version of it" if then.data_name == self.dataset.name else self.dataset.name
            msg = f"{then.path} was trained on {then.data_name}, the data found here is {same_name}"
            raise CheckpointMismatchError(msg)
        then.restore(self.net, self.optimiser)
        self.position = then.position
        self.saved = self._where

    # The loop -------------------------------------------------------------------------------------------------------

    def go(self) -> Result:
        """Train to the end, test the best epoch, write the result."""
        self.says.begin(self._facts(), epochs=self.plan.epochs, steps=self.plan.steps, done=self.steps_done)
        with self.guard:
            try:
                while not self.finished:
                    self._steps()
                    self._end_of_epoch()
                result = self._result()
                self.guard.check()
                return result
            except Stop:
                assert self.guard.signum is not None
                if self.saved != self._where:
                    self.save_last()
                raise Interrupted(self.guard.signum, self.folder.path) from None

    def _steps(self) -> None:
        """Do the steps that are left of the epoch."""
        config, position, split = self.config, self.position, self.split
        count = len(split.y_train)
        draws = None
        if config.flip or config.crop or config.cutout:
            alternate = config.flip_mode == "alternate"
            draws = data.epoch_draws(count, seed=config.seed, epoch=position.epoch, alternate_flip=alternate)
        batches = data.epoch_batches(count, config.batch_size, seed=config.seed, epoch=position.epoch)
        steps = self.plan.steps_of(position.epoch)
        for batch in batches[position.step : steps]:
            start = time.perf_counter()
            images, labels = self.images[asarray(batch)], split.y_train[batch]
            loss, correct = self._step(images, labels, None if draws is None else draws[batch])
            elapsed = time.perf_counter() - start
            position.step += 1
            position.loss_sum += loss
            position.correct += correct
            position.seconds += elapsed
            position.training_seconds += elapsed
            self.says.step(epoch=position.epoch + 1, images=len(batch), loss=loss)
            self.guard.check()
            if config.checkpoint_every and self.steps_done % config.checkpoint_every == 0 and position.step < steps:
                self.save_last()

    def _step(self, images: Any, labels: Any, draws: Any) -> tuple[float, int]:
        """Update the weights once; return the loss and how many scores were right before the update."""
        config, dataset, step = self.config, self.dataset, self.steps_done
        x = ops.augment(
            images,
            None if draws is None else asarray(draws),
            mean=dataset.mean,
            std=dataset.std,
            pad=config.crop,
            pad_mode=config.pad_mode,
            flip=config.flip,
            cutout=config.cutout,
            dtype=config.dtype,
            channels_last=True,
        )
        scores = self.net.forward(x, training=True, step=step)
        loss, dscores = ops.softmax_cross_entropy(scores, asarray(labels), label_smoothing=config.label_smoothing)
        value = float(asnumpy(loss))
        if not math.isfinite(value):
            what = f"the loss is {value}"
            raise self._not_finite(what, step + 1)
        self.net.backward(dscores)
        if not all_finite(self.net.flat_grads):
            what = f"a gradient is NaN or infinite (and the loss {value:.4g})"
            raise self._not_finite(what, step + 1)
        self.optimiser.step(self.rate(step))
        return value, int((asnumpy(scores).argmax(axis=1) == labels).sum())

    def _not_finite(self, what: str, step: int) -> NonFiniteLossError:
        saved = self.saved[0] * self.plan.steps_per_epoch + self.saved[1]
        return NonFiniteLossError(
            f"{what} in epoch {self.position.epoch + 1}, step {step}.  The weights of step {saved} are kept in "
            f"{self.folder.last}; a lower learning rate often helps"
        )

    def _end_of_epoch(self) -> None:
        """Validate, note the epoch down, save; a signal during the validation leaves the epoch's steps done."""
        position = self.position
        start = time.perf_counter()
        self.says.validating()
        found = self._evaluate(self.net, self.split.x_validation, self.split.y_validation)
        if found is not None and not math.isfinite(found.loss):
            what = f"the validation loss is {found.loss}"
            raise self._not_finite(what, self.steps_done)
        steps = self.plan.steps_of(position.epoch)
        accuracy = found.accuracy if found is not None else None
        row = {
            "epoch": position.epoch + 1,
            "step": self.steps_done,
            "train_loss": position.loss_sum / steps,
            "train_accuracy": position.correct / (steps * self.config.batch_size),
            "validation_loss": found.loss if found is not None else None,
            "validation_accuracy": accuracy,
            "learning_rate": self.rate(self.steps_done - 1),
            "seconds": round(position.seconds + time.perf_counter() - start, 3),
        }
        best = accuracy is None or position.best_accuracy is None or accuracy > position.best_accuracy
        if best:
            position.best_epoch, position.best_accuracy = position.epoch + 1, accuracy
        position.rows.append(row)
        position.epoch, position.step = position.epoch + 1, 0
        position.loss_sum, position.correct, position.seconds = 0.0, 0, 0.0
        # In this order each file on the disk is explained by the ones before it, wherever the process dies.
        if best:
            self.save(self.folder.best)
        self.folder.append_metrics(row)
        self.save_last()
        self.says.epoch(row, best=best)

    def _evaluate(self, net: nn.Net, images: Any, labels: Any) -> Evaluation | None:
        if len(labels) == 0:
            return None
        return evaluate(
            net,
            images,
            labels,
            mean=self.dataset.mean,
            std=self.dataset.std,
            classes=len(self.dataset.classes),
            between=self.guard.check,
        )

    # The end --------------------------------------------------------------------------------------------------------

    def _result(self) -> Result:
        """Test the best epoch's weights, as they lie on the disk, and write result.json."""
        position, split = self.position, self.split
        test = self._evaluate(snapshot.load_net(self.folder.best), split.x_test, split.y_test)
        assert test is not None
        images = self.plan.steps * self.config.batch_size
        result = Result(
            folder=self.folder.path,
            data=self.dataset.name,
            metrics=position.rows,
            best_epoch=position.best_epoch,
            validation_accuracy=position.best_accuracy,
            test_accuracy=test.accuracy,
            test_loss=test.loss,
            steps=self.plan.steps,
            seconds=round(sum(row["seconds"] for row in position.rows), 3),
            images_per_second=round(images / max(position.training_seconds, 1e-9), 1),
        )
        self.folder.write_result(self._record(result, test))
        self.says.end(self._summary(result, test))
        return result

    def _record(self, result: Result, test: Evaluation) -> dict[str, Any]:
        """Return what result.json holds: nothing in it tells whose machine it was."""
        settings = {name: value for name, value in to_values(self.config).items() if name != "data_dir"}
        settings["data"] = settings["data"] if settings["data"] in data.sources.NAMES else result.data
        return {
            "data": result.data,
            "validation_accuracy": result.validation_accuracy,
            "test_accuracy": result.test_accuracy,
            "test_loss": result.test_loss,
            "test_accuracy_by_class": dict(zip(self.dataset.classes, test.class_accuracy, strict=True)),
            "test_images": test.count,
            "training_images": len(self.split.y_train),
            "validation_images": len(self.split.y_validation),
            "best_epoch": result.best_epoch,
            "epochs": self.plan.epochs,
            "steps": result.steps,
            "seconds": result.seconds,
            "images_per_second": result.images_per_second,
            "parameters": int(self.net.flat_params.size),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
            "config": settings,
        }

    # Words ----------------------------------------------------------------------------------------------------------

    def _facts(self) -> list[tuple[str, str]]:
        config, split = self.config, self.split
        facts = machine()
        where = facts.get("gpu") or f"the CPU with {facts['threads']} threads"
        images = (
            f"{self.dataset.name}: {len(split.y_train):,} train, {len(split.y_validation):,} validation, "
            f"{len(split.y_test):,} test"
        )
        flips = ["flips in turns" if config.flip_mode == "alternate" else "flips"] if config.flip else []
        moves = [*flips, *([f"shifts up to {config.crop} pixels"] if config.crop else [])]
        moves += [f"squares of {config.cutout} pixels cut out"] if config.cutout else []
        how = (
            f"{self.plan.epochs} epochs of {self.plan.steps_of(0):,} steps of {config.batch_size} images; "
            f"{config.optimizer}, {config.schedule} lr {config.lr:g}"
        )
        return [
            ("gpuconv", f"{gpuconv_version()}, {config.dtype} on {where}, seed {config.seed}"),
            ("net", f"{config.net}, {self.net.flat_params.size:,} parameters"),
            ("data", images),
            ("recipe", how + (f"; {' and '.join(moves)}" if moves else "")),
            ("run", str(self.folder.path)),
        ]

    def _summary(self, result: Result, test: Evaluation) -> list[str]:
        chosen = "" if result.validation_accuracy is None else f"validation {result.validation_accuracy:.2%}, "
        return [
            f"best epoch {result.best_epoch}: {chosen}test {result.test_accuracy:.2%} of {test.count:,} images",
            f"{duration(result.seconds)}, {result.images_per_second:,.0f} images/s in training",
            f"everything is in {result.folder}; accuracy by class: gpuconv eval {result.folder}",
        ]


def _load(folder: RunFolder, path: Path) -> Snapshot:
    """Return the snapshot to go on from; if it cannot be used, say which other one could."""
    try:
        return snapshot.load(path)
    except (CheckpointCorruptError, ConfigError) as error:
        again = f"gpuconv train --config {folder.path / 'config.toml'}"
        other = folder.best if path == folder.last else folder.last
        try:
            epoch = snapshot.load(other).position.epoch
        except GpuconvError:
            msg = f"{error}; to start again: {again}"
        else:
            msg = f"{error}; {other} is sound, from the end of epoch {epoch}: gpuconv train --resume {other}"
        raise type(error)(msg) from error


def _finished(folder: RunFolder, then: Snapshot) -> Result | None:
    """Return the Result of a run that is over and has its result.json; None if that is still to be written."""
    record = folder.read_result() or {}
    names = [name for name in Result.__dataclass_fields__ if name not in ("folder", "metrics")]
    if any(name not in record for name in names):
        return None
    return Result(folder=folder.path, metrics=then.position.rows, **{name: record[name] for name in names})


def _load_data(config: Config, says: Report) -> tuple[data.Dataset, Config]:
    """Return the data set and the settings that name it for good, in place of "auto"."""
    if config.data_dir and not Path(config.data_dir).expanduser().exists():
        msg = f"data_dir {config.data_dir} does not exist"
        raise ConfigError(msg)
    dataset = data.load(
        config.data,
        folder=config.data_dir or None,
        image_size=config.image_size,
        download=config.download,
        progress=says.download,
    )
    if config.data == "auto":
        config = dataclasses.replace(config, data="shapes" if dataset.classes == SHAPES else "cifar10")
    return dataset, config
