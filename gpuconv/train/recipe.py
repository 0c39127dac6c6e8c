"""From settings to the things that train: which images are for what, steps, net, optimiser, schedule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import nn
from ..errors import CheckpointMismatchError, ConfigError, GpuconvError
from ..nn.from_config import build_for
from ..nn.spec import NET_FILES
from ..plural import counted
from ..runs.checkpoint import Snapshot
from ..runs.config import OF_WEIGHTS, Config
from ..runs.dataset import first_test_images, is_ours
from ..runs.settings import PRESETS

_VALIDATION = 5000
_OVERFIT_STEPS = 300
_STEPS_OF_FITTED = 8
_HIGH_LOSS = 3.0  # times that of guessing, ln(classes)
_ENOUGH_IMAGES = 8  # of a batch, for its loss to say something
_OWN_SHARE = 10  # of pictures of one's own one in so many is held out, if that is fewer


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


def overfitting(config: Config, given: Iterable[str] = ()) -> Config:
    """Return the settings of a run that must learn its `overfit` images by heart, changed only where not `given`.

    Batches of at most as many images, nothing that makes it harder to learn them, and at least 300 steps.

    >>> config = train.overfitting(train.Config(overfit=32))
    >>> config.batch_size, config.epochs, config.flip, config.weight_decay
    (32, 300, False, 0.0)
    """
    if not config.overfit:
        msg = "overfit must say how many images are to be learnt, got overfit=0"
        raise ConfigError(msg)
    batch_size = min(config.batch_size, config.overfit)
    easier: dict[str, Any] = {
        "batch_size": batch_size,
        "accumulate": config.accumulate if batch_size % config.accumulate == 0 else 1,
        "epochs": -(-_OVERFIT_STEPS // (config.overfit // batch_size)),
        "flip": False,
        "crop": 0,
        "cutout": 0,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
    }
    return dataclasses.replace(config, **{name: value for name, value in easier.items() if name not in given})


def settled(config: Config, dataset: Any) -> Config:
    """Return the settings with the number of validation images that they leave to the data."""
    if config.validation >= 0:
        return config
    if dataset.validation is not None:
        return dataclasses.replace(config, validation=dataset.validation)
    images = len(dataset.y_train)
    # One at least, so that an epoch can be chosen, but never the only one.
    count = _VALIDATION if is_ours(dataset) else min(_VALIDATION, max(images // _OWN_SHARE, 1), images - 1)
    return dataclasses.replace(config, validation=max(count, 0))


def fitted(config: Config, dataset: Any) -> Config:
    """Return the settings with batches that the training images can fill.

    Batches that are larger than all of them shrink to an eighth, but not below 8.  So do those that a preset names for
    CIFAR, if an epoch of pictures of one's own would have fewer than 8 of them; a batch of another size is kept.
    """
    images = len(split(dataset, config).y_train)
    preset_s = config.batch_size == PRESETS[config.preset].batch_size and not is_ours(dataset)
    if images // config.batch_size >= (_STEPS_OF_FITTED if preset_s else 1):
        return config
    size = min(images, config.batch_size, max(images // _STEPS_OF_FITTED, 8))
    parts = min(config.accumulate, size)
    return dataclasses.replace(config, batch_size=size - size % parts, accumulate=parts)


def split(dataset: Any, config: Config) -> Split:
    """Return the images of a run: the last `validation` training images are held out, whatever the other limits.

    With overfit=N the first N are trained on, and the very same chosen by.
    """
    config = settled(config, dataset)
    images = len(dataset.y_train)
    own = dataset.validation
    if own is not None and config.validation != own and not config.overfit:
        msg = (
            f"{dataset.name} has {counted(own, 'picture')} of its own to validate on, got validation={config.validation}: "
            "leave that out, or put the pictures to train on and to validate on into one folder"
        )
        raise ConfigError(msg)
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
        *first_test_images(dataset, config.test_images),
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


def is_far_above_guessing(config: Config, classes: int, loss: float) -> bool:
    """Return whether the loss of a step is far above that of guessing; a mean over few images can be so by chance."""
    return not config.overfit and config.batch_size >= _ENOUGH_IMAGES and loss > _HIGH_LOSS * math.log(classes)


def check_position(plan: Plan, snapshot: Snapshot) -> None:
    """Raise CheckpointMismatchError for a checkpoint whose position a run does not come to."""
    position = snapshot.position
    beyond = position.epoch > plan.epochs or position.steps > plan.steps
    if beyond or position.step > max(0, plan.steps_of(position.epoch)):
        msg = (
            f"{snapshot.path} is no checkpoint of this run: its position is step {position.step} of epoch "
            f"{position.epoch + 1}, step {position.steps} of all, and the run has {plan.epochs} epochs, {plan.steps} steps"
        )
        raise CheckpointMismatchError(msg)


def net(
    config: Config,
    input_shape: tuple[int, ...],
    classes: int,
    built: Mapping[str, Any] | None = None,
    of_weights: Mapping[str, Any] | None = None,
) -> nn.Net:
    """Return the net with its initial weights.

    built: the net's own config, from a checkpoint.  It takes the place of a file, which may have changed since, and of
    weights, which may be gone.   of_weights: the config of the net that has the weights which a run starts from.
    """
    if built is not None and (config.net == OF_WEIGHTS or config.net.endswith(NET_FILES)):
        return _build(lambda: nn.build(built))
    if config.net == OF_WEIGHTS:
        assert of_weights is not None
        return _build(
            lambda: build_for(
                of_weights, input_shape=input_shape, classes=classes, seed=config.seed, dtype=config.dtype
            )
        )
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
    """Return the learning rate as a function of the step.

    However short the run, a warm-up rises no faster than to lr in warmup_steps: a run shorter than that stays below lr.
    """
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
    curve: Callable[[int], float] = _build(lambda: nn.schedule(config.schedule, **settings))
    steps = config.warmup_steps
    if not settings.get("warmup") or round(config.warmup * plan.steps) >= steps:
        return curve
    start = config.lr_start if config.schedule == "one-cycle" else 1 / (steps + 1)
    return lambda step: min(curve(step), config.lr * (start + (1 - start) * step / steps))


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
