"""One data set in memory, and the statistics that normalise it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np

from .. import checks
from ..errors import DTypeError, ShapeError
from ..plural import counted
from ..png import data_uri, image

_MOST_CLASSES, _MOST_PICTURES = 10, 6  # in HTML
_MOST_PIXELS, _HIGH = 64, 40  # of a picture there: stored, and how high it is drawn


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

    def _repr_html_(self) -> str:
        """Show the first pictures of each class, or of the first classes where there are many."""
        parts = class_counts(self)
        _, channels, height, width = self.x_train.shape
        rows = []
        for label, name in enumerate(self.classes[:_MOST_CLASSES]):
            cells = "".join(f"<td>{counts[label]:,}</td>" for counts in parts.values())
            first = np.flatnonzero(self.y_train == label)[:_MOST_PICTURES]
            rows.append(f"<tr><td>{escape(name)}</td>{cells}<td>{''.join(map(_img, self.x_train[first]))}</td></tr>")
        head = "".join(f"<th>{part}</th>" for part in ("class", *parts, "pictures"))
        left_out = len(self.classes) - len(rows)
        more = f"and {counted(left_out, 'class', 'classes')} more" if left_out else ""
        size = f"pictures of {width} x {height} (width x height), {counted(channels, 'channel')}"
        return (
            f"<div><b>{escape(self.name)}</b>: {counted(len(self.classes), 'class', 'classes')}, {size}"
            f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}</div>"
        )


def _img(pixels: np.ndarray) -> str:
    """Return a picture (C, H, W) as an element of a page, with fewer pixels if it has many."""
    step = -(-max(pixels.shape[1:]) // _MOST_PIXELS)
    style = f"display:inline;height:{_HIGH}px;margin:1px;image-rendering:pixelated"
    return f'<img style="{style}" src="{data_uri(image(pixels[:, ::step, ::step]))}">'


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
