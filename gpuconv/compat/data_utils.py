"""CIFAR-10 as the course's notebooks want it: float64, not scaled, read without running a pickle.

Images are looked for where GPUCONV_DATA says, then in the folders that the courses' scripts fill, then in gpuconv's
cache, and are downloaded there if need be.
"""

from __future__ import annotations

import contextlib
import io
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from .. import data
from ..bounded import read
from ..data import cifar, cifar10
from ..data.pickles import Array, Class, Instance, read_pickle
from ..errors import DatasetCorruptError, DatasetMissingError, DownloadError
from ..folders import path_of

# Where get_cifar10.sh and the notebooks of either course put the batches, seen from the notebook.
_FOLDERS = ("cifar-10-batches-py", "cs231n/datasets/cifar-10-batches-py", "datasets/cifar-10-batches-py")
_MOST_STEPS = 10_000_000
_MOST_BYTES = 1 << 31
_MOST_TEXT = 1 << 26
_PIECE = 1 << 20
_NOT_CHANNELS = (0, 2, 3, 1)

# What NumPy and zipfile raise for a broken .npz; RuntimeError and its kinds: encrypted, nested, packed in another way.
_BROKEN_NPZ = (
    KeyError, ValueError, TypeError, OverflowError, OSError, EOFError, MemoryError, RuntimeError, SyntaxError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip

_Value = TypeVar("_Value")


def load_pickle(f: BinaryIO) -> Any:
    """Return what a pickle of plain data holds: names as strings, bytes arrays as NumPy's; nothing in it is run."""
    name = getattr(f, "name", "the pickle")
    raw = bytearray()
    while piece := f.read(_PIECE):
        raw += piece
        if len(raw) > _MOST_BYTES:
            msg = f"{name} is longer than {_MOST_BYTES:,} bytes"
            raise DatasetCorruptError(msg)
    return _plain(read_pickle(bytes(raw), name, most_steps=_MOST_STEPS), name)


def load_CIFAR_batch(filename: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return (X, Y) of one batch file.   X: (N, 32, 32, 3) float64   Y: (N,)."""
    images, labels = cifar.read_batch(path_of(filename), cifar10.OFFICIAL)
    return images.transpose(_NOT_CHANNELS).astype(np.float64), labels


@contextlib.contextmanager
def _in_short() -> Iterator[None]:
    """Let notebooks show of CIFAR-10 that cannot be had what is to be done, and no traceback, as they do by this method."""
    try:
        yield
    except (DatasetMissingError, DownloadError) as error:
        text = f"{type(error).__name__}: {error}"
        error._render_traceback_ = text.splitlines  # type: ignore[union-attr]
        raise


@_in_short()
def load_CIFAR10(ROOT: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (X_train, y_train, X_test, y_test) of a folder.   X: (N, 32, 32, 3) float64."""
    dataset = data.load("cifar10", folder=ROOT)
    x_train, x_test = (x.transpose(_NOT_CHANNELS).astype(np.float64) for x in (dataset.x_train, dataset.x_test))
    return x_train, dataset.y_train, x_test, dataset.y_test


@_in_short()
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
    dataset = data.load("cifar10", folder=folder)
    cuts = {
        "train": (dataset.x_train, dataset.y_train, slice(0, num_training)),
        "val": (dataset.x_train, dataset.y_train, slice(num_training, num_training + num_validation)),
        "test": (dataset.x_test, dataset.y_test, slice(0, num_test)),
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
    root = path_of(path)
    of_classes, of_words = root / "wnids.txt", root / "words.txt"
    wnids = _text(of_classes).split()
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    words = dict(_rows(of_words, 2))
    train = [
        (root / "train" / wnid / "images" / name, label_of[wnid])
        for wnid in wnids
        for (name,) in _rows(root / "train" / wnid / f"{wnid}_boxes.txt", 1)
    ]
    of_val, of_test = root / "val" / "val_annotations.txt", root / "test" / "test_annotations.txt"
    val = [
        (root / "val" / "images" / name, _known(label_of, wnid, of_val, of_classes)) for name, wnid in _rows(of_val, 2)
    ]
    names = _names(root / "test" / "images")
    arrays: dict[str, Any] = {"class_names": [_known(words, wnid, of_classes, of_words).split(", ") for wnid in wnids]}
    test_label = dict(_rows(of_test, 2)) if of_test.is_file() else None
    y_test = test_label and [
        _known(label_of, _known(test_label, name, root / "test" / "images", of_test), of_test, of_classes)
        for name in names
    ]
    for part, images in (("train", [p for p, _ in train]), ("val", [p for p, _ in val])):
        arrays[f"X_{part}"] = _pictures(images, dtype)
    arrays["X_test"] = _pictures([root / "test" / "images" / name for name in names], dtype)
    arrays["y_train"], arrays["y_val"] = (np.array([label for _, label in part]) for part in (train, val))
    arrays["y_test"] = None if y_test is None else np.array(y_test)
    arrays["mean_image"] = arrays["X_train"].mean(axis=0)
    if subtract_mean:
        for part in ("train", "val", "test"):
            arrays[f"X_{part}"] -= arrays["mean_image"]
    return arrays


def load_models(models_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Return {file name: model} of the pickled models in a folder; files that are none are left out.

    Nothing in a pickle is run: a model of the courses' (ThreeLayerConvNet, FullyConnectedNet, TwoLayerNet), whichever
    module it was made in, becomes one of ours with the attributes it had.  Raises UnsafeArchiveError for a pickle of
    anything else, such as a model of one's own class.
    """
    models = {}
    for path in sorted(path_of(models_dir).iterdir()):
        if not path.is_file():
            continue
        try:
            stored = read_pickle(read(path, _MOST_BYTES), str(path), most_steps=_MOST_STEPS, known=_models())
        except DatasetCorruptError:
            continue
        if isinstance(stored, dict) and isinstance(stored.get("model"), Instance):
            models[path.name] = _plain(stored["model"], str(path))
    return models


def load_imagenet_val(num: int | None = None) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return (X, y, class_names) of imagenet_val_25.npz as the course's script stores it, the first `num` images.

    Its class names are a pickle, of which nothing is run.
    """
    paths = [Path(folder) / "imagenet_val_25.npz" for folder in ("cs231n/datasets", "datasets", ".")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        msg = f"imagenet_val_25.npz is in none of {', '.join(str(path.parent) for path in paths)}"
        raise DatasetMissingError(msg)
    try:
        # Opened here: of a broken file np.load leaves it open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            _check_members(path, stored.zip.infolist())
            X, y, names = stored["X"], stored["y"], stored.zip.read("label_map.npy")
        file = io.BytesIO(names)
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
    except _BROKEN_NPZ as error:
        msg = f"{path} is not the file of the course's script: {str(error) or type(error).__name__}"
        raise DatasetCorruptError(msg) from error
    if shape != () or dtype != object:
        msg = f"{path} has a label_map of shape {shape} and type {dtype}, expected one object"
        raise DatasetCorruptError(msg)
    # An array of objects is pickled as one: its state's last part is the list of them.
    stored = read_pickle(file.read(), f"{path}: label_map", most_steps=_MOST_STEPS)
    if not isinstance(stored, Array) or not isinstance(stored.raw, list) or len(stored.raw) != 1:
        msg = f"{path} has a label_map that is no array of one object"
        raise DatasetCorruptError(msg)
    return X[:num], y[:num], _plain(stored.raw[0], str(path))


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    size = sum(member.file_size for member in members)
    if size > _MOST_BYTES:
        msg = f"{path} unpacks to {size:,} bytes, expected {_MOST_BYTES:,} at most"
        raise DatasetCorruptError(msg)


def _models() -> dict[str, Any]:
    """Return what a pickled model may refer to: the courses' classes, by every module that has them, and NumPy's types."""
    from . import cnn, fc_net

    places = {
        cnn.ThreeLayerConvNet: ("nndl.cnn", "cs231n.classifiers.cnn", cnn.__name__),
        fc_net.FullyConnectedNet: ("nndl.fc_net", "cs231n.classifiers.fc_net", fc_net.__name__),
        fc_net.TwoLayerNet: ("nndl.fc_net", "cs231n.classifiers.fc_net", fc_net.__name__),
    }
    known: dict[str, Any] = {
        f"{module} {kind.__name__}": kind for kind, modules in places.items() for module in modules
    }
    return known | {f"numpy {kind.__name__}": _Type(kind) for kind in (np.float16, np.float32, np.float64)}


def _pictures(paths: list[Path], dtype: Any) -> np.ndarray:
    """Return images as (N, 3, H, W); grey ones get three equal channels."""
    colour = [np.stack([p] * 3, axis=2) if p.ndim == 2 else p for p in map(_picture, paths)]
    for path, picture in zip(paths, colour, strict=True):
        if picture.shape != colour[0].shape:
            msg = f"{path} is a picture of shape {picture.shape}, expected {colour[0].shape} as of {paths[0]}"
            raise DatasetCorruptError(msg)
    if not colour:
        msg = "the folder has a part without pictures: TinyImageNet has some for training, validation and test"
        raise DatasetCorruptError(msg)
    return np.stack(colour).transpose(0, 3, 1, 2).astype(dtype)


def _picture(path: Path) -> np.ndarray:
    from matplotlib import image

    try:
        return np.asarray(image.imread(path))
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError, SyntaxError) as error:  # the last: of Pillow, for a PNG
        msg = f"{path} could not be read as a picture: {error}"
        raise DatasetCorruptError(msg) from error


def _text(path: Path) -> str:
    try:
        return read(path, _MOST_TEXT).decode("utf-8")
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        msg = f"{path} could not be read ({error.strerror or error})"
        raise DatasetCorruptError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is no text in UTF-8: {error.reason} at byte {error.start}"
        raise DatasetCorruptError(msg) from error


def _rows(path: Path, columns: int) -> list[list[str]]:
    """Return the first columns of every line of a text whose columns have tabs between them."""
    rows = [line.split("\t") for line in _text(path).splitlines()]
    for number, row in enumerate(rows, 1):
        if len(row) < columns:
            msg = f"{path}, line {number}: expected {columns} columns with tabs between them, got {len(row)}"
            raise DatasetCorruptError(msg)
    return [row[:columns] for row in rows]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise _missing(folder) from error


def _known(values: Mapping[str, _Value], name: str, said_in: Path, missing_in: Path) -> _Value:
    """Return what one file says of a name in another."""
    if name not in values:
        msg = f"{said_in} has {name[:80]!r}, of which {missing_in} says nothing"
        raise DatasetCorruptError(msg)
    return values[name]


def _missing(path: Path) -> DatasetMissingError:
    return DatasetMissingError(f"{path} is not there: a folder of TinyImageNet as it is published has it")


@dataclass(frozen=True, slots=True)
class _Type:
    """An element type: no class that objects could be made of."""

    kind: type


def _plain(value: Any, name: str) -> Any:
    """Return what read_pickle returned with strings for names and NumPy arrays for arrays; what is shared stays so."""
    try:
        return _converted(value, {})
    except RecursionError:
        msg = f"{name} holds lists too deep inside each other"
        raise DatasetCorruptError(msg) from None
    except (TypeError, ValueError) as error:
        msg = f"{name} holds an array that is none: {error}"
        raise DatasetCorruptError(msg) from None


def _converted(value: Any, done: dict[int, Any]) -> Any:
    """Return one value; done: those before, by identity, so that each is converted once however often it is named."""
    if id(value) in done:
        return done[id(value)]
    result: Any
    if isinstance(value, dict):
        result = done[id(value)] = {}
        result.update((_converted(key, done), _converted(entry, done)) for key, entry in value.items())
    elif isinstance(value, list):
        result = done[id(value)] = []
        result.extend(_converted(entry, done) for entry in value)
    elif isinstance(value, tuple):
        result = tuple(_converted(entry, done) for entry in value)
    elif isinstance(value, Array):
        result = _array(value)
    elif isinstance(value, Instance):
        result = done[id(value)] = object.__new__(value.kind)
        vars(result).update(_converted(value.attributes or {}, done))
    elif isinstance(value, Class | _Type):
        result = value.kind
    else:
        result = value.decode("latin-1") if isinstance(value, bytes) else value
    done[id(value)] = result
    return result


def _array(value: Array) -> Any:
    dtype = np.dtype(f"{value.order if value.order in '<>' else '='}{value.dtype}")
    if dtype.kind not in "biuf" or not isinstance(value.raw, bytes):
        msg = f"it is of type {dtype}"
        raise ValueError(msg)
    array = np.frombuffer(value.raw, dtype).reshape(value.shape, order="F" if value.fortran else "C")
    return array.astype(dtype.newbyteorder("=")) if value.shape else array[()]
