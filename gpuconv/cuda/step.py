"""Launches of kernels/step.cu, and the numbers on a device that these keep: a training run's, from step to step."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..placed import Count, Number
from .device import device_of
from .elementwise import pack_blocks
from .kernel import Kernel
from .outcome import note_part
from .reduce import finite_flags, square_sums

_BEGIN = Kernel("step.cu", "step_begin")
_JUDGE = Kernel("step.cu", "step_judge")
_CLIP = Kernel("step.cu", "step_clip")

# Where counts and numbers stand, as in kernels/step.cu; after RATES come as many factors that shrink weights.
STEP, DRAWN, UPDATES, GOOD, SKIPS, GO, ROW, FIRST_STEP, FIRST_UPDATE, EPOCH, NUMBER = range(11)
SCALE, UNSCALE, CLIP, SECOND, SHARE, RATES = range(6)
AFTER = 6  # entries of an outcome beside loss and hits of each part: finite, skipped, updates, good, skips, scale


class StepNumbers:
    """The numbers of a run's step on the device of an array.

    rates: how many learning rates a step has.   parts: of a batch.   rows: outcomes that are kept.
    steps: how many the table has, and the corrections.   scaled: the loss has a scale, and steps may be skipped.

    go, rate(k), ... are numbers by their place.  Launches of other kernels that read them need not change from step to
    step, nor need anything that is launched here.
    """

    def __init__(self, beside: Any, *, rates: int, parts: int, rows: int, steps: int, scaled: bool) -> None:
        device = self._device = device_of(beside)
        self._rates, self._parts, self._rows, self._scaled = rates, parts, rows, scaled
        self.counts = device.zeros((NUMBER + 1,), np.uint64)
        self.numbers = device.zeros((RATES + 2 * rates,), np.float64)
        self.table = device.zeros((steps, 1 + 2 * rates), np.float64)
        self.corrections = device.zeros((steps, 2), np.float64)
        self.outcomes = device.zeros((rows, 2 * parts + AFTER), np.float64)
        self.go = self.counts[GO : GO + 1] if scaled else None
        # These two are read before the step is judged: what became of the one before must not hold them back.
        self.scale, self.unscale = (Number(self.numbers[i : i + 1]) for i in (SCALE, UNSCALE))
        self.second, self.share = self._number(SECOND), self._number(SHARE)
        self.number = Count(self.counts[NUMBER : NUMBER + 1])  # of the step, within its epoch
        self._clip = self.numbers[CLIP : CLIP + 1]

    def rate(self, k: int) -> Number:
        return self._number(RATES + k)

    def shrink(self, k: int) -> Number:
        return self._number(RATES + self._rates + k)

    def drawn(self, part: int) -> Count:
        """Return the number that a part of the step draws for."""
        return Count(self.counts[DRAWN : DRAWN + 1], plus=part)

    def place(
        self,
        *,
        step: int,
        updates: int,
        good: int,
        skips: int,
        scale: float,
        row: int,
        table: np.ndarray,
        corrections: np.ndarray,
    ) -> None:
        """Put there what the next step finds.   row: of its outcome   table, corrections: from this step and update on.

        Whoever calls this says with which step its epoch began.
        """
        counts = np.zeros(self.counts.shape, np.uint64)
        counts[[STEP, UPDATES, GOOD, SKIPS, FIRST_STEP, FIRST_UPDATE]] = step, updates, good, skips, step, updates
        counts[ROW] = (row - 1) % self._rows
        numbers = np.zeros(self.numbers.shape)
        numbers[SCALE] = scale
        targets = self.counts, self.numbers, self.table, self.corrections
        for target, host in zip(targets, (counts, numbers, table, corrections), strict=True):
            target[...] = self._device.asarray(host)

    def enter(self, first: int) -> None:
        """Say that the next step is of an epoch that began, or would have begun, with step `first`."""
        host = np.array([first % 2**64], np.uint64)
        self.counts[EPOCH : EPOCH + 1][...] = self._device.asarray(host)

    def begin(self) -> None:
        """Begin the next step: its rates, what it draws for, its number in the epoch, which row its outcome has."""
        _BEGIN(self._device, (), 1, self.counts, self.numbers, self.table, self._rates, self._parts, self._rows)

    def note_part(self, part: int, loss: Any, scores: Any, labels: Any) -> None:
        """Note what a part of the step came to.   loss: ()   scores: (n, classes)   labels: (n,)."""
        note_part(part, loss, scores, labels, outcomes=self.outcomes, row=self.counts[ROW : ROW + 1])

    def judge(self, gradients: Any, *, longest: float, grow_after: int) -> None:
        """Say what becomes of the step whose gradients, one flat vector, are there; shorten them.

        longest: what their norm may be at most, 0 for no limit.   grow_after: good steps after which the scale doubles.
        """
        flags = finite_flags(gradients)
        squares = square_sums(gradients) if longest else None
        arrays = self.counts, self.numbers, self.corrections, self.outcomes, flags, flags.size
        of_squares = squares, 0 if squares is None else squares.size
        settings = self._rates, self._parts, self._scaled, grow_after, longest
        _JUDGE(self._device, (), 1, *arrays, *of_squares, *settings)
        if longest:
            blocks = pack_blocks(self._device, gradients)
            _CLIP(self._device, (gradients.dtype,), blocks, gradients, self._clip, gradients.size)

    def _number(self, i: int) -> Number:
        return Number(self.numbers[i : i + 1], go=self.go)
