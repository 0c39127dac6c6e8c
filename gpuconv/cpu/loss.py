"""Losses of a batch of class scores.  Rows are few and short, so all is done in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ParamError
from .layout import accumulator
from .parallel import quiet


@quiet
def softmax_cross_entropy(scores: np.ndarray, labels: np.ndarray, *, label_smoothing: float) -> tuple[Any, np.ndarray]:
    _check_range(scores, labels)
    N, classes = scores.shape
    rows = np.arange(N)
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)
    log_probability = shifted - np.log(total)
    per_row = -(1.0 - label_smoothing) * log_probability[rows, labels]
    if label_smoothing:
        per_row -= label_smoothing * log_probability.mean(axis=1)
    dscores = exponentials / total
    dscores -= label_smoothing / classes
    dscores[rows, labels] -= 1.0 - label_smoothing
    return _mean(per_row, scores), (dscores / max(1, N)).astype(scores.dtype)


@quiet
def svm_loss(scores: np.ndarray, labels: np.ndarray, *, margin: float) -> tuple[Any, np.ndarray]:
    _check_range(scores, labels)
    rows = np.arange(scores.shape[0])
    wide = scores.astype(np.float64)
    excess = wide - wide[rows, labels][:, None] + margin
    excess[rows, labels] = 0.0
    dscores = (excess > 0).astype(np.float64)
    dscores[rows, labels] = -dscores.sum(axis=1)
    loss = _mean(np.maximum(excess, 0.0).sum(axis=1), scores)
    return loss, (dscores / max(1, len(rows))).astype(scores.dtype)


def _mean(per_row: np.ndarray, scores: np.ndarray) -> Any:
    """Return the mean as a scalar of the accumulator's dtype; 0 for no rows."""
    return accumulator(scores.dtype).type(per_row.sum() / max(1, per_row.size))


def _check_range(scores: np.ndarray, labels: np.ndarray) -> None:
    classes = scores.shape[1]
    if labels.size and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        wrong = int(labels[(labels < 0) | (labels >= classes)][0])
        msg = f"labels must lie in [0, {classes}) for scores with {classes} classes, got {wrong}"
        raise ParamError(msg)
