"""The training loop: step, look, save, and go on from where a run was, bit for bit.

A run moves through consistent points only: after a step, and after a batch of a validation.  Signals are looked at
and checkpoints written there and nowhere else.

On the CPU each step is looked at before it changes the weights: one whose loss or gradients are not finite changes
none.  On a GPU, where looking means waiting, steps are looked at every 16, at the end of an epoch and before anything
is saved: weights may have gone bad by then, but no file holds them.  Steps that clip gradients or compute in float16
need their gradients' norm or finiteness at once, and wait on a GPU, too.  Not yet run on a GPU.

With an average of weights (ema), validation and test are those of the average, and it is what best.safetensors holds;
last.safetensors holds the weights of the last step, and the average beside them.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import data, nn
from ..backend import all_finite, asarray, asnumpy, finite_flags, on_gpu, using
from ..data.drawn import SHAPES
from ..errors import CheckpointCorruptError, CheckpointMismatchError, ConfigError, GpuconvError, NonFiniteLossError
from . import html_report, recipe, run_folder, snapshot
from .config import Config, difference, shareable
from .evaluation import Evaluation, evaluate, pack_bits
from .feed import Batch, Feed
from .journal import Journal, NoJournal, check_tensorboard, without_paths, write_environment
from .machine import gpuconv_version, machine, versions
from .outcomes import Outcomes, hits, mean
from .precision import arithmetic
from .report import Report, duration, report
from .run import metrics_table
from .run_folder import RunFolder
from .signals import Guard, Interrupted, Stop
from .snapshot import Position, Snapshot

_LOOK_EVERY = 16  # steps on a GPU between two looks at what they came to
_PREPARE_IMAGES = 5000
_OVERFITTED = 0.99


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
    test_accuracy_tta: float | None  # with the views that config.tta asks for; None without
    ended_by: str  # "epochs", "max-steps", "max-minutes" or "patience"

    def _repr_html_(self) -> str:
        return metrics_table(self.folder.name, f"test accuracy {self.test_accuracy:.2%}", self.metrics)


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
    if config.tensorboard:
        check_tensorboard()
    with using(config.device), report(progress) as says:
        run = begin(config, dataset, says)
        config = run.config
        path = None if folder is None else Path(folder)
        with run_folder.create(path, runs=Path(runs), name=name or config.preset) as run.folder:
            run.config = run.folder.start(config)
            run.folder.write_metrics([])
            run.open_journal()
            run.save_last()  # a disk that cannot be written shows now, not after the first epoch
            return run.go()


def check(config: Config, dataset: Any) -> None:
    """Raise what `train` would raise of these settings before it makes a folder."""
    if config.tensorboard:
        check_tensorboard()
    with using(config.device):
        _Run(config, dataset, Report())


def begin(config: Config, dataset: Any, says: Report) -> _Run:
    """Return a new run before its first step, with its data, and without a folder."""
    if dataset is None:
        dataset, config = load_data(config, says)
    run = _Run(recipe.settled(config, dataset), dataset, says)
    run.prepare()
    return run


def resume(run: str | Path, *, progress: str = "auto", dataset: Any = None, data_dir: str | None = None) -> Result:
    """Go on with an interrupted run and return the Result that the uninterrupted one would have had, bit for bit.

    run: the run folder (its last.safetensors is used), or one of its checkpoints.  A checkpoint that stands before the
    first step, in a folder where no run has been begun, is the start of a run there.
    Raises CheckpointCorruptError, -MismatchError or -VersionError if that cannot be done, and what train raises.
    """
    path = Path(run)
    run_folder.refuse_several(path)
    with report(progress) as says, RunFolder(path.parent if path.is_file() else path) as folder:
        then = _load(folder, path if path.is_file() else folder.last)
        config, written = then.config, folder.read_config()
        new = then.position.steps == 0 and not folder.has_events()
        if written is not None and (changed := difference(config, written)):
            msg = f"{folder.path / 'config.toml'} is not what the run was started with ({changed}): put it back"
            raise CheckpointMismatchError(msg)
        if config.tensorboard:
            check_tensorboard()
        if dataset is None:
            known = then.data_name, then.data_fingerprint
            dataset, found = load_data(config, says, data_dir=data_dir, trained_on=known)
            if new:  # in place of "auto"
                config = dataclasses.replace(config, data=found.data, validation=found.validation)
        with using(config.device):
            again = _Run(config, dataset, says, then.net)
            again.folder = folder
            again.restore(then)
            if config != written:  # it was not there, or says "auto"
                folder.write_config(config)
            return _go_on(again, then, from_file=path.is_file(), new=new)


def _go_on(run: _Run, then: Snapshot, *, from_file: bool, new: bool) -> Result:
    folder, says = run.folder, run.says
    result = _finished(folder, then) if run.finished else None
    if result is None:
        folder.reopen()  # before anything that says how far the run is: a crash leaves no result of another one
    if from_file:
        run.save_last()
    if result is not None:
        says.note(f"{folder.path} is finished already: test accuracy {result.test_accuracy:.2%}")
        return result
    folder.write_metrics(then.position.rows)
    run.open_journal(resumed=not new)
    says.note(f"going on with {folder.path} after step {run.steps_done}")
    return run.go()


class _Run:
    """A run in progress."""

    folder: RunFolder  # which a dry run has not

    def __init__(self, config: Config, dataset: Any, says: Report, built: Mapping[str, Any] | None = None) -> None:
        self.config = config
        self.dataset = dataset
        self.says = says
        self.split = recipe.split(dataset, config)
        recipe.check_moves(config, dataset.x_train.shape[1:])
        self.plan = recipe.plan(config, len(self.split.y_train))
        self.net = recipe.net(config, tuple(dataset.x_train.shape[1:]), len(dataset.classes), built)
        self.optimiser = recipe.optimiser(config, self.net)
        self.rate = recipe.schedule(config, self.plan)
        self.fingerprint = recipe.fingerprint(dataset)
        self.arithmetic = arithmetic(self.net, config.precision, config.accumulate)
        self.average = nn.WeightAverage(self.net, config.ema) if config.ema else None
        self.feed = Feed(self.split.x_train, self.split.y_train, config, mean=dataset.mean, std=dataset.std)
        self.x_validation = asarray(self.split.x_validation)  # placed once, as the feed's are
        # A step that must know its gradients, to shorten them or to do without them, waits for them anyway.
        deferred = on_gpu(self.net.flat_params) and not config.clip_norm and self.arithmetic.scale is None
        self.outcomes = Outcomes(_LOOK_EVERY, config.accumulate) if deferred else None
        self.journal = NoJournal()
        self.position = Position()
        self.last_loss: float | None = None
        self.saved = self._where
        self.kept = ""  # a sentence on the last checkpoint
        self.guard = Guard()

    def prepare(self) -> None:
        """Let a new net look at the data, before anything is computed or saved."""
        self.net.prepare(self.feed.first(_PREPARE_IMAGES))
        self.arithmetic.follow()
        if self.average is not None:
            self.average = nn.WeightAverage(self.net, self.config.ema)

    @property
    def steps_done(self) -> int:
        return self.position.steps

    @property
    def finished(self) -> bool:
        """True after the last epoch, or after the end of the epoch within which the run was told to end."""
        position = self.position
        return position.epoch == self.plan.epochs or (bool(position.ended_by) and position.step == 0)

    @property
    def epoch(self) -> int:
        """The number of the epoch in progress, counted from 1; of a run that is over, the last one's."""
        return self.position.epoch + (0 if self.finished else 1)

    @property
    def ended_by(self) -> str:
        """What ended the run; one that did all its steps was ended by nothing else."""
        if self.steps_done < self.plan.steps:
            return self.position.ended_by
        return "max-steps" if self.plan.steps == self.config.max_steps else "epochs"

    @property
    def seconds(self) -> float:
        """How long the run took until the last step, validations included, however often it was gone on with."""
        return sum(row["seconds"] for row in self.position.rows) + self.position.seconds

    @property
    def _where(self) -> tuple[int, int]:
        return self.position.epoch, self.position.step

    # To and from the disk -------------------------------------------------------------------------------------------

    def save(self, path: Path, *, best: bool = False) -> None:
        """Write a checkpoint, after a look at the steps nobody has looked at yet: none is of weights gone bad.

        The best one holds the average of weights, if there is one, and no paths: it is what people pass on.
        """
        self._look()
        snapshot.save(
            path,
            config=self.config,
            net=self.net,
            optimiser=self.optimiser,
            data_name=self.dataset.name,
            data_fingerprint=self.fingerprint,
            position=self.position,
            average=self.average,
            averaged=best,
            scale=self.arithmetic.scale,
            to_share=best,
        )

    def save_last(self) -> None:
        self.save(self.folder.last)
        self._note_saved()

    def _note_saved(self) -> None:
        self.saved = self._where
        self.kept = f"  The weights of step {self.steps_done} are kept in {self.folder.last}"

    def open_journal(self, *, resumed: bool = False) -> None:
        journal = self.journal = Journal(
            self.folder.path,
            steps=self.plan.steps,
            resumed_step=self.steps_done if resumed else None,
            epochs=self.position.epoch,
            epoch=self.epoch,
            tensorboard=self.config.tensorboard,
        )
        if not resumed:
            journal.start(self._about())
            write_environment(self.folder.path)

    def restore(self, then: Snapshot) -> None:
        if (then.data_name, then.data_fingerprint) != (self.dataset.name, self.fingerprint):
            same_name = "another version of it" if then.data_name == self.dataset.name else self.dataset.name
            msg = f"{then.path} was trained on {then.data_name}, the data found here is {same_name}"
            raise CheckpointMismatchError(msg)
        then.restore(self.net, self.optimiser, self.average, self.arithmetic.scale)
        self.arithmetic.follow()
        self.position = then.position
        self._note_saved()

    # The loop -------------------------------------------------------------------------------------------------------

    def go(self) -> Result:
        """Train to the end, test the best epoch, write the result."""
        self.says.begin(
            [*self.facts(), ("run", str(self.folder.path))],
            epochs=self.plan.epochs,
            steps=self.plan.steps,
            done=self.steps_done,
        )
        with self.guard, self.feed, self.journal:
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
                self._event("interrupted")
                raise Interrupted(self.guard.signum, self.folder.path) from None
            except NonFiniteLossError as error:
                self._event("failed", message=without_paths(str(error).replace(f"{self.folder.path}{os.sep}", "")))
                raise

    def _steps(self) -> None:
        """Do the steps that are left of the epoch, or of the time."""
        config, position = self.config, self.position
        steps = self.plan.steps_of(position.epoch)
        start = time.perf_counter()
        for batch in self.feed.epoch(position.epoch, position.step, 0 if position.ended_by else steps):
            self._step(batch)
            elapsed = time.perf_counter() - start
            position.step += 1
            position.steps += 1
            position.seconds += elapsed
            position.training_seconds += elapsed
            self.says.step(epoch=position.epoch + 1, images=len(batch.labels), loss=self.last_loss)
            self._look_at_the_clock()
            self.guard.check()
            if position.ended_by:
                break
            if config.checkpoint_every and self.steps_done % config.checkpoint_every == 0 and position.step < steps:
                self.save_last()
                self._event("saved")
            start = time.perf_counter()
        self._look()

    def _event(self, kind: str, **values: Any) -> None:
        self.journal.event(kind, step=self.steps_done, epoch=self.epoch, **values)

    def _look_at_the_clock(self) -> None:
        if self.config.max_minutes and self.seconds >= 60 * self.config.max_minutes:
            self.position.ended_by = "max-minutes"

    def _step(self, batch: Batch) -> None:
        """Update the weights once, unless their gradients are not finite, and note what came out."""
        step, arithmetic = self.steps_done, self.arithmetic
        losses, scores = [], []
        arithmetic.begin()
        for part, (x, labels) in enumerate(batch.parts):
            # Parts have numbers of their own, so that dropout draws anew for each.
            found = arithmetic.forward(x, step=step * self.config.accumulate + part)
            loss, dscores = arithmetic.loss(found, labels, label_smoothing=self.config.label_smoothing)
            losses.append(loss)
            scores.append(found)
            if self.outcomes is None and not math.isfinite(value := float(asnumpy(loss))):
                what = f"the loss is {value}"
                raise self._not_finite(what, step + 1)
            arithmetic.backward(dscores)
        arithmetic.end()
        if self.outcomes is not None:
            self.outcomes.add(step, losses, scores, finite_flags(self.net.flat_grads), batch.labels)
            self._update(step)
            if self.outcomes.full:
                self._look()
            return
        loss_value = mean([asnumpy(loss) for loss in losses])
        if self._may_update(step, loss_value):
            self._update(step)
        found = np.concatenate([asnumpy(part) for part in scores])
        self._note(step, loss_value, hits(found, batch.labels))

    def rehearse(self, batch: Batch) -> None:
        """Do a step and wait for it, on behalf of a dry run."""
        self._step(batch)
        self.position.steps += 1
        self._look()

    def _may_update(self, step: int, loss: float) -> bool:
        """Return whether the gradients are finite; a step in float16 may do without them, another may not."""
        scale = self.arithmetic.scale
        if all_finite(self.net.flat_grads):
            if scale is not None:
                scale.succeed()
            return True
        if scale is not None and scale.fail():
            return False
        what = f"a gradient is NaN or infinite (and the loss {loss:.4g})"
        raise self._not_finite(what, step + 1)

    def _update(self, step: int) -> None:
        if self.config.clip_norm:
            nn.clip_gradients(self.net, self.config.clip_norm)
        self.optimiser.step(self.rate(step))
        self.arithmetic.follow()
        if self.average is not None:
            self.average.update(step)

    def _look(self) -> None:
        """Read the outcomes of steps on a GPU; raise NonFiniteLossError at the first bad one, which no file holds."""
        for outcome in () if self.outcomes is None else self.outcomes.look():
            if not math.isfinite(outcome.loss):
                what = f"the loss is {outcome.loss}"
                raise self._not_finite(what, outcome.step + 1)
            if not outcome.finite:
                what = f"a gradient is NaN or infinite (and the loss {outcome.loss:.4g})"
                raise self._not_finite(what, outcome.step + 1)
            self._note(outcome.step, outcome.loss, outcome.correct)

    def _note(self, step: int, loss: float, correct: int) -> None:
        """Add a step (counted from 0) to the sums of its epoch; called once for each, in order, late on a GPU."""
        self.last_loss = loss
        self.position.loss_sum += loss
        self.position.correct += correct
        share = correct / self.config.batch_size
        self.journal.step(
            step + 1,
            self.position.epoch + 1,
            lambda: {"loss": loss, "accuracy": share, "learning_rate": self.rate(step)},
        )

    def _not_finite(self, what: str, step: int) -> NonFiniteLossError:
        return NonFiniteLossError(
            f"{what} in epoch {self.position.epoch + 1}, step {step}.{self.kept or '  Nothing was saved'}; "
            "a lower --lr or a --clip-norm often helps"
        )

    def _end_of_epoch(self) -> None:
        """Validate, note the epoch down, save; a signal during the validation leaves the epoch's steps done."""
        position = self.position
        start = time.perf_counter()
        self.says.validating()
        with nullcontext() if self.average is None else self.average.applied():
            found = self._evaluate(self.net, self.x_validation, self.split.y_validation)
        if found is not None and not math.isfinite(found.loss):
            what = f"the validation loss is {found.loss}"
            raise self._not_finite(what, self.steps_done)
        steps = position.step  # fewer than planned if the time was over
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
        self._look_at_the_clock()  # a validation takes time, too
        if self.config.patience and position.epoch - position.best_epoch >= self.config.patience:
            position.ended_by = position.ended_by or "patience"
        # In this order each file on the disk is explained by the ones before it, wherever the process dies.
        if best:
            self.save(self.folder.best, best=True)
        self.folder.append_metrics(row)
        self.journal.epoch(row, best=best)
        self.save_last()
        self.says.epoch(row, best=best)

    def _evaluate(self, net: nn.Net, images: Any, labels: Any, *, tta: str = "none") -> Evaluation | None:
        if len(labels) == 0:
            return None
        return evaluate(
            net,
            images,
            labels,
            mean=self.dataset.mean,
            std=self.dataset.std,
            classes=len(self.dataset.classes),
            tta=tta,
            between=self.guard.check,
        )

    # The end --------------------------------------------------------------------------------------------------------

    def _result(self) -> Result:
        """Test the best epoch's weights, as they lie on the disk, and write result.json.

        Validation and the first test look at each image once; config.tta asks for a second test with more views.
        """
        position, split = self.position, self.split
        net = snapshot.load_net(self.folder.best)
        x_test = asarray(split.x_test)
        test = self._evaluate(net, x_test, split.y_test)
        assert test is not None
        with_views = None
        if self.config.tta != "none":
            with_views = self._evaluate(net, x_test, split.y_test, tta=self.config.tta)
        images = self.steps_done * self.config.batch_size
        result = Result(
            folder=self.folder.path,
            data=self.dataset.name,
            metrics=position.rows,
            best_epoch=position.best_epoch,
            validation_accuracy=position.best_accuracy,
            test_accuracy=test.accuracy,
            test_loss=test.loss,
            steps=self.steps_done,
            seconds=round(sum(row["seconds"] for row in position.rows), 3),
            images_per_second=round(images / max(position.training_seconds, 1e-9), 1),
            test_accuracy_tta=None if with_views is None else with_views.accuracy,
            ended_by=self.ended_by,
        )
        record = self._record(result, test)
        self.journal.end(record)  # before result.json, with which the run is over
        self.folder.write_result(record)
        self.says.end([*self._summary(result, test), *html_report.after_run(self.folder.path, self.dataset)])
        return result

    def _about(self) -> dict[str, Any]:
        """Return what is known of a run before its first step: its result has the same under the same names."""
        return {
            "data": self.dataset.name,
            "data_fingerprint": self.fingerprint,
            "classes": list(self.dataset.classes),
            "training_images": len(self.split.y_train),
            "validation_images": len(self.split.y_validation),
            "test_images": len(self.split.y_test),
            "epochs": self.plan.epochs,
            "steps": self.plan.steps,
            "parameters": int(self.net.flat_params.size),
        }

    def _record(self, result: Result, test: Evaluation) -> dict[str, Any]:
        """Return what result.json holds: nothing in it tells whose machine it was."""
        return {
            **self._about(),
            "epochs": len(self.position.rows),
            "steps": result.steps,
            "validation_accuracy": result.validation_accuracy,
            "test_accuracy": result.test_accuracy,
            "test_loss": result.test_loss,
            "test_accuracy_tta": result.test_accuracy_tta,
            "test_accuracy_by_class": dict(zip(self.dataset.classes, test.class_accuracy, strict=True)),
            "confusion": test.confusion.tolist(),
            "mistakes": [list(mistake) for mistake in test.mistakes],
            "test_right": pack_bits(test.right),
            "best_epoch": result.best_epoch,
            "ended_by": result.ended_by,
            "skipped_steps": 0 if self.arithmetic.scale is None else self.arithmetic.scale.skipped,
            "seconds": result.seconds,
            "images_per_second": result.images_per_second,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
            "config": shareable(self.config),
        }

    # Words ----------------------------------------------------------------------------------------------------------

    def facts(self) -> list[tuple[str, str]]:
        config, split = self.config, self.split
        facts = machine()
        where = facts.get("gpu") or f"the CPU with {facts['threads']} threads"
        images = (
            f"{self.dataset.name}: {len(split.y_train):,} train, {len(split.y_validation):,} validation, "
            f"{len(split.y_test):,} test"
        )
        computes = config.dtype if config.precision == "float32" else f"{config.precision} with float32 weights"
        flips = ["flips in turns" if config.flip_mode == "alternate" else "flips"] if config.flip else []
        moves = [*flips, *([f"shifts up to {config.crop} pixels"] if config.crop else [])]
        moves += [f"squares of {config.cutout} pixels cut out"] if config.cutout else []
        how = (
            f"{self.plan.epochs} epochs of {self.plan.steps_of(0):,} steps of {config.batch_size} images; "
            f"{config.optimizer}, {config.schedule} lr {config.lr:g}"
        )
        if config.accumulate > 1:
            how += f", {config.accumulate} parts a step"
        if config.clip_norm:
            how += f", gradients clipped to {config.clip_norm:g}"
        if config.ema:
            how += f", average of weights {config.ema:g}"
        return [
            ("gpuconv", f"{gpuconv_version()}, {computes} on {where}, seed {config.seed}"),
            ("net", f"{config.net}, {self.net.flat_params.size:,} parameters"),
            ("data", images),
            ("recipe", how + (f"; {' and '.join(moves)}" if moves else "")),
        ]

    def _summary(self, result: Result, test: Evaluation) -> list[str]:
        chosen = "" if result.validation_accuracy is None else f"validation {result.validation_accuracy:.2%}, "
        lines = [f"best epoch {result.best_epoch}: {chosen}test {result.test_accuracy:.2%} of {test.count:,} images"]
        if result.test_accuracy_tta is not None:
            lines.append(f"with the views of tta {self.config.tta}: test {result.test_accuracy_tta:.2%}")
        if result.ended_by in ("max-minutes", "patience"):
            lines.append(f"ended by {result.ended_by} in epoch {len(result.metrics)} of {self.plan.epochs}")
        if self.arithmetic.scale is not None:
            lines.append(
                f"{self.arithmetic.scale.skipped} of {result.steps} steps skipped for gradients beyond float16"
            )
        if self.config.overfit and (accuracy := result.validation_accuracy) is not None:
            verdict = "it can learn" if accuracy >= _OVERFITTED else "expected about 100 %"
            lines.append(f"overfit: {accuracy:.2%} of the {self.config.overfit:,} images it was trained on: {verdict}")
        return [
            *lines,
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
    """Return the Result of a run that is over and has its own result.json; None if that is still to be written."""
    record = folder.read_result() or {}
    names = [name for name in Result.__dataclass_fields__ if name not in ("folder", "metrics")]
    if any(name not in record for name in names) or record["steps"] != then.position.steps:
        return None
    return Result(folder=folder.path, metrics=then.position.rows, **{name: record[name] for name in names})


def load_data(
    config: Config, says: Report, *, data_dir: str | None = None, trained_on: tuple[str, str] | None = None
) -> tuple[data.Dataset, Config]:
    """Return the data set and the settings as they are for good: its name for "auto", how many images validate.

    data_dir, trained_on: as of `recipe.dataset`.
    """
    place = data_dir or config.data_dir
    if place and not Path(place).expanduser().exists():
        msg = f"data_dir {place} does not exist: name the folder that holds the data, or leave it out"
        raise ConfigError(msg)
    dataset = recipe.dataset(config, data_dir=data_dir, notice=says.note, progress=says.download, trained_on=trained_on)
    if config.data == "auto":
        config = dataclasses.replace(config, data="shapes" if dataset.classes == SHAPES else "cifar10")
    return dataset, recipe.settled(config, dataset)
