"""Losses of a batch of class scores, and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ParamError
from ..plural import counted
from .compiled import passes
from .layout import accumulator, empty_as, stored
from .memory import empty_array
from .parallel import for_each, quiet, ranges


def softmax_cross_entropy(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    label_smoothing: float,
    class_weights: np.ndarray | None = None,
    ignore: int | None = None,
    reduction: str = "mean",
) -> tuple[Any, np.ndarray]:
    if class_weights is None and ignore is None and reduction == "mean":
        return _mean_over_rows("softmax_cross_entropy", scores, labels, label_smoothing)
    return _weighted(scores, labels, label_smoothing, class_weights, ignore, reduction)


@quiet
def _weighted(
    scores: np.ndarray,
    labels: np.ndarray,
    label_smoothing: float,
    class_weights: np.ndarray | None,
    ignore: int | None,
    reduction: str,
) -> tuple[Any, np.ndarray]:
    """Return losses and gradients of rows that count by their labels, those that are ignored not at all."""
    N, classes = scores.shape
    ignored = np.zeros(N, bool) if ignore is None else labels == ignore
    _check_range(scores, labels[~ignored])
    indices = np.where(ignored, 0, labels).astype(np.intp)
    weights = np.ones(classes) if class_weights is None else class_weights.astype(np.float64)
    total = float(weights[indices[~ignored]].sum()) if reduction == "mean" else 1.0
    share = 1.0 / total if total else 1.0
    run, rows = passes("loss", scores.dtype), np.require(scores, requirements=("C", "A"))
    losses, dscores = empty_array((N,), np.float64), empty_array((N, classes), scores.dtype)

    def work(block: tuple[int, int]) -> None:
        part = slice(*block)
        arrays = rows[part], indices[part], losses[part], dscores[part], weights
        run.weighted_softmax_cross_entropy(*arrays, label_smoothing, share)

    for_each(work, ranges(N, max(1, run.BLOCK // classes)))
    losses[ignored], dscores[ignored] = 0.0, 0.0
    kind = accumulator(scores.dtype)
    return losses.astype(kind) if reduction == "none" else kind.type(losses.sum() * share), dscores


@quiet
def sigmoid_cross_entropy(scores: np.ndarray, targets: np.ndarray, *, reduction: str) -> tuple[Any, np.ndarray]:
    share = 1.0 / max(1, scores.size) if reduction == "mean" else 1.0
    run, kind = passes("loss", scores.dtype), accumulator(scores.dtype)
    dscores = empty_as(scores)
    in_order = stored(dscores, scores, targets, dscores)
    rows, wanted, gradients = (np.require(array, requirements="A").reshape(-1) for array in in_order)
    losses = empty_array((scores.size,), np.float64)

    def work(block: tuple[int, int]) -> None:
        part = slice(*block)
        run.sigmoid_cross_entropy(rows[part], wanted[part], losses[part], gradients[part], share)

    for_each(work, ranges(scores.size, run.BLOCK))
    if reduction != "none":
        return kind.type(losses.sum() * share), dscores
    each = losses.astype(kind).reshape(in_order[0].shape)
    return each if each.shape == scores.shape else each.transpose(0, 3, 1, 2), dscores


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
