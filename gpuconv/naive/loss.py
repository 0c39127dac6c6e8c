"""Softmax cross-entropy and the multiclass hinge loss, sample by sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ParamError
from .loops import every, floats


def softmax_cross_entropy(scores: Any, labels: Any, *, label_smoothing: float) -> tuple[np.ndarray, np.ndarray]:
    """loss = mean over n of -sum over j of target[j] log softmax(scores)[j];   dscores = (softmax - target) / N."""
    N, classes = scores.shape
    scores, labels = floats(scores), _checked(labels, classes)
    loss, dscores = 0.0, np.zeros((N, classes))
    for n in range(N):
        top = max(scores[n])
        log_sum = math.log(sum(math.exp(score - top) for score in scores[n]))
        for j in range(classes):
            target = (1 - label_smoothing) * (j == labels[n]) + label_smoothing / classes
            log_probability = scores[n][j] - top - log_sum
            if target:  # a class that is not asked for may have probability 0
                loss -= target * log_probability / N
            dscores[n, j] = (math.exp(log_probability) - target) / N
    return np.array(loss), dscores


def svm_loss(scores: Any, labels: Any, *, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """loss = mean over n of sum over j != label of max(0, scores[j] - scores[label] + margin)."""
    N, classes = scores.shape
    scores, labels = floats(scores), _checked(labels, classes)
    loss, dscores = 0.0, np.zeros((N, classes))
    for n, j in every(N, classes):
        excess = scores[n][j] - scores[n][labels[n]] + margin
        if j == labels[n] or excess <= 0:
            continue
        loss += excess / N
        if excess > 0:  # not NaN
            dscores[n, j] += 1 / N
            dscores[n, labels[n]] -= 1 / N
    return np.array(loss), dscores


def _checked(labels: Any, classes: int) -> list[int]:
    values = labels.tolist()
    for value in values:
        if not 0 <= value < classes:
            msg = f"labels must be from 0 to classes - 1, got label {value} with {classes} classes"
            raise ParamError(msg)
    return values
