"""From settings to the things that train: net, optimiser, schedule, and which images are for what."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn
from ..errors import ConfigError, GpuconvError
from ..nn.spec import NET_FILES
from .config import Config


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


def split(dataset: Any, config: Config) -> Split:
    """Return the images of a run: the last `validation` training images are held out, whatever the other limits.

    With overfit=N the first N are trained on, and the very same chosen by.
    """
    images, tests = len(dataset.y_train), len(dataset.y_test)
    kept = images - config.validation
    count = config.train_images or kept
    if config.overfit:
        kept, count = images, config.overfit
    if not 0 < count <= kept:
        msg = (
            f"{dataset.name} has {images} training images: "
            f"validation={config.validation} leaves {max(kept, 0)}, too few for train_images={config.train_images}: lower one of the two"
            if not config.overfit
            else f"{dataset.name} has {images} training images, too few for overfit={config.overfit}: lower it"
        )
        raise ConfigError(msg)
    if tests == 0 or config.test_images > tests:
        msg = f"{dataset.name} has {tests} test images, too few for test_images={config.test_images}: lower it, or leave it out for all"
        raise ConfigError(msg)
    tested = slice(0, config.test_images or tests)
    held_out = slice(0, count) if config.overfit else slice(kept, None)
    return Split(
        dataset.x_train[:count],
        dataset.y_train[:count],
        dataset.x_train[held_out],
        dataset.y_train[held_out],
        dataset.x_test[tested],
        dataset.y_test[tested],
    )


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
    """Return a short digest of a data set: all labels, every 50th image, how they are normalised."""
    digest = hashlib.blake2b(digest_size=16)
    for labels in (dataset.y_train, dataset.y_test):
        digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    for images in (dataset.x_train, dataset.x_test):
        digest.update(np.ascontiguousarray(images[::50]).tobytes())
    digest.update(repr((tuple(map(float, dataset.mean)), tuple(map(float, dataset.std)))).encode())
    return digest.hexdigest()


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
