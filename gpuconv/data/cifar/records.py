"""Read a CIFAR, checked: every batch becomes records of the binary format, and all of them arrays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DatasetCorruptError
from ..pickles import Array, read_pickle
from . import archive, original
from .source import Source, read_file, unpacked_batches
from .spec import PIXELS, Labels, Spec


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """A data set in memory, images (N, 3, 32, 32) uint8 and labels (N,) int64, under its true name."""

    name: str
    classes: tuple[str, ...]
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def read(source: Source, spec: Spec, *, label: int = -1) -> Pictures:
    """Return all pictures of a source, checked, with the label of that place in spec.labels.

    Raises DatasetCorruptError, naming the file and both facts, for a missing batch, a wrong size, a label outside its
    classes, wrong class counts, or a batch that differs from the original while others are the original; and
    UnsafeArchiveError for an archive or pickle that holds more than plain data.
    """
    ends = dict(zip(spec.batches, accumulate(spec.records.values()), strict=True))
    count = ends[spec.batches[-1]]
    x = np.empty((count, PIXELS), np.uint8)
    y = np.empty((len(spec.labels), count), np.int64)
    digests = {}
    # An archive yields its batches in the order they are stored in.
    for batch, raw in archive.batches(source, spec) if source.packed else unpacked_batches(source, spec):
        rows = read_records(source, batch, raw, spec)
        check_labels(source.title(batch), rows, spec)
        part = slice(ends[batch] - len(rows), ends[batch])
        y[:, part] = rows[:, : len(spec.labels)].T
        x[part] = rows[:, len(spec.labels) :]
        digests[batch] = original.digests(source, batch, raw, rows, spec)
    train = count - spec.records[spec.batches[-1]]
    for labels, values in zip(spec.labels, y, strict=True):
        _check_counts(f"{source.path}, training batches", values[:train], labels)
        _check_counts(source.title(spec.batches[-1]), values[train:], labels)
    images = x.reshape(count, 3, 32, 32)
    name = original.true_name(source, digests, spec)
    chosen = y[label]
    return Pictures(name, spec.labels[label].classes, images[:train], chosen[:train], images[train:], chosen[train:])


def read_batch(path: Path, spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, 3, 32, 32) uint8 and labels (N,) int64 of one batch file, checked as `read` does."""
    kind = "binary" if path.suffix == ".bin" else "python"
    layout = next(layout for layout in spec.layouts if layout.kind == kind)
    source = Source(path.parent, layout, False)
    batch = path.name.removesuffix(layout.suffix)
    batch = batch if batch in spec.records else spec.batches[0]  # a copy may have any name
    rows = read_records(source, batch, read_file(path, source, spec, batch), spec)
    check_labels(str(path), rows, spec)
    labels = len(spec.labels)
    return rows[:, labels:].reshape(-1, 3, 32, 32), rows[:, labels - 1].astype(np.int64)


# A batch --------------------------------------------------------------------------------------------------------------


def read_records(source: Source, batch: str, raw: bytes, spec: Spec) -> np.ndarray:
    """Return a batch as records of the binary format, (pictures, labels + 3072) uint8."""
    count = spec.records[batch]
    if source.layout.kind == "binary":
        return np.frombuffer(raw, np.uint8).reshape(count, spec.record_bytes)
    title = source.title(batch)
    # Per picture: its labels, its name, and what older protocols add to remember them.
    content = read_pickle(raw, title, most_steps=1000 + 20 * count)
    keys = [labels.key for labels in spec.labels]
    if not isinstance(content, dict):
        msg = f"{title} holds a {type(content).__name__}, expected a dict with data and {' and '.join(keys)}"
        raise DatasetCorruptError(msg)
    entries = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    data = entries.get("data")
    if not isinstance(data, Array) or not all(isinstance(entries.get(key), list) for key in keys):
        kinds = {key: type(entries.get(key)).__name__ for key in ("data", *keys)}
        msg = f"{title} holds {kinds}, expected data as an array and {' and '.join(keys)} as a list"
        raise DatasetCorruptError(msg)
    wanted = (count, PIXELS)
    if data.shape != wanted or data.dtype not in ("u1", "|u1") or data.fortran:
        order = "column" if data.fortran else "row"
        shape, dtype = _short(data.shape), _short(data.dtype)
        msg = f"{title} has data {shape} of type {dtype} in {order} order, expected {wanted} of type u1 in row order"
        raise DatasetCorruptError(msg)
    size = len(data.raw) if isinstance(data.raw, bytes) else 0
    if size != count * PIXELS:
        msg = f"{title} has {size:,} bytes of data, expected {count * PIXELS:,}"
        raise DatasetCorruptError(msg)
    rows = np.empty((count, spec.record_bytes), np.uint8)
    for column, labels in enumerate(spec.labels):
        rows[:, column] = _label_list(title, entries[labels.key], labels, count)
    rows[:, len(keys) :] = np.frombuffer(data.raw, np.uint8).reshape(wanted)
    return rows


def _label_list(title: str, values: list[Any], labels: Labels, count: int) -> list[Any]:
    """Return a pickle's labels if each is an int of its class."""
    if len(values) != count:
        msg = f"{title} has {len(values)} {labels.key}, expected {count}"
        raise DatasetCorruptError(msg)
    for picture, label in enumerate(values):
        if type(label) is not int or not 0 <= label < len(labels.classes):
            raise _wrong_label(title, _short(label), picture, labels)
    return values


def _short(value: Any) -> str:
    """Return a few words for a value from a file: its text if it is simple, else its type."""
    simple = isinstance(value, int | str) or (isinstance(value, tuple) and all(isinstance(v, int) for v in value))
    return str(value)[:40] if simple else type(value).__name__


def check_labels(title: str, rows: np.ndarray, spec: Spec) -> None:
    """Raise DatasetCorruptError if a record has a label outside its classes."""
    for column, labels in enumerate(spec.labels):
        wrong = np.flatnonzero(rows[:, column] >= len(labels.classes))
        if wrong.size:
            raise _wrong_label(title, rows[wrong[0], column], wrong[0], labels)


def _wrong_label(title: str, label: object, picture: int, labels: Labels) -> DatasetCorruptError:
    kind = labels.key.removesuffix("s").replace("_", " ")
    return DatasetCorruptError(
        f"{title} has {kind} {label} at picture {picture}, expected 0 to {len(labels.classes) - 1}"
    )


def _check_counts(title: str, values: np.ndarray, labels: Labels) -> None:
    counts = np.bincount(values, minlength=len(labels.classes))
    wanted = len(values) // len(labels.classes)
    wrong = np.flatnonzero(counts != wanted)
    if wrong.size:
        label = wrong[0]
        msg = f"{title}: {counts[label]:,} pictures of class {label} ({labels.classes[label]}), expected {wanted:,}"
        raise DatasetCorruptError(msg)
