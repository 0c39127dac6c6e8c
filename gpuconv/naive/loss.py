"""Softmax and binary cross-entropy and the multiclass hinge loss, sample by sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ParamError
from .loops import every, floats


def softmax_cross_entropy(
    scores: Any,
    labels: Any,
    *,
    label_smoothing: float,
    class_weights: Any = None,
    ignore: int | None = None,
    reduction: str = "mean",
) -> tuple[np.ndarray, np.ndarray]:
    """loss[n] = -sum over j of target[j] log softmax(scores)[j];   dscores[n] = softmax sum(target) - target.

    target[j] = weight[j] ((1 - s) [j = label] + s / classes).   mean: divided by the sum of the labels' weights
    """
    N, classes = scores.shape
    weights = [1.0] * classes if class_weights is None else floats(class_weights)
    kept = [label != ignore for label in labels.tolist()]
    scores, labels = floats(scores), _checked(labels, classes, ignore)
    losses, dscores = np.zeros(N), np.zeros((N, classes))
    for n in range(N):
        if not kept[n]:
            continue
        top = max(scores[n])
        log_sum = math.log(sum(math.exp(score - top) for score in scores[n]))
        targets = [
            weights[j] * ((1 - label_smoothing) * (j == labels[n]) + label_smoothing / classes) for j in range(classes)
        ]
        for j in range(classes):
            log_probability = scores[n][j] - top - log_sum
            if targets[j]:  # a class that is not asked for may have probability 0
                losses[n] -= targets[j] * log_probability
            dscores[n, j] = math.exp(log_probability) * math.fsum(targets) - targets[j]
    total = sum(weights[label] for label, counts in zip(labels, kept, strict=True) if counts)
    return _reduced(losses, dscores, reduction, total)


def sigmoid_cross_entropy(scores: Any, targets: Any, *, reduction: str) -> tuple[np.ndarray, np.ndarray]:
    """loss = max(s, 0) - s t + log(1 + exp(-|s|));   dscores = 1 / (1 + exp(-s)) - t."""
    losses, dscores = np.zeros(scores.shape), np.zeros(scores.shape)
    scores, targets = scores.astype(np.float64), targets.astype(np.float64)
    for place in every(*losses.shape):
        s, t = float(scores[place]), float(targets[place])
        small = math.exp(-abs(s))
        losses[place] = (s if not s <= 0 else 0.0) - s * t + math.log1p(small)
        dscores[place] = (1.0 if s >= 0 else small) / (1 + small) - t
    return _reduced(losses, dscores, reduction, losses.size)


def _reduced(losses: np.ndarray, dscores: np.ndarray, reduction: str, total: float) -> tuple[np.ndarray, np.ndarray]:
    """Return losses and gradients, or their sum, or their mean over a total, which is 0 where nothing counts."""
    if reduction == "none":
        return losses, dscores
    loss = np.array(math.fsum(losses.reshape(-1).tolist()) if np.isfinite(losses).all() else losses.sum())
    divisor = (total or 1.0) if reduction == "mean" else 1.0
    return loss / divisor, dscores / divisor


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


def _checked(labels: Any, classes: int, ignore: int | None = None) -> list[int]:
    values = labels.tolist()
    for value in values:
        if not 0 <= value < classes and value != ignore:
            msg = f"labels must be from 0 to classes - 1, got label {value} with {classes} classes"
            raise ParamError(msg)
    return values
