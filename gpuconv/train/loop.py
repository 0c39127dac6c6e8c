"""The training loop: step, validate, save, and go on from where a run was, bit for bit.

A run moves through consistent points only: after a step, and after a batch of a validation.  Signals are looked at
and checkpoints written there and nowhere else.  On a GPU, where steps are looked at late (see step.py), they are looked
at before anything is saved, too: no file holds weights that have gone bad.

With an average of weights (ema), validation and test are those of the average, and it is what best.safetensors holds;
last.safetensors holds the weights of the last step, and the average beside them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from .. import nn, tables
from ..backend import asarray
from ..errors import CheckpointMismatchError, DriftError, NonFiniteLossError, NonFiniteScoresError, ProcessError
from ..nn.finite import check_scores
from ..nn.replayed import once
from ..runs import checkpoint
from ..runs.checkpoint import Position, Snapshot
from ..runs.config import Config
from ..runs.dataset import fingerprint
from ..runs.evaluation import Evaluation, evaluate
from ..runs.folder import RunFolder
from ..runs.inputs import Inputs
from ..runs.journal import Journal, NoJournal
from ..runs.journal import read as read_events
from ..runs.machine import without_paths, write_environment
from ..runs.result import Result
from ..runs.settings import shareable
from ..show import words
from ..show.terminal import Progress
from . import recipe
from .ending import conclude
from .feed import Batch, Feed, PlacedBatch
from .outcomes import Outcome
from .signals import Guard, Interrupted, Stop
from .step import NotFiniteError, Stepper
from .team import Alone
from .weights import Weights

_PREPARE_IMAGES = 5000
_CHECKED_IMAGES = 32  # that show whether weights from elsewhere give scores


class Training:
    """A run in progress."""

    folder: RunFolder  # which a dry run has not

    def __init__(
        self,
        config: Config,
        dataset: Any,
        display: Progress,
        snapshot: Snapshot | None = None,
        weights: Weights | None = None,
        team: Alone | None = None,
        rate: Callable[[int], float] | None = None,
    ) -> None:
        """Make everything a run needs; of one that goes on, the net and what it takes are those of the snapshot.

        weights: those that a new run starts from: what it normalises pictures by, too.   team: of many processes.
        rate: the learning rate of a step, in place of the schedule's.
        """
        built = None if snapshot is None else snapshot.net
        of_weights = None if weights is None else weights.net.config
        self.config = config
        self.team = Alone() if team is None else team
        self.fingerprint = fingerprint(dataset)
        self.team.together("data", f"{dataset.name} ({self.fingerprint})")
        if snapshot is not None:
            dataset = snapshot.inputs.fitted(dataset)
        elif weights is not None:
            dataset = weights.normalised(dataset)
        self.dataset = dataset
        self.inputs = Inputs.of(dataset)
        self.display = display
        self.split = recipe.split(dataset, config)
        recipe.check_moves(config, dataset.x_train.shape[1:])
        self.plan = recipe.plan(config, len(self.split.y_train))
        self.net = recipe.net(config, tuple(dataset.x_train.shape[1:]), len(dataset.classes), built, of_weights)
        self.notes: list[str] = []  # what is said of the weights that a new run starts from
        self.rate = recipe.schedule(config, self.plan) if rate is None else rate
        self.stepper = Stepper(self.net, config, self.rate, self._note, self.tell, team=self.team)
        statistics = {"mean": dataset.mean, "std": dataset.std}
        self.feed = Feed(self.split.x_train, self.split.y_train, config, **statistics, team=self.team)
        self.x_validation = asarray(self.split.x_validation)  # placed once, as the feed's are
        self.journal = NoJournal()
        self.position = Position()
        self.last_loss: float | None = None
        self.saved = self._where
        self.kept = ""  # a sentence on the last checkpoint
        self.warned = True  # of a rate that is too high; nobody needs that before a run begins
        self.tell_of_evaluation = once(self.tell)  # that it cannot be recorded, which each finds out for itself
        self.guard = Guard(self.team.any_signal)

    def prepare(self, weights: Weights | None = None) -> None:
        """Let a new net look at the data, and take the weights that it starts from, before anything is saved."""
        images = self.feed.first(_PREPARE_IMAGES)
        if weights is None:
            self.stepper.prepare(images)
            return
        self.stepper.prepare(images, lambda net: self.notes.extend(weights.fill(net, self.dataset.classes)))
        check_scores(self.net, images[:_CHECKED_IMAGES], f"the net of {weights.path}")

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
    def _where(self) -> tuple[int, int]:
        return self.position.epoch, self.position.step

    # To and from the disk -------------------------------------------------------------------------------------------

    def save(self, path: Path, *, best: bool = False) -> None:
        """Write a checkpoint, after a look at the steps nobody has looked at yet: none is of weights gone bad.

        The best one holds the average of weights, if there is one, and no paths: it is what people pass on.
        """
        self.look()
        self.team.compare(self.steps_done)
        try:
            self.team.first(lambda: self._save(path, best=best))
        except NonFiniteLossError as error:
            raise self._not_finite(str(error), self.steps_done) from None
        self.kept = f"The weights of step {self.steps_done} are kept in {path}"

    def _save(self, path: Path, *, best: bool) -> None:
        checkpoint.save(
            path,
            config=self.config,
            net=self.net,
            optimiser=self.stepper.optimiser,
            data_name=self.dataset.name,
            data_fingerprint=self.fingerprint,
            inputs=self.inputs,
            position=self.position,
            average=self.stepper.average,
            averaged=best,
            scale=self.stepper.arithmetic.scale,
            to_share=best,
        )

    def save_last(self) -> None:
        self.save(self.folder.last)
        self.note_saved()

    def note_saved(self) -> None:
        """Remember that what the folder holds is how far the run is."""
        self.saved = self._where
        self.kept = f"The weights of step {self.steps_done} are kept in {self.folder.last}"

    def open_journal(self, *, resumed: bool = False) -> None:
        if self.team.rank:
            return
        journal = self.journal = Journal(
            self.folder.path,
            steps=self.plan.steps,
            resumed_step=self.steps_done if resumed else None,
            epochs=self.position.epoch,
            epoch=self.epoch,
            tensorboard=self._hparams() if self.config.tensorboard else None,
        )
        self.warned = any(event["event"] == "warning" for event in read_events(self.folder.path))
        if not resumed:
            journal.start(self.about())
            for note in self.notes:
                journal.event("weights", message=note)
            write_environment(self.folder.path)

    def _hparams(self) -> dict[str, Any]:
        """Return the settings that TensorBoard shows beside results, as anyone may see them."""
        return {**shareable(self.config), "data": self.dataset.name, "parameters": int(self.net.flat_params.size)}

    def restore(self, snapshot: Snapshot) -> None:
        if (snapshot.data_name, snapshot.data_fingerprint) != (self.dataset.name, self.fingerprint):
            same_name = "another version of it" if snapshot.data_name == self.dataset.name else self.dataset.name
            msg = f"{snapshot.path} was trained on {snapshot.data_name}, the data found here is {same_name}"
            raise CheckpointMismatchError(msg)
        recipe.check_position(self.plan, snapshot)
        self.stepper.restore(snapshot)
        self.position = snapshot.position

    # The loop -------------------------------------------------------------------------------------------------------

    def go(self) -> Result:
        """Train to the end, test the best epoch, write the result."""
        self.display.begin(
            [*words.facts(self.config, self.about(), self.team.in_words), ("run", str(self.folder.path))],
            epochs=self.plan.epochs,
            steps=self.plan.steps,
            done=self.steps_done,
        )
        with self.guard, self.feed, self.journal:
            try:
                while not self.finished:
                    self._steps()
                    self._end_of_epoch()
                result = conclude(self)
                self.guard.check()
                return result
            except Stop:
                assert self.guard.signum is not None
                if self.saved != self._where:
                    self.save_last()
                self._event("interrupted")
                raise Interrupted(self.guard.signum, self.folder.path) from None
            except (NonFiniteLossError, DriftError, ProcessError) as error:
                self._event("failed", message=without_paths(str(error).replace(f"{self.folder.path}{os.sep}", "")))
                raise

    def _steps(self) -> None:
        """Do the steps that are left of the epoch, or of the time."""
        config, position = self.config, self.position
        steps = self.plan.steps_of(position.epoch)
        start = time.perf_counter()
        for batch in self.feed.epoch(position.epoch, position.step, 0 if position.ended_by else steps):
            self.step(batch)
            elapsed = time.perf_counter() - start
            position.step += 1
            position.steps += 1
            position.seconds += elapsed
            position.training_seconds += elapsed
            self.display.step(epoch=position.epoch + 1, images=self.config.batch_size, loss=self.last_loss)
            self._look_at_the_clock()
            self.guard.check()
            if position.ended_by:
                break
            if config.checkpoint_every and self.steps_done % config.checkpoint_every == 0 and position.step < steps:
                self.save_last()
                self._event("saved")
            start = time.perf_counter()
        self.look()

    def _end_of_epoch(self) -> None:
        """Validate, note the epoch down, save; a signal during the validation leaves the epoch's steps done."""
        position = self.position
        start = time.perf_counter()
        validation = self._validate()
        accuracy, steps = validation.accuracy if validation is not None else None, position.step
        row = {
            "epoch": position.epoch + 1,
            "step": self.steps_done,
            "train_loss": position.loss_sum / steps,
            "train_accuracy": position.correct / (steps * self.config.batch_size),
            "validation_loss": validation.loss if validation is not None else None,
            "validation_accuracy": accuracy,
            "learning_rate": self.rate(self.steps_done - 1),
            "seconds": round(position.seconds + time.perf_counter() - start, 3),
        }
        best = self._is_best(validation)
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
        self.display.epoch(row, best=best)

    def _is_best(self, validation: Evaluation | None) -> bool:
        """Return whether an epoch is the best so far; of equal accuracy, frequent on few images, by the lower loss."""
        position = self.position
        if validation is None or position.best_accuracy is None or validation.accuracy > position.best_accuracy:
            return True
        if validation.accuracy < position.best_accuracy or position.best_epoch > len(position.rows):
            return False  # of a run that went on after a part of its best epoch, the line is gone
        lowest: float = position.rows[position.best_epoch - 1]["validation_loss"]
        return validation.loss < lowest

    def _validate(self) -> Evaluation | None:
        """Return how well the weights, or their average, do on the images held out; None if there are none."""
        average = self.stepper.average
        self.display.validating()
        with nullcontext() if average is None else average.applied():
            validation = self.evaluate(self.net, self.x_validation, self.split.y_validation)
        if validation is not None and not math.isfinite(validation.loss):
            what = f"the validation loss is {validation.loss}"
            raise self._not_finite(what, self.steps_done)
        return validation

    def evaluate(self, net: nn.Net, images: Any, labels: Any, *, tta: str = "none") -> Evaluation | None:
        """Return how well a net does on images of the run, None if there are none; say of NaN where in the run it was."""
        if len(labels) == 0:
            return None
        try:
            return evaluate(
                net,
                images,
                labels,
                mean=self.dataset.mean,
                std=self.dataset.std,
                classes=self.dataset.classes,
                tta=tta,
                between=self.guard.check,
                graph=self.config.graph,
                tell=self.tell_of_evaluation,
                team=self.team,
            )
        except NonFiniteScoresError as error:
            raise self._not_finite(error.fault, self.steps_done) from None

    def _event(self, kind: str, **values: Any) -> None:
        self.journal.event(kind, step=self.steps_done, epoch=self.epoch, **values)

    def _look_at_the_clock(self) -> None:
        if self.config.max_minutes and self.team.as_first(self.position.run_seconds >= 60 * self.config.max_minutes):
            self.position.ended_by = "max-minutes"

    # Steps ----------------------------------------------------------------------------------------------------------

    def step(self, batch: Batch | PlacedBatch) -> None:
        """Do the next step; whoever calls this counts it."""
        with self._placing_errors():
            self.stepper.step(batch, self.steps_done)

    def look(self) -> None:
        """Wait for the steps on a GPU that nobody has looked at yet."""
        with self._placing_errors():
            self.stepper.look()

    def rehearse(self, batch: Batch | PlacedBatch) -> None:
        """Do a step, count it and wait for it: what a dry run does."""
        self.step(batch)
        self.position.steps += 1
        self.look()

    @contextmanager
    def _placing_errors(self) -> Iterator[None]:
        """Say of a step that went bad where it was, and what is kept of the run."""
        try:
            yield
        except NotFiniteError as error:
            raise self._not_finite(error.what, error.step + 1) from None

    def tell(self, message: str, kind: str = "notice") -> None:
        """Say something of how the run goes, on the screen and in events.jsonl."""
        self.display.note("\n".join(tables.wrapped(message, 80)))
        self.journal.event(kind, message=message)

    def _note(self, outcome: Outcome) -> None:
        """Add a step to the sums of its epoch."""
        self.last_loss = outcome.loss
        self.position.loss_sum += outcome.loss
        self.position.correct += outcome.correct
        share = outcome.correct / self.config.batch_size
        self.journal.step(
            outcome.step + 1,
            self.position.epoch + 1,
            lambda: {"loss": outcome.loss, "accuracy": share, "learning_rate": self.rate(outcome.step)},
        )
        if not self.warned:
            self._look_at_the_rate(outcome)

    def _look_at_the_rate(self, outcome: Outcome) -> None:
        """Warn, once in a run, of a loss far above that of guessing."""
        config, classes = self.config, len(self.dataset.classes)
        if not recipe.is_far_above_guessing(config, classes, outcome.loss):
            return
        self.warned = True
        self.tell(words.too_high_a_rate(config, classes, outcome.step + 1, outcome.loss, self.plan.steps), "warning")

    def _not_finite(self, what: str, step: int) -> NonFiniteLossError:
        position = self.position
        # After the last step of an epoch that is counted already, that one.
        over = position.epoch > 0 and position.step == 0 and step <= self.steps_done
        where = f"epoch {position.epoch + (0 if over else 1)}, step {step}"
        return NonFiniteLossError(words.not_finite(self.config, self.rate(max(step - 1, 0)), what, where, self.kept))

    def about(self) -> dict[str, Any]:
        """Return what is known of a run before its first step: its result has the same under the same names."""
        return {
            "data": self.dataset.name,
            "data_fingerprint": self.fingerprint,
            **self.inputs.to_values(),
            "training_images": len(self.split.y_train),
            "validation_images": len(self.split.y_validation),
            "test_images": len(self.split.y_test),
            "epochs": self.plan.epochs,
            "steps": self.plan.steps,
            "parameters": int(self.net.flat_params.size),
            **({"processes": self.team.size} if self.team.size > 1 else {}),
        }
