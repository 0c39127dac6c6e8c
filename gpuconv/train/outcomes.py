"""What steps came to, loss, hits, finite or not; on a GPU read every few steps instead of every step.

Reading a number from a GPU waits for everything queued before it.  So a step writes its outcome into a row of a table
on the device, and a look reads them together.  Until then nobody knows whether the weights are still finite: the loop
looks before every checkpoint and at every end of an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import asnumpy


@dataclass(frozen=True, slots=True)
class Outcome:
    """One step: its loss, how many scores were right before the update, and whether its gradients were finite."""

    step: int
    loss: float
    correct: int
    finite: bool


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of a step on a GPU, whether it was skipped, and what the run had come to after it."""

    outcome: Outcome
    skipped: bool
    updates: int
    good: int
    skips: int
    scale: float


class Outcomes:
    """Which rows of a table hold the outcomes of which steps; one row is used after the other, round and round.

    A row is what step.cu says: loss and hits of each part, and the entries of Row.
    """

    def __init__(self, every: int, parts: int) -> None:
        self.every = every
        self.next_row = 0
        self.waiting: list[tuple[int, int]] = []  # (row, step) that nobody has looked at yet
        self._parts = parts

    @property
    def full(self) -> bool:
        return len(self.waiting) == self.every

    def add(self, step: int) -> None:
        """Note that the next row is a step's."""
        assert not self.full, "the row of a step that nobody has looked at yet would be overwritten"
        self.waiting.append((self.next_row, step))
        self.next_row = (self.next_row + 1) % self.every

    def look(self, table: np.ndarray) -> list[Row]:
        """Return what the steps that were added came to, in order.   table: (every, 2 parts + 6), float64."""
        waiting, self.waiting = self.waiting, []
        return [self._row(table[row], step) for row, step in waiting]

    def _row(self, row: np.ndarray, step: int) -> Row:
        parts, after = row[: 2 * self._parts].reshape(self._parts, 2), row[2 * self._parts :].tolist()
        finite, skipped, updates, good, skips, scale = after
        outcome = Outcome(step, mean(parts[:, 0]), int(parts[:, 1].sum()), bool(finite))
        return Row(outcome, bool(skipped), int(updates), int(good), int(skips), scale)


def mean(losses: Any) -> float:
    """Return the mean loss of a step's parts, added up in order."""
    return sum(float(asnumpy(loss)) for loss in losses) / len(losses)


def hits(scores: np.ndarray, labels: np.ndarray) -> int:
    """Return how often the highest score is that of the label."""
    return int((scores.argmax(axis=1) == labels).sum())
