"""Classes by name: a net's scores and a data set's labels belong together by what they mean, not by their numbers."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Sequence

import numpy as np

from ..data.dataset import Dataset
from ..errors import CheckpointMismatchError

_MOST_NAMES = 12


def in_order_of(classes: Sequence[str], dataset: Dataset) -> Dataset:
    """Return a data set with its labels numbered as a net's classes, and these as its own: matched by name.

    Classes of the net that the data set does not have keep their place, without pictures.
    Raises CheckpointMismatchError, with their names, for classes that the net does not know.
    """
    if tuple(dataset.classes) == tuple(classes):
        return dataset
    place = {same_name(name): number for number, name in enumerate(classes)}
    if unknown := [name for name in dataset.classes if same_name(name) not in place]:
        msg = (
            f"{dataset.name} has {'classes' if len(unknown) > 1 else 'a class'} that the net does not know: "
            f"{listed(unknown)}; the net's are {listed(classes)}: leave out what is not among them"
        )
        raise CheckpointMismatchError(msg)
    number = np.array([place[same_name(name)] for name in dataset.classes], np.int64)
    labels = {part: number[getattr(dataset, part)] for part in ("y_train", "y_test")}
    return dataclasses.replace(dataset, classes=tuple(classes), **labels)


def differences(classes: Sequence[str], dataset: Dataset) -> list[str]:
    """Return in sentences what is different between a net's classes and those that `in_order_of` matches with them."""
    own, others = ([same_name(name) for name in names] for names in (classes, dataset.classes))
    notes = []
    if [name for name in own if name in set(others)] != others:
        notes.append(f"the net's classes stand in another order, {listed(classes)}: they are matched by name")
    if missing := [name for name, key in zip(classes, own, strict=True) if key not in set(others)]:
        notes.append(f"there are no pictures of {listed(missing)}")
    return notes


def same_name(name: str) -> str:
    """Return a name as it is compared: whichever way a file system composes its accents."""
    return unicodedata.normalize("NFC", name)


def listed(names: Sequence[str]) -> str:
    """Return names as a list for a message, the first of very many."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
