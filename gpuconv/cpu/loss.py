"""Losses of a batch of class scores, and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ParamError
from ..plural import counted
from .compiled import passes
from .layout import accumulator
from .memory import empty_array
from .parallel import for_each, quiet, ranges


def softmax_cross_entropy(scores: np.ndarray, labels: np.ndarray, *, label_smoothing: float) -> tuple[Any, np.ndarray]:
    return _mean_over_rows("softmax_cross_entropy", scores, labels, label_smoothing)


def svm_loss(scores: np.ndarray, labels: np.ndarray, *, margin: float) -> tuple[Any, np.ndarray]:
    return _mean_over_rows("svm", scores, labels, margin)


@quiet
def _mean_over_rows(function: str, scores: np.ndarray, labels: np.ndarray, option: float) -> tuple[Any, np.ndarray]:
    """Return the mean loss, a scalar of the accumulator's dtype that is 0 for no rows, and its gradient."""
    _check_range(scores, labels)
    N, classes = scores.shape
    run = passes("loss", scores.dtype)
    one_pass = getattr(run, function)
    rows = np.require(scores, requirements=("C", "A"))
    indices = labels.astype(np.intp)
    losses, dscores = empty_array((N,), np.float64), empty_array((N, classes), scores.dtype)

    def work(block: tuple[int, int]) -> None:
        part = slice(*block)
        one_pass(rows[part], indices[part], losses[part], dscores[part], option, N)

    blocks = ranges(N, max(1, run.BLOCK // classes))
    if len(blocks) == 1:  # nothing to share
        work(blocks[0])
    else:
        for_each(work, blocks)
    return accumulator(scores.dtype).type(losses.sum() / max(1, N)), dscores


def _check_range(scores: np.ndarray, labels: np.ndarray) -> None:
    classes = scores.shape[1]
    if labels.size and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        wrong = int(labels[(labels < 0) | (labels >= classes)][0])
        msg = f"labels must lie in [0, {classes}) for scores with {counted(classes, 'class', 'classes')}, got {wrong}"
        raise ParamError(msg)
