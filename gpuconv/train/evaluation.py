"""How well a net does on pictures it has not been trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import asarray, asnumpy
from ..errors import CheckpointMismatchError, ParamError
from ..ops.augment import augment
from ..ops.loss import softmax_cross_entropy

BATCH_SIZE = 250


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The outcome on a set of images: mean loss, and how often the highest score was right."""

    loss: float
    accuracy: float
    class_counts: np.ndarray  # (classes,): images of each class
    class_correct: np.ndarray  # (classes,): those of them that were recognised

    @property
    def count(self) -> int:
        """How many images were looked at."""
        return int(self.class_counts.sum())

    @property
    def class_accuracy(self) -> list[float | None]:
        """Accuracy of each class; None for one without images."""
        pairs = zip(self.class_correct.tolist(), self.class_counts.tolist(), strict=True)
        return [right / count if count else None for right, count in pairs]


def evaluate(
    net: Any,
    images: Any,
    labels: Any,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    classes: int,
    between: Callable[[], None] | None = None,
) -> Evaluation:
    """Return loss and accuracy of a net on images as they are stored; no augmentation, running statistics.

    images: (N, C, H, W) uint8   labels: (N,)   between is called after each batch (and may raise to end it early).
    """
    count = len(labels)
    if count == 0:
        msg = "images must not be empty: there is no accuracy of nothing"
        raise ParamError(msg)
    loss_sum = 0.0
    counts, correct = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for start in range(0, count, BATCH_SIZE):
        batch = slice(start, min(start + BATCH_SIZE, count))
        pictures = asarray(images[batch], beside=net.flat_params)
        x = augment(pictures, mean=mean, std=std, dtype=net.flat_params.dtype, channels_last=True)
        scores = net.forward(x)
        if scores.shape[1] != classes:
            msg = f"the net has {scores.shape[1]} classes but the data set has {classes}"
            raise CheckpointMismatchError(msg)
        loss, _ = softmax_cross_entropy(scores, asarray(labels[batch], beside=net.flat_params))
        loss_sum += float(asnumpy(loss)) * (batch.stop - batch.start)
        right = asnumpy(scores).argmax(axis=1) == labels[batch]
        counts += np.bincount(labels[batch], minlength=classes)
        correct += np.bincount(labels[batch][right], minlength=classes)
        if between is not None:
            between()
    return Evaluation(loss_sum / count, int(correct.sum()) / count, counts, correct)
