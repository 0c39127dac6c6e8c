"""Whether the parts of a data set that somebody made belong together: asked before anything is computed or written."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from ..errors import ArgTypeError, DTypeError, ParamError, ShapeError
from ..foreign import class_in_words, way_out
from ..plural import counted
from .dataset import Dataset

_PLAIN = (np.ndarray, np.memmap)  # other subclasses (masked arrays, ...) carry meaning that would be lost
_COLOURS = (3, 4)  # channels that make a picture: RGB, RGBA
_FEW = 4  # a picture is higher and wider than that


def check_dataset(dataset: Any) -> None:
    """Raise ArgTypeError, DTypeError, ShapeError or ParamError, with the part's name, unless a data set is sound.

    Pictures must be (N, C, H, W) uint8 and labels (N,) integers, one for each picture, that number the classes from 0;
    training and test pictures must have one size, and mean and std one number for each channel, of pictures / 255.

    >>> import dataclasses
    >>> pictures = data.draw_shapes(100, 40)
    >>> data.check_dataset(pictures)
    >>> data.check_dataset(dataclasses.replace(pictures, y_test=pictures.y_test[:5]))
    Traceback (most recent call last):
        ...
    gpuconv.errors.ShapeError: x_test has 40 pictures but y_test 5 labels: each picture needs one
    """
    if not isinstance(dataset, Dataset):
        msg = f"dataset must be a gpuconv.data.Dataset, got {class_in_words(dataset)}"
        raise ArgTypeError(msg)
    for name in ("name", "source"):
        if not isinstance(text := getattr(dataset, name), str):
            msg = f"{name} of a data set must be a str, got {text!r}"
            raise ArgTypeError(msg)
    check_classes(dataset.classes)
    for part in ("train", "test"):
        check_pictures(f"x_{part}", getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}"))
        _check_labels(part, dataset)
    if dataset.x_test.shape[1:] != dataset.x_train.shape[1:]:
        msg = (
            f"x_test has pictures of shape {dataset.x_test.shape[1:]} but x_train of {dataset.x_train.shape[1:]}: "
            "scale or cut them to one size"
        )
        raise ShapeError(msg)
    _check_statistics(dataset)


def check_classes(classes: Any) -> None:
    """Raise ArgTypeError or ParamError unless these are names of two classes or more, each with one of its own."""
    if not isinstance(classes, (tuple, list)) or not all(isinstance(name, str) for name in classes):
        msg = f"classes must be a tuple of names, got {classes!r}"
        raise ArgTypeError(msg)
    if strange := [name for name in classes if not name or not name.isprintable()]:
        msg = f"classes must have names of printable characters, got {strange[0]!r}"
        raise ParamError(msg)
    if len(classes) < 2:
        msg = f"classes must be two or more to tell apart, got {len(classes)}"
        raise ParamError(msg)
    if len(set(classes)) < len(classes):
        name, count = Counter(classes).most_common(1)[0]
        msg = f"classes must have names of their own, got {name!r} {count} times"
        raise ParamError(msg)


def check_pictures(name: str, pictures: Any, labels: Any = None) -> None:
    """Raise ArgTypeError, DTypeError or ShapeError, with the way out, unless this is a NumPy array (N, C, H, W) uint8."""
    _check_array(name, pictures)
    if pictures.dtype != np.uint8:
        hint = f": of values from 0 to 1, (255 * {name}).round().astype(np.uint8)" if pictures.dtype.kind == "f" else ""
        msg = f"{name} must be uint8, values from 0 to 255, got {pictures.dtype}{hint}"
        raise DTypeError(msg)
    shape = pictures.shape
    if pictures.ndim == 4 and (way := _way_to_nchw(shape, len(labels) if hasattr(labels, "__len__") else 0)):
        order, axes = way
        msg = f"{name} must be (N, C, H, W), got shape {shape}, which is {order}: {name}.transpose{axes} turns it"
        raise ShapeError(msg)
    if pictures.ndim != 4:
        hint = f" (grey pictures: {name}[:, None])" if pictures.ndim == 3 else ""
        hint = f" (flat pictures: {name}.reshape(-1, C, H, W))" if pictures.ndim == 2 else hint
        msg = f"{name} must be (N, C, H, W), got shape {shape}{hint}"
        raise ShapeError(msg)
    if 0 in shape[1:]:
        msg = f"{name} must have pictures of one pixel or more, got shape {shape}"
        raise ShapeError(msg)


def _way_to_nchw(shape: tuple[int, ...], labels: int) -> tuple[str, tuple[int, ...]] | None:
    """Return the order that a shape shows and the transposition that mends it; None if it can be (N, C, H, W).

    Channels last: the last axis counts colours while those before it are the sides of a picture.  One channel could
    as well be a picture one pixel wide, so it must follow a square.  Pictures last: only the last axis fits the labels.
    """
    first, height, width, last = shape
    sides = min(height, width) > _FEW
    if sides and (last in _COLOURS or (last == 1 and height == width)):
        return "(N, H, W, C)", (0, 3, 1, 2)
    if labels == last != first and min(first, height) > _FEW and width <= _FEW:
        return "(H, W, C, N)", (3, 2, 0, 1)
    return None


def _check_labels(part: str, dataset: Dataset) -> None:
    name, count, classes = f"y_{part}", len(getattr(dataset, f"x_{part}")), len(dataset.classes)
    labels = getattr(dataset, name)
    _check_array(name, labels)
    if labels.ndim != 1:
        hint = ""
        if labels.ndim == 2 and labels.shape[1] == 1:
            hint = f": {name}[:, 0] takes the only column"
        elif labels.ndim == 2 and labels.shape[1] == classes:
            hint = f": {name}.argmax(axis=1) is the class of each row"
        msg = f"{name} must be (N,), one label for each picture, got shape {labels.shape}{hint}"
        raise ShapeError(msg)
    if labels.dtype.kind not in "iu" or not labels.dtype.isnative or not np.can_cast(labels.dtype, np.int64):
        msg = f"{name} must be int64, or integers that fit into it, got {labels.dtype}: {name}.astype(np.int64)"
        raise DTypeError(msg)
    if len(labels) != count:
        msg = f"x_{part} has {counted(count, 'picture')} but {name} {counted(len(labels), 'label')}: each picture needs one"
        raise ShapeError(msg)
    if not count:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        hint = f": {name} - 1 counts from 0" if (low, high) == (1, classes) else ""
        msg = f"{name} must number the {classes} classes from 0 to {classes - 1}, got labels from {low} to {high}{hint}"
        raise ParamError(msg)


def _check_statistics(dataset: Dataset) -> None:
    channels = dataset.x_train.shape[1]
    for name, lowest in (("mean", "from 0"), ("std", "above 0")):
        values = getattr(dataset, name)
        try:
            numbers = tuple(map(float, values))
        except (TypeError, ValueError):
            msg = f"{name} must be one number for each channel, got {values!r}"
            raise ArgTypeError(msg) from None
        if len(numbers) != channels:
            msg = f"{name} must be one number for each of {counted(channels, 'channel')}, got {len(numbers)}"
            raise ShapeError(msg)
        for number in numbers:
            if not math.isfinite(number) or not 0 <= number <= 1 or (name == "std" and number == 0):
                hint = f": divide {name} by 255" if 1 < number <= 255 else ""
                msg = f"{name} must be that of x_train / 255, {lowest} to 1, got {number:g}{hint}"
                raise ParamError(msg)


def _check_array(name: str, array: Any) -> None:
    if type(array) not in _PLAIN:
        way = way_out(name, array, gpu=False)
        msg = f"{name} must be a NumPy array, got {class_in_words(array)}{way}"
        raise ArgTypeError(msg)
