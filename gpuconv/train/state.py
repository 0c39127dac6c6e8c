"""What changes from step to step of a run with its net on a GPU, kept there: neither waits for the other.

The learning rates, what corrects Adam's means, and the shares of an average are computed on the host, in float64, as
for a run on the CPU, and put there as tables of a thousand steps.  The loss scale, the number of updates and whether a
step changes the weights are the GPU's: the optimiser and the loss scale of the host follow when outcomes are looked at.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import nn
from ..backend import asnumpy, step_numbers
from ..runs.config import Config
from .outcomes import Outcomes, Row
from .precision import GROW_AFTER, Same

TABLE_STEPS = 1024


class StepState:
    """The numbers of a run's steps on the GPU, and their way there and back.

    every: steps whose outcomes are kept there before they must be looked at.
    """

    def __init__(
        self,
        net: nn.Net,
        optimiser: nn.Optimiser,
        arithmetic: Same,
        config: Config,
        rate: Callable[[int], float],
        every: int,
    ) -> None:
        self.optimiser, self.arithmetic, self.config, self.rate = optimiser, arithmetic, config, rate
        self.net = net
        self.numbers = step_numbers(
            net.flat_params,
            rates=len(optimiser.told(0.0)[0]),
            parts=config.accumulate,
            rows=every,
            steps=TABLE_STEPS,
            scaled=arithmetic.scale is not None,
        )
        arithmetic.numbers = self.numbers
        self.outcomes = Outcomes(every, config.accumulate)
        self._next: int | None = None  # the step that the GPU does next; None: nobody knows
        self._end = 0  # the first step that the tables do not serve
        self._epoch: int | None = None  # the step that the epoch began with, as the GPU knows it

    def ready(self, step: int) -> bool:
        """Return whether the GPU goes on with this step by itself; if not, it is to be looked at and placed."""
        return step == self._next and step < self._end

    def place(self, step: int, average: nn.WeightAverage | None) -> None:
        """Put there what the host knows of the run before a step; all outcomes have been looked at."""
        scale, optimiser = self.arithmetic.scale, self.optimiser
        steps = range(step, step + TABLE_STEPS)
        table = []
        for each in steps:
            rates, shrinks = optimiser.told(self.rate(each))
            table.append([0.0 if average is None else average.share(each), *rates, *shrinks])
        first = optimiser.steps + 1
        self.numbers.place(
            step=step,
            updates=optimiser.steps,
            good=0 if scale is None else scale.good,
            skips=0 if scale is None else scale.skipped,
            scale=1.0 if scale is None else scale.value,
            row=self.outcomes.next_row,
            table=np.array(table),
            corrections=np.array([optimiser.corrections(first + i) for i in range(TABLE_STEPS)]),
        )
        self._next, self._end, self._epoch = step, steps.stop, None

    def enter(self, first: int) -> None:
        """Say with which step the epoch of the next one began."""
        if first != self._epoch:
            self.numbers.enter(first)
            self._epoch = first

    def forget(self) -> None:
        """Place the next step anew: the host has put something back, or this one may end in an error."""
        self._next = None

    def judge(self) -> None:
        """Say what becomes of the step whose gradients are in net.flat_grads; shorten these."""
        self.numbers.judge(self.net.flat_grads, longest=self.config.clip_norm, grow_after=GROW_AFTER)

    def end(self, step: int) -> None:
        """Note that all of a step is queued."""
        self.outcomes.add(step)
        self._next = step + 1

    def look(self) -> list[Row]:
        """Wait for the outcomes that nobody has looked at yet."""
        if not self.outcomes.waiting:
            return []
        return self.outcomes.look(asnumpy(self.numbers.outcomes))

    def follow(self, row: Row) -> None:
        """Let the host's optimiser and loss scale be as they were after a step."""
        self.optimiser.steps = row.updates
        scale = self.arithmetic.scale
        if scale is not None:
            scale.value, scale.good, scale.skipped = row.scale, row.good, row.skips
