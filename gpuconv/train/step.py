"""One training step, in order: forward, loss, backward, clip, update, note.

On the CPU each step is looked at before it changes the weights: one whose loss or gradients are not finite changes
none.  On a GPU, where looking means waiting, steps are looked at every 16, and whenever `look` is called: weights may
have gone bad by then.  What the host decides on the CPU, the GPU decides there by itself (state.py): whether a step in
float16 is skipped, the scale of its loss, how far gradients are shortened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .. import nn
from ..backend import all_finite, asnumpy, on_gpu
from ..errors import NonFiniteLossError, ParamError
from ..nn.replayed import Replayed, keep_quiet
from ..placed import Count
from ..runs.checkpoint import Snapshot
from ..runs.config import Config
from . import recipe
from .feed import Batch, PlacedBatch
from .outcomes import Outcome, hits, mean
from .precision import arithmetic
from .state import StepState
from .team import Alone

_LOOK_EVERY = 16  # steps on a GPU between two looks at what they came to


class NotFiniteError(NonFiniteLossError):
    """A step whose loss or gradients are not finite: `what` is wrong in which `step`, counted from 0."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"{what} in step {step + 1}")
        self.what, self.step = what, step


class Stepper:
    """A net, its optimiser and how they compute: everything that a step changes.

    rate: the learning rate of a step; on a GPU asked for a thousand steps ahead, which may lie behind the last one.
    note: called once for each step that did not fail, in order, late on a GPU.
    tell: called with a sentence if steps on a GPU cannot be recorded.
    optimiser: of the net, in place of the one that config names.   Raises UnsupportedError on a GPU for a rule of
    your own that has no update by place (`nn.Optimiser`).
    team: the processes that share each step, in parts of their own; batches hold those of this one.

    On a GPU the optimiser's count of steps and the loss scale are those of the last step that was looked at.

    >>> config, outcomes = train.Config(widths=(4,)), []
    >>> stepper = train.Stepper(nn.ConvNet(4), config, lambda step: 0.1, outcomes.append)
    >>> x, labels = np.zeros((8, 3, 32, 32), np.float32), np.zeros(8, np.int64)
    >>> stepper.step(train.Batch([(x, labels)], labels), 0)
    >>> stepper.optimiser.steps, round(outcomes[0].loss, 4)
    (1, 2.3026)
    """

    def __init__(
        self,
        net: nn.Net,
        config: Config,
        rate: Callable[[int], float],
        note: Callable[[Outcome], None],
        tell: Callable[[str], None] | None = None,
        optimiser: nn.Optimiser | None = None,
        team: Alone | None = None,
    ) -> None:
        self.team = Alone() if team is None else team
        self.net, self.config, self.rate, self.note = net, config, rate, note
        self.optimiser = recipe.optimiser(config, net) if optimiser is None else optimiser
        self.arithmetic = arithmetic(net, config.precision, config.accumulate)
        self.team.train(net, config)
        self.average = nn.WeightAverage(net, config.ema) if config.ema else None
        self.state: StepState | None = None
        if on_gpu(net.flat_params):
            self.optimiser.check_by_place()
            self.state = StepState(net, self.optimiser, self.arithmetic, config, rate, _LOOK_EVERY)
        without = self.team.not_recorded(config.graph)
        self.graph = Replayed(config.graph, net.flat_params, tell or keep_quiet, "steps", without)

    def step(self, batch: Batch | PlacedBatch, step: int) -> None:
        """Update the weights once, unless their gradients are not finite.   step: counted from 0.

        On a GPU steps of a feed's batches are recorded once and replayed; of a Batch of arrays each is launched by itself.
        Raises NotFiniteError for this step, or for an earlier one that nobody has looked at yet, ParamError for a Batch
        of other than config.accumulate parts, and StaleBatchError for a feed's batch whose epoch is over.
        """
        if isinstance(batch, Batch) and len(batch.parts) != self.config.accumulate:
            msg = f"a batch must have as many parts as accumulate, {self.config.accumulate}, got {len(batch.parts)}"
            raise ParamError(msg)
        if isinstance(batch, PlacedBatch):
            batch.check()
        if self.state is None:
            self._step_at_once(batch, step)
            return
        self._queue(self.state, batch, step)
        if self.state.outcomes.full:
            self.look()

    def _step_at_once(self, batch: Batch | PlacedBatch, step: int) -> None:
        """Do a step, and look at it before it changes the weights."""
        config, net, arithmetic = self.config, self.net, self.arithmetic
        losses, scores = [], []
        arithmetic.begin()
        for part, (x, labels) in enumerate(batch.parts):
            # Parts have numbers of their own, so that dropout draws anew for each.
            y = arithmetic.forward(x, step=step * config.accumulate + part)
            loss, dy = arithmetic.loss(y, labels, label_smoothing=config.label_smoothing)
            losses.append(float(asnumpy(loss)))
            if self.team.size == 1:
                _check_loss(losses[-1], step)
            self.team.weigh(dy)
            arithmetic.backward(dy)
            scores.append(asnumpy(y))
        arithmetic.end()
        losses, correct = self.team.losses(losses, hits(np.concatenate(scores), batch.labels))
        _check_loss(mean(losses), step)
        self.team.reduce()
        updates = self._may_update(step, losses)
        if updates:
            if config.clip_norm:
                nn.clip_gradients(net, config.clip_norm)
            self.optimiser.step(self.rate(step))
            if self.average is not None:
                self.average.update(step)
        self.note(Outcome(step, mean(losses), correct, updates))

    def _queue(self, state: StepState, batch: Batch | PlacedBatch, step: int) -> None:
        """Queue a step on a GPU: what differs from step to step lies there."""
        if not state.ready(step):
            self.look()
            state.place(step, self.average)
        if isinstance(batch, PlacedBatch):
            part_at = batch.part
            state.enter(step - batch.number)
            state.forget()  # until all is queued
            self.graph.do(lambda: self._work(state, self._parts(state, part_at)), part_at)
        else:
            state.forget()
            self._work(state, batch.parts)
        state.end(step)

    def _parts(self, state: StepState, part_at: Callable[[Count], tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """Make the parts of the step that has begun, one as the other is done with."""
        config = self.config
        size = config.batch_size // config.accumulate
        for part in range(config.accumulate):  # of which the feed takes what is this process's
            yield part_at(state.numbers.number * config.batch_size + part * size)

    def _work(self, state: StepState, parts: Iterable[tuple[Any, Any]]) -> None:
        """Launch a step, from the choice of its pictures on: the same launches as for every other, none of which waits."""
        config, arithmetic, numbers = self.config, self.arithmetic, state.numbers
        numbers.begin()
        arithmetic.begin()
        for part, (x, labels) in enumerate(parts):
            y = arithmetic.forward(x, step=numbers.drawn(part))
            loss, dy = arithmetic.loss(y, labels, label_smoothing=config.label_smoothing)
            numbers.note_part(part, loss, y, labels)
            self.team.weigh(dy)
            arithmetic.backward(dy)
        arithmetic.end()
        self.team.reduce()
        state.judge()
        self.optimiser.step_by_place(numbers)
        if self.average is not None:
            self.average.update_by_place(numbers)

    def look(self) -> None:
        """Wait for the steps that nobody has looked at yet, and note them up to the first bad one, which is raised."""
        if self.state is None:
            return
        self.team.wait()
        rows = self.state.look()
        for row, outcome in zip(rows, self.team.outcomes([row.outcome for row in rows]), strict=True):
            _check_loss(outcome.loss, outcome.step)
            if not outcome.finite and not row.skipped:
                raise _bad_gradient(outcome.loss, outcome.step)
            self.state.follow(row)
            self.note(outcome)

    def prepare(self, images: Any, fill: Callable[[nn.Net], None] | None = None) -> None:
        """Let a new net look at the data, before anything is computed or saved.

        fill: puts the weights that the run starts from into the net, over what the look was good for.
        """
        self.net.prepare(images)
        if fill is not None:
            fill(self.net)
        self.arithmetic.follow()
        if self.average is not None:
            self.average = nn.WeightAverage(self.net, self.config.ema)
        self.graph.forget()

    def restore(self, snapshot: Snapshot) -> None:
        """Put everything back as a checkpoint has it."""
        snapshot.restore(self.net, self.optimiser, self.average, self.arithmetic.scale)
        self.arithmetic.follow()
        if self.state is not None:
            self.state.forget()

    @property
    def warm(self) -> int:
        """How many steps take longer than all others: the first, and on a GPU those until one is recorded."""
        return 1 if self.state is None else self.graph.warm

    @property
    def skipped(self) -> int:
        """How many steps made no update, their gradients being beyond float16."""
        return 0 if self.arithmetic.scale is None else self.arithmetic.scale.skipped

    @property
    def nbytes(self) -> int:
        """Bytes of weights, gradients, statistics, the optimiser's vectors and averages."""
        arrays = [self.net.flat_params, self.net.flat_grads, *self.net.state.values(), *self.optimiser.state.values()]
        arrays += [] if self.average is None else self.average.state.values()
        return sum(array.nbytes for array in arrays) + self.arithmetic.nbytes

    def _may_update(self, step: int, losses: list[float]) -> bool:
        """Return whether the gradients are finite; a step in float16 may do without them, another may not."""
        scale = self.arithmetic.scale
        if all_finite(self.net.flat_grads):
            if scale is not None:
                scale.succeed()
            return True
        if scale is not None and scale.fail():
            return False
        raise _bad_gradient(mean(losses), step)


def _check_loss(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        what = f"the loss is {loss}"
        raise NotFiniteError(what, step)


def _bad_gradient(loss: float, step: int) -> NotFiniteError:
    return NotFiniteError(f"a gradient is NaN or infinite (and the loss {loss:.4g})", step)
