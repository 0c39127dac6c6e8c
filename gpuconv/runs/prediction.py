"""What a trained net says of pictures that nobody has labelled: a run or a checkpoint is enough for it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks, nn, tables
from ..backend import asnumpy
from ..data.check import check_pictures
from ..data.download import Notice
from ..data.picture_files import pictures_in
from ..data.pictures import broken, left_out, read_files
from ..errors import ArgTypeError, ConfigError, DatasetCorruptError, DatasetMissingError, GpuconvError, ShapeError
from ..folders import path_of
from ..plural import counted
from .checkpoint import Snapshot, net_of
from .checkpoint import load as load_snapshot
from .dataset import load_dataset
from .evaluation import BATCH_SIZE, check_views, scores_of
from .folder import checkpoint_in
from .inputs import Inputs

_SHOWN = 3  # classes of a picture, where it is shown in a line


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """What a net takes one picture for: every class, the most probable first.

    >>> classifier = gpuconv.load("runs/first")
    >>> prediction = classifier.predict(np.zeros((1, 3, 32, 32), np.uint8))[0]
    >>> prediction.label == prediction.classes[0], len(prediction.probabilities)
    (True, 10)
    >>> round(sum(prediction.probabilities), 6)
    1.0
    """

    name: str
    """The picture's path, or its number in the array."""
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[0]

    @property
    def probability(self) -> float:
        """How probable that is."""
        return self.probabilities[0]

    def __repr__(self) -> str:
        return f"Prediction({self.name!r}: {', '.join(self.words())})"

    def words(self, count: int = _SHOWN) -> list[str]:
        """Return the first so many classes with their probabilities."""
        pairs = zip(self.classes[:count], self.probabilities, strict=False)
        return [f"{name} {share:.1%}" for name, share in pairs]


class Predictions(list[Prediction]):
    """Predictions in the order of their pictures, a line each.

    >>> predictions = gpuconv.load("runs/first").predict(np.zeros((2, 3, 32, 32), np.uint8))
    >>> [prediction.name for prediction in predictions]
    ['picture 0', 'picture 1']
    """

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "[]"

    def _repr_html_(self) -> str:
        count = max((min(len(one.classes), _SHOWN) for one in self), default=0)
        rows = [[one.name, *one.words()] for one in self]
        return tables.html(
            "Predictions", counted(len(self), "picture"), ["picture", *map(str, range(1, count + 1))], rows
        )


class Classifier:
    """A trained net, the names of its scores, and how pictures become its inputs: what `gpuconv.load` returns.

    >>> classifier = gpuconv.load("runs/first")
    >>> len(classifier.classes), classifier.input_shape
    (10, (3, 32, 32))
    >>> len(classifier.predict(np.zeros((5, 3, 32, 32), np.uint8)))
    5
    """

    def __init__(self, path: Path, net: nn.Net, inputs: Inputs) -> None:
        assert inputs.classes is not None
        assert inputs.mean is not None
        assert inputs.std is not None
        self.path = path
        self.net = net
        self.classes, self.mean, self.std = inputs.classes, inputs.mean, inputs.std
        self.input_shape = inputs.shape

    def predict(
        self,
        pictures: Any,
        *,
        batch_size: int = BATCH_SIZE,
        skip_broken: bool = False,
        tta: str = "none",
        notice: Notice | None = None,
    ) -> Predictions:
        """Return what the net takes each picture for.

        pictures: a path or several, of pictures and of folders, which are searched through; or an array
        (N, *input_shape) of uint8.   skip_broken: leave out files that cannot be read.   tta: the views of each picture
        that scores are averaged over, as of `evaluate`.   notice(text) hears what was left out or passed over.
        Files are read and scaled as those that the net was trained on: the largest part in the middle counts.
        Raises DatasetMissingError for a path that is not there and a folder without pictures, DatasetCorruptError,
        with the names of all, for files that cannot be read, NonFiniteScoresError for scores that are no numbers,
        UnsupportedError without Pillow (extra `pictures`).
        """
        found = read(pictures, self.input_shape, skip_broken=skip_broken, notice=notice)
        return self.predictions(found, batch_size, tta=tta)

    def predictions(self, pictures: Pictures, batch_size: int = BATCH_SIZE, *, tta: str = "none") -> Predictions:
        """Return what the net takes pictures for that have been read."""
        batch_size = checks.integer("batch_size", batch_size, least=1)
        check_views(tta)
        predictions = Predictions()
        for start in range(0, len(pictures.names), batch_size):
            batch = slice(start, start + batch_size)
            scores = scores_of(self.net, pictures.images[batch], mean=self.mean, std=self.std, tta=tta)
            shares = _softmax(asnumpy(scores).astype(np.float64))
            for name, share in zip(pictures.names[batch], shares, strict=True):
                order = np.argsort(-share, kind="stable")
                predictions.append(
                    Prediction(name, tuple(self.classes[label] for label in order), tuple(share[order].tolist()))
                )
        return predictions

    def __repr__(self) -> str:
        channels, height, width = self.input_shape
        what = f"{len(self.classes)} classes, pictures of {width} x {height} (width x height), {channels} channels"
        return f"{type(self).__name__}({str(self.path)!r}): {what}"


