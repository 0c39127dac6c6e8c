"""Losses: softmax and binary cross-entropy, and the multiclass SVM (hinge).  What the user calls."""

from __future__ import annotations

from .. import checks
from ..backend import backend_of
from ..elsewhere import says_ours
from ..typing import AnyArray, Array

_REDUCTIONS = ("mean", "sum", "none")


@says_ours()
def softmax_cross_entropy(
    scores: Array,
    labels: AnyArray,
    *,
    label_smoothing: float = 0.0,
    class_weights: Array | None = None,
    ignore: int | None = None,
    reduction: str = "mean",
) -> tuple[Array, Array]:
    """Return (loss, dscores): the mean cross-entropy of softmax(scores) against the labels, and its gradient.

    scores: (N, classes)   labels: (N,) integers in [0, classes)   ->   loss: scalar array ()   dscores: (N, classes)

    label_smoothing mixes the one-hot target with the uniform one: (1 - s) onehot + s / classes, as PyTorch defines it.
    class_weights, (classes,) in the dtype and place of scores, multiply each class's part of the target.  Rows whose
    label is `ignore`, which may be any number, have no loss and a gradient of 0.
    reduction: "mean" divides by the number of rows that count, with class_weights by the sum of their labels' weights;
    "sum" divides by nothing; with "none" loss is (N,), and each row of dscores the gradient of its own loss.
    The loss is float32 (float64 for float64 scores).  The mean of no rows is 0.
    A label out of range raises ParamError on the CPU; on a GPU it is checked in debug mode only.

    >>> scores, labels = np.zeros((1, 4)), np.array([2])
    >>> loss, dscores = gpuconv.softmax_cross_entropy(scores, labels)
    >>> round(float(loss), 4), dscores
    (1.3863, array([[ 0.25,  0.25, -0.75,  0.25]]))
    """
    backend = backend_of(scores=scores, labels=labels, class_weights=class_weights)
    checks.class_scores(scores, labels)
    label_smoothing = checks.real("label_smoothing", label_smoothing, low=0.0, high=1.0)
    reduction = checks.choice("reduction", reduction, _REDUCTIONS)
    if class_weights is not None:
        checks.common_dtype(scores=scores, class_weights=class_weights)
        checks.same_shape("class_weights", class_weights, scores.shape[1:], "one entry per class,")
    if ignore is not None:
        ignore = checks.integer("ignore", ignore, least=-(2**63), most=2**63 - 1)
    how = {"class_weights": class_weights, "ignore": ignore, "reduction": reduction}
    return backend.softmax_cross_entropy(scores, labels, label_smoothing=label_smoothing, **how)


@says_ours()
def sigmoid_cross_entropy(scores: Array, targets: Array, *, reduction: str = "mean") -> tuple[Array, Array]:
    """Return (loss, dscores): the binary cross-entropy of sigmoid(scores) against the targets, and its gradient.

    scores: any shape   targets: the same, from 0 to 1   ->   loss: scalar array ()   dscores: as scores

    Each element is a question of its own, as one of several labels of a picture: max(s, 0) - s t + log(1 + exp(-|s|)),
    which no score overflows.  Others call it binary cross-entropy with logits.  Targets beside 0 and 1 are not refused.
    reduction: "mean" over all elements, "sum", or "none": then loss has the shape of scores.
    The loss is float32 (float64 for float64 scores).  The mean of no elements is 0.

    >>> loss, dscores = gpuconv.sigmoid_cross_entropy(np.array([0.0, 100.0]), np.array([1.0, 1.0]))
    >>> round(float(loss), 4), dscores
    (0.3466, array([-0.25,  0.  ]))
    """
    backend = backend_of(scores=scores, targets=targets)
    checks.given(scores=scores, targets=targets)
    checks.common_dtype(scores=scores, targets=targets)
    checks.same_shape("targets", targets, scores.shape, "the shape of scores,")
    reduction = checks.choice("reduction", reduction, _REDUCTIONS)
    return backend.sigmoid_cross_entropy(scores, targets, reduction=reduction)


@says_ours()
def svm_loss(scores: Array, labels: AnyArray, *, margin: float = 1.0) -> tuple[Array, Array]:
    """Return (loss, dscores) of the multiclass hinge loss, mean over the batch of sum over wrong j of
    max(0, scores[j] - scores[label] + margin).

    scores: (N, classes)   labels: (N,) integers in [0, classes)   ->   loss: scalar array ()   dscores: (N, classes)

    The gradient at a kink is 0.  Source: Weston and Watkins, Multi-class support vector machines (1998).

    >>> scores, labels = np.array([[1.0, 3.0, 2.0]]), np.array([2])
    >>> loss, dscores = gpuconv.svm_loss(scores, labels)
    >>> float(loss), dscores
    (2.0, array([[ 0.,  1., -1.]]))
    """
    backend = backend_of(scores=scores, labels=labels)
    checks.class_scores(scores, labels)
    margin = checks.real("margin", margin, low=0.0)
    return backend.svm_loss(scores, labels, margin=margin)
