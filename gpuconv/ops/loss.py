"""Losses that end a classifier: softmax cross-entropy and the multiclass SVM (hinge).  What the user calls."""

from __future__ import annotations

from .. import checks
from ..backend import backend_of
from ..typing import AnyArray, Array


def softmax_cross_entropy(scores: Array, labels: AnyArray, *, label_smoothing: float = 0.0) -> tuple[Array, Array]:
    """Return (loss, dscores): the mean cross-entropy of softmax(scores) against the labels, and its gradient.

    scores: (N, classes)   labels: (N,) integers in [0, classes)   ->   loss: scalar array ()   dscores: (N, classes)

    label_smoothing mixes the one-hot target with the uniform one: (1 - s) onehot + s / classes, as PyTorch defines it.
    The loss is float32 (float64 for float64 scores).  An empty batch has loss 0.
    A label out of range raises ParamError on the CPU; on a GPU it is checked in debug mode only.

    >>> scores, labels = np.zeros((1, 4)), np.array([2])
    >>> loss, dscores = gpuconv.softmax_cross_entropy(scores, labels)
    >>> round(float(loss), 4), dscores
    (1.3863, array([[ 0.25,  0.25, -0.75,  0.25]]))
    """
    backend = backend_of(scores=scores, labels=labels)
    checks.class_scores(scores, labels)
    label_smoothing = checks.real("label_smoothing", label_smoothing, low=0.0, high=1.0)
    return backend.softmax_cross_entropy(scores, labels, label_smoothing=label_smoothing)


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
