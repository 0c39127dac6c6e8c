"""The data set of a run: found by its settings, told from any other by its fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np

from .. import data
from ..data import cifar10, cifar100
from ..data.check import check_dataset
from ..data.dataset import class_counts
from ..data.download import Notice, Progress
from ..data.drawn import SHAPES
from ..data.pictures import MIXED_SIZE, NAMED
from ..data.sources import is_path, to_stderr
from ..errors import ConfigError, DatasetMissingError
from .config import Config

_MOST_COUNTS = 20  # classes whose counts fit into a line or three
_PURPOSES = {"train": "train", "validation": "validate", "test": "test"}
_OURS = (cifar10.CLASSES, cifar100.CLASSES, cifar100.SUPERCLASSES, SHAPES)


def load_dataset(
    config: Config,
    *,
    data_dir: str | None = None,
    download: bool | None = None,
    notice: Notice = to_stderr,
    progress: Progress | None = None,
    trained_on: tuple[str, str] | None = None,
    mixed_size: int = MIXED_SIZE,
) -> data.Dataset:
    """Return the data set that settings name, as every command and function that needs a run's data gets it.

    data_dir, or else config.data_dir, is the folder of CIFAR's files; of a folder of pictures, where it is now.
    download: None leaves it to config.   notice, progress: as of `data.load`.
    trained_on: name and fingerprint of what a run was trained on.  Raises ConfigError for other data, whatever they are
    called; pictures that are the same keep the name they had in another folder.
    mixed_size: what a folder's pictures of several sizes are scaled to, if config does not say.
    Raises DatasetMissingError, which of a run's pictures says how to name the folder they are in now.
    """
    name, folder = config.data, data_dir or config.data_dir
    if folder and is_path(name):
        name, folder = folder if is_path(folder) else f"./{folder}", ""
    try:
        loaded = data.load(
            name,
            folder=folder or None,
            image_size=config.image_size,
            mixed_size=mixed_size,
            skip_broken=config.skip_broken,
            download=config.download if download is None else download,
            notice=notice,
            progress=progress,
        )
    except DatasetMissingError as error:
        if trained_on is None or data_dir or not is_path(name):
            raise
        msg = f"{error}: if it has moved, or the run was begun in another folder, name it by --data-dir (data_dir=...)"
        raise DatasetMissingError(msg) from error
    if trained_on is not None:
        check_same(loaded, *trained_on)
        if loaded.name.startswith(NAMED):
            loaded = dataclasses.replace(loaded, name=trained_on[0])
    return loaded


def check_same(dataset: Any, name: str, known: str) -> None:
    """Raise ConfigError if a data set is not the one of this name and fingerprint."""
    check_dataset(dataset)
    if fingerprint(dataset) != known:
        other = dataset.name if dataset.name != name else "another version of it"
        msg = f"the run was trained on {name}, the data given or found are others: {other}"
        raise ConfigError(msg)


def fingerprint(dataset: Any) -> str:
    """Return a short digest of a data set: all labels, the images, the classes, how images are normalised.

    Of CIFAR, whose files have hashes of their own, and of the drawn shapes every 50th image stands for all.
    """
    ours = is_ours(dataset)
    digest = hashlib.blake2b(digest_size=16)
    for labels in (dataset.y_train, dataset.y_test):
        digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    for images in (dataset.x_train, dataset.x_test):
        digest.update(np.ascontiguousarray(images[:: 50 if ours else 1]).reshape(-1).data)
    digest.update(repr((tuple(map(float, dataset.mean)), tuple(map(float, dataset.std)))).encode())
    if not ours:
        digest.update(repr((dataset.x_train.shape, tuple(dataset.classes))).encode())
    return digest.hexdigest()


def is_ours(dataset: Any) -> bool:
    """Return whether this is CIFAR or the drawn shapes, rather than pictures of one's own."""
    return tuple(dataset.classes) in _OURS and not dataset.name.startswith(NAMED)


def counts_in_words(dataset: Any) -> str:
    """Return a line with the pictures of each class, as they are split; of many classes the rarest and the commonest."""
    parts = class_counts(dataset)
    cells = [" + ".join(map(str, counts)) for counts in zip(*parts.values(), strict=True)]
    totals = np.sum([*parts.values()], axis=0)
    shown = list(range(len(cells)))
    if len(cells) > _MOST_COUNTS:
        shown = sorted({int(totals.argmin()), int(totals.argmax())})
    words = ", ".join(f"{dataset.classes[label]} {cells[label]}" for label in shown)
    return f"{len(cells)} classes, pictures to {' + '.join(_PURPOSES[part] for part in parts)}: {words}"


def first_test_images(dataset: Any, count: int) -> tuple[Any, Any]:
    """Return the first `count` test images and their labels, or all for 0."""
    tests = len(dataset.y_test)
    if count < 0:
        msg = f"test_images must be an int from 0 on, got {count}"
        raise ConfigError(msg)
    if tests == 0 or count > tests:
        msg = f"{dataset.name} has {tests} test images, too few for test_images={count}: lower it, or leave it out for all"
        raise ConfigError(msg)
    tested = slice(0, count or tests)
    return dataset.x_test[tested], dataset.y_test[tested]
