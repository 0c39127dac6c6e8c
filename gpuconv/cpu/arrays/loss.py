"""Losses of a block of rows of scores, and their gradients; all is done in float64."""

from __future__ import annotations

import numpy as np

BLOCK = 64 * 1024


def softmax_cross_entropy(
    scores: np.ndarray, labels: np.ndarray, losses: np.ndarray, dscores: np.ndarray, smoothing: float, count: int
) -> None:
    """Fill losses (n,), float64, and dscores (n, classes), divided by count; labels (n,) are indices."""
    n, classes = scores.shape
    rows = np.arange(n)
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)
    log_probability = shifted - np.log(total)
    losses[...] = -(1.0 - smoothing) * log_probability[rows, labels]
    if smoothing:
        losses -= smoothing * log_probability.mean(axis=1)
    gradient = exponentials / total
    gradient -= smoothing / classes
    gradient[rows, labels] -= 1.0 - smoothing
    np.copyto(dscores, gradient / count, casting="same_kind")


def weighted_softmax_cross_entropy(
    scores: np.ndarray,
    labels: np.ndarray,
    losses: np.ndarray,
    dscores: np.ndarray,
    weights: np.ndarray,
    smoothing: float,
    share: float,
) -> None:
    """Fill losses (n,), float64, and dscores (n, classes), times share; weights (classes,) float64 of the target."""
    n, classes = scores.shape
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)
    target = np.tile(weights * (smoothing / classes), (n, 1))
    target[np.arange(n), labels] += weights[labels] * (1.0 - smoothing)
    asked = np.where(target != 0, shifted - np.log(total), 0.0)  # what is not asked for may be infinite
    losses[...] = -(target * asked).sum(axis=1)
    gradient = exponentials / total * target.sum(axis=1, keepdims=True) - target
    np.copyto(dscores, gradient * share, casting="same_kind")


def sigmoid_cross_entropy(
    scores: np.ndarray, targets: np.ndarray, losses: np.ndarray, dscores: np.ndarray, share: float
) -> None:
    """Fill losses, float64, and dscores, times share, of single elements."""
    wide, wanted = scores.astype(np.float64), targets.astype(np.float64)
    small = np.exp(-np.abs(wide))
    losses[...] = np.maximum(wide, 0.0) - wide * wanted + np.log1p(small)
    likely = np.where(wide >= 0, 1.0, small) / (1.0 + small)
    np.copyto(dscores, (likely - wanted) * share, casting="same_kind")


def svm(
    scores: np.ndarray, labels: np.ndarray, losses: np.ndarray, dscores: np.ndarray, margin: float, count: int
) -> None:
    """Fill losses (n,), float64, and dscores (n, classes), divided by count; labels (n,) are indices."""
    rows = np.arange(scores.shape[0])
    wide = scores.astype(np.float64)
    excess = wide - wide[rows, labels][:, None] + margin
    excess[rows, labels] = 0.0
    gradient = (excess > 0).astype(np.float64)
    gradient[rows, labels] = -gradient.sum(axis=1)
    losses[...] = np.maximum(excess, 0.0).sum(axis=1)
    np.copyto(dscores, gradient / count, casting="same_kind")
