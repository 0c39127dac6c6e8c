"""From settings to the things that train: data, net, optimiser, schedule, and which images are for what."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import data, nn
from ..data import cifar10, cifar100
from ..data.download import Notice, Progress
from ..data.drawn import SHAPES
from ..data.pictures import NAMED
from ..data.sources import is_path, to_stderr
from ..errors import ConfigError, GpuconvError
from ..nn.spec import NET_FILES
from .config import Config

_VALIDATION = 5000
_OWN_SHARE = 10  # of pictures of one's own one in so many is held out, if that is fewer
_OURS = (cifar10.CLASSES, cifar100.CLASSES, cifar100.SUPERCLASSES, SHAPES)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The images of a run, as views: to learn from, to choose the best epoch by, to report on."""

    x_train: Any
    y_train: Any
    x_validation: Any
    y_validation: Any
    x_test: Any
    y_test: Any


@dataclass(frozen=True, slots=True)
class Plan:
    """How many steps a run has."""

    steps_per_epoch: int
    steps: int

    @property
    def epochs(self) -> int:
        """Epochs begun; the last one may be short."""
        return -(-self.steps // self.steps_per_epoch)

    def steps_of(self, epoch: int) -> int:
        """Return the number of steps of an epoch, counted from 0."""
        return min(self.steps_per_epoch, self.steps - epoch * self.steps_per_epoch)


def dataset(
    config: Config,
    *,
    data_dir: str | None = None,
    download: bool | None = None,
    notice: Notice = to_stderr,
    progress: Progress | None = None,
    trained_on: tuple[str, str] | None = None,
) -> data.Dataset:
    """Return the data set that settings name, as every command and function that needs a run's data gets it.

    data_dir, or else config.data_dir, is the folder of CIFAR's files; of a folder of pictures, where it is now.
    download: None leaves it to config.   notice, progress: as of `data.load`.
    trained_on: name and fingerprint of what a run was trained on.  Raises ConfigError for other data, whatever they are
    called; pictures that are the same keep the name they had in another folder.
    """
    name, folder = config.data, data_dir or config.data_dir
    if folder and is_path(name):
        name, folder = folder if is_path(folder) else f"./{folder}", ""
    found = data.load(
        name,
        folder=folder or None,
        image_size=config.image_size,
        download=config.download if download is None else download,
        notice=notice,
        progress=progress,
    )
    if trained_on is not None:
        check_same(found, *trained_on)
        if found.name.startswith(NAMED):
            found = dataclasses.replace(found, name=trained_on[0])
    return found


def check_same(dataset: Any, name: str, known: str) -> None:
    """Raise ConfigError if a data set is not the one of this name and fingerprint."""
    if fingerprint(dataset) != known:
        other = dataset.name if dataset.name != name else "another version of it"
        msg = f"the run was trained on {name}, the data given or found are others: {other}"
        raise ConfigError(msg)


def settled(config: Config, dataset: Any) -> Config:
    """Return the settings with the number of validation images that they leave to the data."""
    if config.validation >= 0:
        return config
    images = len(dataset.y_train)
    # One at least, so that an epoch can be chosen, but never the only one.
    count = _VALIDATION if _is_ours(dataset) else min(_VALIDATION, max(images // _OWN_SHARE, 1), images - 1)
    return dataclasses.replace(config, validation=max(count, 0))


def split(dataset: Any, config: Config) -> Split:
    """Return the images of a run: the last `validation` training images are held out, whatever the other limits.

    With overfit=N the first N are trained on, and the very same chosen by.
    """
    config = settled(config, dataset)
    images = len(dataset.y_train)
    kept = images - config.validation
    count = config.train_images or kept
    if config.overfit:
        kept, count = images, config.overfit
    if not 0 < count <= kept:
        left = f"validation={config.validation} leaves {max(kept, 0)}"
        if config.overfit:
            what = f", too few for overfit={config.overfit}: lower it"
        elif config.train_images:
            what = f": {left}, too few for train_images={config.train_images}: lower one of the two"
        else:
            what = f": {left} to train on: a smaller --validation N (validation=N) holds out fewer"
        msg = f"{dataset.name} has {images} training images{what}"
        raise ConfigError(msg)
    held_out = slice(0, count) if config.overfit else slice(kept, None)
    return Split(
        dataset.x_train[:count],
        dataset.y_train[:count],
        dataset.x_train[held_out],
        dataset.y_train[held_out],
        *test_images(dataset, config.test_images),
    )


def test_images(dataset: Any, count: int) -> tuple[Any, Any]:
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


def check_moves(config: Config, input_shape: tuple[int, ...]) -> None:
    """Raise ConfigError if the augmentation does not fit pictures of a shape (C, H, W)."""
    height, width = input_shape[1:]
    size = f"the pictures are {width} x {height} pixels (width x height)"
    if config.cutout > min(height, width):
        msg = f"cutout={config.cutout} is a square larger than a picture: {size}"
        raise ConfigError(msg)
    if config.pad_mode == "reflect" and config.crop >= min(height, width):
        msg = f'crop={config.crop} shifts further than pad_mode="reflect" can mirror: {size}'
        raise ConfigError(msg)


def plan(config: Config, images: int) -> Plan:
    """Return the steps of a run; a last batch that is not full is left out of each epoch."""
    steps_per_epoch = images // config.batch_size
    if steps_per_epoch == 0:
        msg = f"batch_size={config.batch_size} is more than the {images} training images: choose a smaller batch"
        msg += " (in Python train.overfitting(config) does)" if config.overfit else ""
        raise ConfigError(msg)
    steps = config.epochs * steps_per_epoch
    return Plan(steps_per_epoch, min(steps, config.max_steps or steps))


def net(config: Config, input_shape: tuple[int, ...], classes: int, built: Mapping[str, Any] | None = None) -> nn.Net:
    """Return the net with its initial weights.

    built: the net's own config, from a checkpoint.  It takes the place of a file, which may have changed since.
    """
    if built is not None and config.net.endswith(NET_FILES):
        return _build(lambda: nn.build(built))
    return _build(lambda: _net(config, input_shape, classes))


def optimiser(config: Config, net: nn.Net) -> nn.Optimiser:
    """Return the optimiser of a net."""
    settings: dict[str, Any] = {"weight_decay": config.weight_decay, "bias_lr": config.bias_lr}
    match config.optimizer:
        case "muon":
            settings |= {"momentum": config.muon_momentum, "iterations": config.muon_iterations}
            settings |= {"sgd_momentum": config.momentum, "nesterov": config.nesterov, "affine_lr": config.affine_lr}
        case "sgd":
            settings |= {"momentum": config.momentum, "nesterov": config.nesterov}
        case "rmsprop":
            settings |= {"smoothing": config.smoothing, "eps": config.eps}
        case _:
            settings |= {"beta1": config.beta1, "beta2": config.beta2, "eps": config.eps}
    return _build(lambda: nn.optimiser(config.optimizer, net, **settings))


def schedule(config: Config, plan: Plan) -> Callable[[int], float]:
    """Return the learning rate as a function of the step."""
    settings: dict[str, Any] = {"lr": config.lr}
    match config.schedule:
        case "step":
            settings |= {"every": config.lr_every * plan.steps_per_epoch, "factor": config.lr_factor}
        case "cosine":
            settings |= {"total": plan.steps, "warmup": config.warmup, "floor": config.lr_end * config.lr}
        case "one-cycle":
            settings |= {
                "total": plan.steps,
                "warmup": config.warmup,
                "start": config.lr_start * config.lr,
                "floor": config.lr_end * config.lr,
                "shape": config.lr_curve,
            }
    return _build(lambda: nn.schedule(config.schedule, **settings))


def fingerprint(dataset: Any) -> str:
    """Return a short digest of a data set: all labels, the images, the classes, how images are normalised.

    Of CIFAR, whose files have hashes of their own, and of the drawn shapes every 50th image stands for all.
    """
    ours = _is_ours(dataset)
    digest = hashlib.blake2b(digest_size=16)
    for labels in (dataset.y_train, dataset.y_test):
        digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    for images in (dataset.x_train, dataset.x_test):
        digest.update(np.ascontiguousarray(images[:: 50 if ours else 1]).reshape(-1).data)
    digest.update(repr((tuple(map(float, dataset.mean)), tuple(map(float, dataset.std)))).encode())
    if not ours:
        digest.update(repr((dataset.x_train.shape, tuple(dataset.classes))).encode())
    return digest.hexdigest()


def _is_ours(dataset: Any) -> bool:
    """Return whether this is CIFAR or the drawn shapes, rather than pictures of one's own."""
    return tuple(dataset.classes) in _OURS and not dataset.name.startswith(NAMED)


def _net(config: Config, input_shape: tuple[int, ...], classes: int) -> nn.Net:
    fixed: dict[str, Any] = {"input_shape": input_shape, "classes": classes, "seed": config.seed, "dtype": config.dtype}
    if config.net.endswith(NET_FILES):
        return nn.from_file(config.net, **fixed)
    if config.net == "convnet":
        return nn.ConvNet(*config.widths or (32, 64, 128), **fixed)
    if config.net in _BY_WIDTHS:
        return _BY_WIDTHS[config.net](*config.widths, **fixed)
    return nn.ThreeLayerConvNet(
        filters=config.filters,
        window=config.window,
        hidden=config.hidden,
        weight_scale=config.weight_scale or None,
        **fixed,
    )


_BY_WIDTHS: dict[str, Callable[..., nn.Net]] = {
    "vgg": nn.VGG,
    "resnet9": nn.ResNet9,
    "resnet18": nn.ResNet18,
    "speedrun": nn.SpeedrunNet,
}


def _build(make: Callable[[], Any]) -> Any:
    """Return make(); what it refuses is a setting that cannot be used."""
    try:
        return make()
    except ConfigError:
        raise
    except GpuconvError as error:
        raise ConfigError(str(error)) from error
