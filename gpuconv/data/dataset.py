"""One data set in memory, and the statistics that normalise it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import checks
from ..errors import DTypeError, ShapeError
from ..plural import counted


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Pictures and labels of a classification task.

    x_train, x_test: (N, C, H, W) uint8   y_train, y_test: (N,) int64

    Nothing is checked here: what takes a data set asks `check_dataset` whether its parts belong together.

    >>> x, y = np.zeros((4, 3, 8, 8), np.uint8), np.array([0, 1, 0, 1])
    >>> mean, std = data.channel_statistics(x)
    >>> mine = data.Dataset("mine", ("black", "dark"), x, y, x[:2], y[:2], mean, std, "made here")
    >>> data.check_dataset(mine)
    >>> mine.classes, mine.x_train.shape
    (('black', 'dark'), (4, 3, 8, 8))
    """

    name: str
    """What the data truly are; printed with every result."""
    classes: tuple[str, ...]
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    mean: tuple[float, ...]
    """Per channel, of x_train / 255."""
    std: tuple[float, ...]
    source: str
    """Where the data come from."""
    validation: int | None = None
    """How many of the last training pictures the set itself has for validation; None: it does not say."""

    def __repr__(self) -> str:
        counts = (
            f"{counted(len(self.classes), 'class', 'classes')}, {len(self.y_train):,} + {len(self.y_test):,} pictures"
        )
        return f"{type(self).__name__}({self.name!r}, {counts})"


def class_counts(dataset: Dataset) -> dict[str, np.ndarray]:
    """Return how many pictures of each class there are to train and test on, and to validate if the set says which."""
    held_out = len(dataset.y_train) - (dataset.validation or 0)
    parts = {"train": dataset.y_train[:held_out]}
    if dataset.validation is not None:
        parts["validation"] = dataset.y_train[held_out:]
    parts["test"] = dataset.y_test
    return {part: np.bincount(labels, minlength=len(dataset.classes)) for part, labels in parts.items()}


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of images / 255 per channel, exact up to the rounding of a float64.

    images: (N, C, H, W) uint8   ->   C floats, C floats

    A channel of one value everywhere has the deviation 1: normalised, it is 0.

    >>> images = np.array([0, 255, 255, 0], np.uint8).reshape(1, 1, 2, 2)
    >>> data.channel_statistics(images)
    ((0.5,), (0.5,))
    """
    if images.dtype != np.uint8:
        msg = f"images must be uint8, got {images.dtype}"
        raise DTypeError(msg)
    checks.ndim("images", images, 4, "(N, C, H, W)")
    if 0 in images.shape:
        msg = f"images must not be empty, got shape {images.shape}"
        raise ShapeError(msg)
    levels = np.arange(256)
    means, deviations = [], []
    for channel in range(images.shape[1]):
        # Counts of the 256 values are exact; a thousand pictures at a time keep the integer copy small.
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), 1000):
            counts += np.bincount(images[start : start + 1000, channel].ravel(), minlength=256)
        total = int(counts.sum())
        mean = int(counts @ levels) / total
        variance = float(counts @ (levels - mean) ** 2) / total
        means.append(mean / 255)
        deviations.append(variance**0.5 / 255 or 1.0)
    return tuple(means), tuple(deviations)
