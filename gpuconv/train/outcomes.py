"""What steps came to, loss, hits, finite or not, read from where they ran every few steps instead of every step.

Reading a number from a GPU waits for everything queued before it.  So a step copies its loss, scores and flags into
rings on the device, and `look` reads them together.  Until then nobody knows whether the weights are still finite:
the loop looks before every checkpoint and at every end of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import asnumpy, zeros


@dataclass(frozen=True, slots=True)
class Outcome:
    """One step: its loss, how many scores were right before the update, and whether its gradients were finite."""

    step: int
    loss: float
    correct: int
    finite: bool


class Outcomes:
    """Rings for `every` steps of `parts` parts each."""

    def __init__(self, every: int, parts: int) -> None:
        self.every = every
        self._parts = parts
        self._rings: tuple[Any, Any, Any] | None = None
        self._waiting: list[tuple[int, np.ndarray]] = []

    @property
    def full(self) -> bool:
        return len(self._waiting) == self.every

    def add(self, step: int, losses: list[Any], scores: list[Any], flags: Any, labels: np.ndarray) -> None:
        """Queue copies of a step's outcome.   losses: (), scores: (n, classes), of each part; flags: (blocks,)."""
        if self._rings is None:
            count = self.every * self._parts
            self._rings = (
                zeros((count,), losses[0].dtype),
                zeros((count, *scores[0].shape), scores[0].dtype),
                zeros((self.every, *flags.shape), flags.dtype),
            )
        all_losses, all_scores, all_flags = self._rings
        slot = len(self._waiting)
        all_flags[slot : slot + 1][...] = flags
        for part, (loss, of_part) in enumerate(zip(losses, scores, strict=True), slot * self._parts):
            all_losses[part : part + 1][...] = loss
            all_scores[part : part + 1][...] = of_part
        self._waiting.append((step, labels))

    def look(self) -> Iterator[Outcome]:
        """Wait for the steps that were added, and yield their outcomes in order."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        assert self._rings is not None
        losses, scores, flags = map(asnumpy, self._rings)
        for slot, (step, labels) in enumerate(waiting):
            parts = slice(slot * self._parts, (slot + 1) * self._parts)
            yield Outcome(
                step,
                mean(losses[parts]),
                hits(scores[parts].reshape(len(labels), -1), labels),
                bool(flags[slot].all()),
            )


def outcome_of(step: int, losses: list[Any], scores: list[Any], labels: np.ndarray, *, finite: bool) -> Outcome:
    """Return the outcome of a step that has been waited for, from the loss and the scores of each part."""
    return Outcome(step, mean(losses), hits(np.concatenate([asnumpy(part) for part in scores]), labels), finite)


def mean(losses: Any) -> float:
    """Return the mean loss of a step's parts, added up in order."""
    return sum(float(asnumpy(loss)) for loss in losses) / len(losses)


def hits(scores: np.ndarray, labels: np.ndarray) -> int:
    """Return how often the highest score is that of the label."""
    return int((scores.argmax(axis=1) == labels).sum())
