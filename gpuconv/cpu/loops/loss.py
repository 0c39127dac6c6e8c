"""Losses of a block of rows of scores, and their gradients; all is done in float64."""

from __future__ import annotations

import math

import numpy as np
from numba import float32, float64, types

from ..parallel import scratch
from .jit import NUMBER, compiled_pass, read, write

BLOCK = 64 * 1024

_FLOAT64 = np.dtype(np.float64)


def softmax_cross_entropy(
    scores: np.ndarray, labels: np.ndarray, losses: np.ndarray, dscores: np.ndarray, smoothing: float, count: int
) -> None:
    """Fill losses (n,), float64, and dscores (n, classes), divided by count; labels (n,) are indices."""
    row = scratch("row", scores.shape[1:], _FLOAT64)
    _softmax_cross_entropy(scores, labels, losses, dscores, row, smoothing, count)


@compiled_pass(read(2), read(1, types.intp), write(1, float64), write(2), write(1, float64), float64, NUMBER)
def _softmax_cross_entropy(scores, labels, losses, dscores, row, smoothing, count):
    """row (classes,): exponentials."""
    n, classes = scores.shape
    for i in range(n):
        top = float64(scores[i, 0])
        for j in range(1, classes):
            score = float64(scores[i, j])
            if score > top or score != score:  # NaN stays
                top = score
        total = shifts = 0.0
        for j in range(classes):
            shift = float64(scores[i, j]) - top
            row[j] = math.exp(shift)
            total += row[j]
            shifts += shift
        log_total = math.log(total)
        label = labels[i]
        losses[i] = (smoothing - 1.0) * (float64(scores[i, label]) - top - log_total)
        if smoothing != 0:  # not 0 times a sum that may be infinite
            losses[i] -= smoothing * (shifts / classes - log_total)
        for j in range(classes):
            gradient = row[j] / total - smoothing / classes
            if j == label:
                gradient -= 1.0 - smoothing
            dscores[i, j] = gradient / count


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
    row = scratch("row", scores.shape[1:], _FLOAT64)
    _weighted_softmax_cross_entropy(scores, labels, losses, dscores, weights, row, smoothing, share)


@compiled_pass(
    *(read(2), read(1, types.intp), write(1, float64), write(2), read(1, float64), write(1, float64), float64, float64)
)
def _weighted_softmax_cross_entropy(scores, labels, losses, dscores, weights, row, smoothing, share):
    """row (classes,): exponentials."""
    n, classes = scores.shape
    for i in range(n):
        top = float64(scores[i, 0])
        for j in range(1, classes):
            score = float64(scores[i, j])
            if score > top or score != score:  # NaN stays
                top = score
        total = 0.0
        for j in range(classes):
            row[j] = math.exp(float64(scores[i, j]) - top)
            total += row[j]
        log_total = math.log(total)
        label = labels[i]
        loss = asked = 0.0
        for j in range(classes):
            target = weights[j] * (smoothing / classes + (1.0 - smoothing if j == label else 0.0))
            asked += target
            if target != 0:  # what is not asked for may be infinite
                loss -= target * (float64(scores[i, j]) - top - log_total)
        losses[i] = loss
        for j in range(classes):
            target = weights[j] * (smoothing / classes + (1.0 - smoothing if j == label else 0.0))
            dscores[i, j] = (row[j] / total * asked - target) * share


@compiled_pass(read(1), read(1), write(1, float64), write(1), float64)
def sigmoid_cross_entropy(scores, targets, losses, dscores, share):
    """Fill losses, float64, and dscores, times share, of single elements."""
    for i in range(len(scores)):
        score, target = float64(scores[i]), float64(targets[i])
        small = math.exp(-abs(score))
        losses[i] = (0.0 if score <= 0 else score) - score * target + math.log1p(small)
        likely = (1.0 if score >= 0 else small) / (1.0 + small)
        dscores[i] = (likely - target) * share


@compiled_pass(read(2), read(1, types.intp), write(1, float64), write(2), float64, NUMBER)
def svm(scores, labels, losses, dscores, margin, count):
    """Fill losses (n,), float64, and dscores (n, classes), divided by count; labels (n,) are indices."""
    n, classes = scores.shape
    share = float32(1.0 / count)
    for i in range(n):
        label = labels[i]
        own = float64(scores[i, label])
        total = above = 0.0
        for j in range(classes):
            excess = float64(scores[i, j]) - own + margin
            total += 0.0 if excess <= 0 or j == label else excess  # NaN counts
            counts = excess > 0 and j != label
            above += 1.0 if counts else 0.0
            dscores[i, j] = share if counts else float32(0)
        dscores[i, label] = -above / count
        losses[i] = total