def load(
    path: str | os.PathLike[str], *, checkpoint: str = "best", data_dir: str | os.PathLike[str] | None = None
) -> Classifier:
    """Return a trained net that is ready to predict, from the folder of a run or from a checkpoint.

    checkpoint: of a run, "best" or "last".   data_dir: where the data set of a run is now; a checkpoint of gpuconv 0.1
    alone needs it, for it does not hold mean and standard deviation.
    Raises ConfigError for a path that is neither, and what reading a checkpoint raises: CheckpointCorruptError,
    CheckpointMismatchError, CheckpointVersionError.

    >>> classifier = gpuconv.load("runs/first")
    >>> classifier.input_shape, classifier.classes[:3]
    ((3, 32, 32), ('disc', 'ring', 'crescent'))
    >>> predictions = classifier.predict(np.zeros((5, 3, 32, 32), np.uint8))
    >>> len(predictions)
    5
    """
    file = checkpoint_file(path_of(path, "the run or checkpoint"), checkpoint)
    return classifier(load_snapshot(file), data_dir=None if data_dir is None else os.fspath(data_dir))


def checkpoint_file(path: Path, name: str) -> Path:
    """Return the file of a checkpoint, itself or the "best" or "last" one of a run folder; ConfigError without that."""
    if name not in ("best", "last"):
        msg = f'checkpoint must be "best" or "last", got {name!r}'
        raise ConfigError(msg)
    return checkpoint_in(path, name) if path.is_dir() else path


def classifier(snapshot: Snapshot, *, data_dir: str | None = None) -> Classifier:
    """Return the net of a snapshot, ready to predict; ConfigError if nothing says how pictures become its inputs."""
    net = net_of(snapshot)
    try:
        inputs = known_inputs(snapshot, data_dir=data_dir)
    except (GpuconvError, OSError) as error:
        if data_dir is not None:
            raise
        msg = (
            f"{snapshot.path} does not hold mean and std of the pictures it was trained on, as checkpoints of earlier "
            f"versions do not, and its data set is not here ({error}): name its folder by --data-dir (data_dir=...)"
        )
        raise ConfigError(msg) from error
    inputs.check_net(net)
    return Classifier(snapshot.path, net, inputs)


def known_inputs(snapshot: Snapshot, *, data_dir: str | None = None) -> Inputs:
    """Return what the net of a snapshot takes; of an earlier version's, by the run's data set.

    Raises what `load_dataset` raises where that is needed and not here.
    """
    inputs = snapshot.inputs
    if inputs.classes is not None and inputs.mean is not None:
        return inputs
    dataset = load_dataset(
        snapshot.config,
        data_dir=data_dir,
        download=False,
        notice=lambda text: None,
        trained_on=(snapshot.data_name, snapshot.data_fingerprint),
    )
    return Inputs.of(inputs.fitted(dataset))


