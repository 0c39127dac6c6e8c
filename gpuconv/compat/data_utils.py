"""CIFAR-10 as the course's notebooks want it: float64, not scaled, read without running a pickle.

Images are looked for where GPUCONV_DATA says, then in the folders that the courses' scripts fill, then in gpuconv's
cache, and are downloaded there if need be.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .. import data
from ..data import cifar, cifar10
from ..data.pickles import Array, read_pickle
from ..errors import DatasetMissingError

# Where get_cifar10.sh and the notebooks of either course put the batches, seen from the notebook.
_FOLDERS = ("cifar-10-batches-py", "cs231n/datasets/cifar-10-batches-py", "datasets/cifar-10-batches-py")
_MOST_STEPS = 10_000_000
_NOT_CHANNELS = (0, 2, 3, 1)


def load_pickle(f: BinaryIO) -> Any:
    """Return what a pickle of plain data holds: names as strings, bytes arrays as NumPy's; nothing in it is run."""
    return _plain(read_pickle(f.read(), getattr(f, "name", "the pickle"), most_steps=_MOST_STEPS))


def load_CIFAR_batch(filename: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return (X, Y) of one batch file.   X: (N, 32, 32, 3) float64   Y: (N,)."""
    images, labels = cifar.read_batch(Path(filename), cifar10.OFFICIAL)
    return images.transpose(_NOT_CHANNELS).astype(np.float64), labels


def load_CIFAR10(ROOT: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (X_train, y_train, X_test, y_test) of a folder.   X: (N, 32, 32, 3) float64."""
    found = data.load("cifar10", folder=ROOT)
    x_train, x_test = (x.transpose(_NOT_CHANNELS).astype(np.float64) for x in (found.x_train, found.x_test))
    return x_train, found.y_train, x_test, found.y_test


def get_CIFAR10_data(
    num_training: int = 49000, num_validation: int = 1000, num_test: int = 1000, subtract_mean: bool = True
) -> dict[str, np.ndarray]:
    """Return X_train, y_train, X_val, y_val, X_test, y_test.   X: (N, 3, 32, 32) float64.

    The validation set is what follows the training set among the 50,000, the test set the first of the 10,000.
    subtract_mean takes the mean image of the training set off all three.
    """
    folder = None
    if not os.environ.get("GPUCONV_DATA"):
        folder = next((name for name in _FOLDERS if cifar.find(Path(name), cifar10.OFFICIAL, depth=0)), None)
    found = data.load("cifar10", folder=folder)
    cuts = {
        "train": (found.x_train, found.y_train, slice(0, num_training)),
        "val": (found.x_train, found.y_train, slice(num_training, num_training + num_validation)),
        "test": (found.x_test, found.y_test, slice(0, num_test)),
    }
    parts: dict[str, np.ndarray] = {}
    for name, (x, y, cut) in cuts.items():
        parts[f"X_{name}"], parts[f"y_{name}"] = x[cut].astype(np.float64), y[cut]
    if subtract_mean:
        mean_image = parts["X_train"].mean(axis=0)
        for name in cuts:
            parts[f"X_{name}"] -= mean_image
    return parts


def load_tiny_imagenet(
    path: str | os.PathLike[str], dtype: Any = np.float32, subtract_mean: bool = True
) -> dict[str, Any]:
    """Return a TinyImageNet folder: class_names, X_train, y_train, X_val, y_val, X_test, y_test (or None), mean_image.

    X: (N, 3, 64, 64).  Reading JPEGs needs matplotlib and Pillow.  class_names: for each class a list of its words.
    """
    root = Path(path)
    wnids = root.joinpath("wnids.txt").read_text(encoding="utf-8").split()
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    words = dict(line.split("\t") for line in _lines(root / "words.txt"))
    train = [
        (image, label_of[wnid])
        for wnid in wnids
        for image in (
            root / "train" / wnid / "images" / line.split("\t")[0]
            for line in _lines(root / "train" / wnid / f"{wnid}_boxes.txt")
        )
    ]
    val = [
        (root / "val" / "images" / name, label_of[wnid])
        for name, wnid, *_ in (line.split("\t") for line in _lines(root / "val" / "val_annotations.txt"))
    ]
    names = sorted(path.name for path in (root / "test" / "images").iterdir())
    found: dict[str, Any] = {"class_names": [words[wnid].split(", ") for wnid in wnids]}
    test_labels = root / "test" / "test_annotations.txt"
    test_label = dict(line.split("\t")[:2] for line in _lines(test_labels)) if test_labels.is_file() else None
    for part, images in (("train", [p for p, _ in train]), ("val", [p for p, _ in val])):
        found[f"X_{part}"] = _pictures(images, dtype)
    found["X_test"] = _pictures([root / "test" / "images" / name for name in names], dtype)
    found["y_train"], found["y_val"] = (np.array([label for _, label in part]) for part in (train, val))
    found["y_test"] = None if test_label is None else np.array([label_of[test_label[name]] for name in names])
    found["mean_image"] = found["X_train"].mean(axis=0)
    if subtract_mean:
        for part in ("train", "val", "test"):
            found[f"X_{part}"] -= found["mean_image"]
    return found


def load_models(models_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Return {file name: model} of the pickled models in a folder; files that are none are left out.

    Unpickling runs what a pickle says: read only models of your own.
    """
    models = {}
    for path in sorted(Path(models_dir).iterdir()):
        with path.open("rb") as file:
            try:
                models[path.name] = pickle.load(file)["model"]
            except (pickle.UnpicklingError, KeyError, EOFError):
                continue
    return models


def load_imagenet_val(num: int | None = None) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return (X, y, class_names) of imagenet_val_25.npz as the course's script stores it, the first `num` images."""
    places = [Path(folder) / "imagenet_val_25.npz" for folder in ("cs231n/datasets", "datasets", ".")]
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        msg = f"imagenet_val_25.npz is in none of {', '.join(str(place.parent) for place in places)}"
        raise DatasetMissingError(msg)
    with np.load(path, allow_pickle=True) as stored:  # its class names are a dict
        return stored["X"][:num], stored["y"][:num], stored["label_map"].item()


def _pictures(paths: list[Path], dtype: Any) -> np.ndarray:
    """Return images as (N, 3, H, W); grey ones get three equal channels."""
    from matplotlib import image

    pictures = [image.imread(path) for path in paths]
    colour = [np.stack([p] * 3, axis=2) if p.ndim == 2 else p for p in pictures]
    return np.stack(colour).transpose(0, 3, 1, 2).astype(dtype)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _plain(value: Any) -> Any:
    """Return what read_pickle returned with strings for names and NumPy arrays for arrays of bytes."""
    if isinstance(value, dict):
        return {_plain(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(entry) for entry in value)
    if isinstance(value, Array):
        shaped = np.frombuffer(value.raw, np.uint8).reshape(value.shape, order="F" if value.fortran else "C")
        return shaped.copy()
    return value.decode("latin-1") if isinstance(value, bytes) else value