# Pictures -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Pictures as a net takes them, and what they are called."""

    names: list[str]
    images: np.ndarray
    """(N, C, H, W) uint8."""
    left_out: Mapping[Path, str] = field(default_factory=dict)
    """Files that could not be read, and why."""


def read(
    pictures: Any, shape: tuple[int, int, int], *, skip_broken: bool = False, notice: Notice | None = None
) -> Pictures:
    """Return pictures by their paths, or those of an array; see `Classifier.predict`."""
    if isinstance(pictures, (str, os.PathLike)):
        pictures = [pictures]
    if not isinstance(pictures, (list, tuple)) or not all(isinstance(path, (str, os.PathLike)) for path in pictures):
        return _of_array(pictures, shape)
    say = notice if notice is not None else lambda text: None
    paths = _files([path_of(path, "the picture") for path in pictures], say)
    if not paths:
        return Pictures([], np.empty((0, *shape), np.uint8))
    decoded = read_files(paths, shape)
    if problems := decoded.problems:
        if not skip_broken:
            raise broken(_listed(pictures), problems)
        if len(decoded.images) == 0:
            msg = f"{_listed(pictures)}: no picture can be read, the first for this reason: {next(iter(problems.values()))}"
            raise DatasetCorruptError(msg)
        say(left_out(_listed(pictures), problems))
    return Pictures([str(path) for path in paths if path not in problems], decoded.images, problems)


def _of_array(pictures: Any, shape: tuple[int, int, int]) -> Pictures:
    if not isinstance(pictures, np.ndarray):
        msg = (
            "pictures must be the path of a picture or folder, a list of such paths, or an array (N, C, H, W) of uint8, "
            f"got {type(pictures).__qualname__}"
        )
        raise ArgTypeError(msg)
    if pictures.shape == shape:
        msg = f"pictures must be (N, C, H, W), got one picture {pictures.shape}: pictures[None]"
        raise ShapeError(msg)
    check_pictures("pictures", pictures)
    if pictures.shape[1:] != shape:
        msg = f"pictures must be (N, {', '.join(map(str, shape))}) for this net, got {pictures.shape}"
        raise ShapeError(msg)
    return Pictures([f"picture {number}" for number in range(len(pictures))], pictures)


def _files(paths: Sequence[Path], say: Notice) -> list[Path]:
    """Return the pictures that paths stand for: a file for itself, a folder for all in it."""
    if missing := [path for path in paths if not path.exists()]:
        msg = f"there is no picture or folder {_listed(missing)}"
        raise DatasetMissingError(msg)
    if strange := [path for path in paths if not path.is_file() and not path.is_dir()]:  # a pipe may never end
        msg = f"{_listed(strange)} is neither a plain file nor a folder"
        raise DatasetMissingError(msg)
    files: list[Path] = []
    for path in paths:
        if path.is_file():
            files.append(path)
            continue
        passed_over: list[Path] = []
        inside = pictures_in(path, passed_over)
        if not inside:
            msg = f"the folder {path} holds no pictures"
            raise DatasetMissingError(msg)
        if passed_over:
            what = "1 file that is" if len(passed_over) == 1 else f"{len(passed_over):,} files that are"
            say(f"{path}: passing over {what} no picture, such as {passed_over[0]}")
        files += inside
    return files


def _listed(paths: Iterable[Any]) -> str:
    """Return paths for a message, the first of many."""
    names = [os.fspath(path) for path in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities (N, classes) of scores."""
    apart = np.exp(scores - scores.max(axis=1, keepdims=True))
    return apart / apart.sum(axis=1, keepdims=True)
