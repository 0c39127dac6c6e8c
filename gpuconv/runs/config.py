"""The settings of a run: one frozen dataclass that checks them.

A field's default, range and help text stand here and nowhere else: the command line makes its flags from them.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from .. import checks, tables
from ..data.sources import NAMES, folder_of_that_name, is_path
from ..errors import ConfigError, GpuconvError
from ..folders import is_folder
from ..nn import choice
from ..nn.muon import MOST_ITERATIONS
from ..nn.spec import NET_FILES
from ..ops.augmentation import PAD_MODES
from ..plural import counted
from .recipes import RECIPES


def _setting(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    most: float = math.inf,
    choices: tuple[str, ...] = (),
    suffixes: tuple[str, ...] = (),
) -> Any:
    """Return a field; a text with choices may also be a path with one of the suffixes."""
    rule = {"help": help, "least": least, "most": most, "choices": choices, "suffixes": suffixes}
    return field(default=default, metadata=rule)


SIXTEEN_BITS = ("float16", "bfloat16")  # precisions whose activations are so
_NETS = tuple(RECIPES)  # each preset is a net's, and has its name
OF_WEIGHTS = "weights"  # the net that is the one of the weights which a run starts from


@dataclass(frozen=True, kw_only=True, repr=False)
class Config:
    """Every setting of a training run.  Construction checks each one and raises ConfigError.

    net left out is "convnet"; of a run that starts from weights, and says no widths, it is "weights": the net of these.

    >>> config = train.Config(net="vgg", epochs=3)
    >>> config
    Config(net='vgg', epochs=3)
    >>> config.batch_size, config.lr
    (128, 0.1)
    >>> train.Config(epochs=0)
    Traceback (most recent call last):
        ...
    gpuconv.errors.ConfigError: epochs must be an int from 1 to 2^31 - 1, got epochs=0
    """

    preset: str = _setting("convnet", "the recipe the other settings start from", choices=_NETS)

    # What is trained
    weights: str = _setting("", "start from a run's best weights, or a checkpoint: with its net, unless one is named")
    net: str = _setting(
        "", "the net, or a .toml or .py file that describes one", choices=(*_NETS, OF_WEIGHTS), suffixes=NET_FILES
    )
    widths: tuple[int, ...] = _setting(
        (), "filters of each stage (vgg: of each convolution); left out: the net's own", least=1
    )
    filters: int = _setting(64, "three-layer: filters of the convolution", least=1)
    window: int = _setting(3, "three-layer: height and width of a filter", least=1)
    hidden: int = _setting(500, "three-layer: units of the hidden layer", least=1)
    weight_scale: float = _setting(0.0, "three-layer: spread of first weights; 0: He's", least=0)
    dtype: str = _setting("float32", "type of weights and activations", choices=("float32", "float64"))
    precision: str = _setting(
        "float32",
        "bfloat16, tf32: on a GPU; bfloat16, float16: weights stay float32",
        choices=("float32", "tf32", "float16", "bfloat16"),
    )
    device: str = _setting("auto", "where to train", choices=("auto", "cpu", "cuda"))
    graph: str = _setting(
        "auto", "on a GPU: a step as one CUDA graph; the same bits without", choices=("auto", "on", "off")
    )
    seed: int = _setting(0, "same seed, same run, bit for bit", least=0, most=2**64 - 1)

    # On what
    data: str = _setting("auto", f"{', '.join(NAMES)}, or a folder of pictures")
    data_dir: str = _setting("", "folder of CIFAR's files [GPUCONV_DATA, else the cache], or of pictures that moved")
    download: bool = _setting(True, "fetch CIFAR if it is not here")
    image_size: int = _setting(0, "scale a folder's pictures to N x N; 0: as they are, or 64 if they differ", least=0)
    skip_broken: bool = _setting(False, "leave out a folder's pictures that cannot be read")
    validation: int = _setting(
        -1,
        "last training images held out to choose the best epoch; -1: 5000, of a folder its own or a tenth if that is less",
        least=-1,
    )
    train_images: int = _setting(0, "train on the first N only; 0: all", least=0)
    test_images: int = _setting(0, "test on the first N only; 0: all", least=0)
    flip: bool = _setting(True, "mirror training images at random")
    flip_mode: str = _setting("alternate", "mirror each time at random, or in turns", choices=("random", "alternate"))
    crop: int = _setting(2, "shift training images by up to N pixels", least=0)
    pad_mode: str = _setting("reflect", "what a shift brings in: black, or the mirrored border", choices=PAD_MODES)
    cutout: int = _setting(0, "hide a square of N x N pixels of training images; 0: none", least=0)

    # For how long
    epochs: int = _setting(12, "passes over the training images", least=1)
    max_steps: int = _setting(0, "end after N steps, schedule included; 0: no limit", least=0)
    batch_size: int = _setting(128, "images per step", least=1)
    accumulate: int = _setting(1, "parts of a step, batch norm in each: less memory", least=1)
    batch_norm: str = _setting(
        "own", "over processes: each one's own statistics, or synchronised", choices=("own", "synchronised")
    )
    patience: int = _setting(0, "end after N epochs without a better validation; 0: never", least=0)
    max_minutes: float = _setting(0.0, "end after X minutes, tested and saved; 0: no limit", least=0)
    overfit: int = _setting(0, "learn the first N images by heart, as a check; 0: no", least=0)

    # How
    optimizer: str = _setting("sgd", "update rule", choices=("sgd", "rmsprop", "adam", "adamw", "muon"))
    momentum: float = _setting(0.9, "sgd, muon but for filters: share of the previous step kept", least=0, most=1)
    nesterov: bool = _setting(True, "sgd, muon: look ahead along the momentum")
    muon_momentum: float = _setting(0.6, "muon: share of the filters' previous step kept", least=0, most=1)
    muon_iterations: int = _setting(3, "muon: Newton-Schulz iterations of a step", least=1, most=MOST_ITERATIONS)
    affine_lr: float = _setting(1.0, "muon: rate of affine weights, as a multiple of lr", least=0)
    bias_lr: float = _setting(1.0, "rate of biases, gamma and beta, as a multiple of lr", least=0)
    beta1: float = _setting(0.9, "adam: share of the mean gradient kept", least=0, most=1)
    beta2: float = _setting(0.999, "adam: share of the mean square kept", least=0, most=1)
    smoothing: float = _setting(0.99, "rmsprop: share of the mean square kept", least=0, most=1)
    eps: float = _setting(1e-8, "adam, rmsprop: added to the root mean square", least=0)
    weight_decay: float = _setting(5e-4, "L2 penalty on weights; adamw: decoupled", least=0)
    clip_norm: float = _setting(0.0, "shorten longer gradients to this norm; 0: never", least=0)
    ema: float = _setting(0.0, "decay of the average of weights that is tested; 0: none", least=0, most=1)
    label_smoothing: float = _setting(0.0, "share of the target given to all classes", least=0, most=1)
    lr: float = _setting(0.1, "learning rate; of a schedule, the highest", least=0)
    schedule: str = _setting("one-cycle", "course of the rate", choices=("constant", "step", "cosine", "one-cycle"))
    warmup: float = _setting(0.3, "cosine, one-cycle: share of steps in which it rises", least=0, most=1)
    warmup_steps: int = _setting(40, "cosine, one-cycle: the rise to lr takes N steps at least", least=0)
    lr_start: float = _setting(0.04, "one-cycle: first rate, as a share of lr", least=0, most=1)
    lr_end: float = _setting(0.0, "cosine, one-cycle: last rate, as a share of lr", least=0, most=1)
    lr_curve: str = _setting("linear", "one-cycle: shape of both ways", choices=("linear", "cosine"))
    lr_every: int = _setting(2, "step: epochs between two reductions", least=1)
    lr_factor: float = _setting(0.1, "step: factor of a reduction", least=0, most=1)

    tta: str = _setting("none", "second test, of averaged views", choices=("none", "flip", "flip+shift"))
    tensorboard: bool = _setting(False, "write TensorBoard events, too")
    checkpoint_every: int = _setting(0, "save after every N steps, too; 0: only after epochs", least=0)

    def __new__(cls, **settings: Any) -> Self:
        """Refuse a setting that there is not, before the constructor does, which cannot say what may have been meant."""
        for name in settings:
            if name not in cls.__dataclass_fields__:
                raise ConfigError(choice.unknown("setting", name, cls.__dataclass_fields__))
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if self.net == "":
            object.__setattr__(self, "net", self._net_left_out())
        for spec in dataclasses.fields(self):
            try:
                object.__setattr__(self, spec.name, _checked(spec, getattr(self, spec.name)))
            except ConfigError:
                raise
            except GpuconvError as error:
                raise ConfigError(str(error)) from None
        object.__setattr__(self, "data", _data(self.data))
        if self.image_size and self.data in NAMES:
            msg = f"image_size={self.image_size} scales the pictures of a folder; data {self.data!r} has its own size"
            msg += folder_of_that_name(self.data)
            raise ConfigError(msg)
        if self.window % 2 == 0:
            msg = f"window must be odd, got {self.window}: the convolution keeps the image size"
            raise ConfigError(msg)
        self._check_together()

    def __repr__(self) -> str:
        """Print the call that makes these settings, without those that have their default value."""
        defaults = {spec.name: spec.default for spec in dataclasses.fields(self)} | {"net": self._net_left_out()}
        given = [f"{name}={value!r}" for name, value in vars(self).items() if value != defaults[name]]
        return f"Config({', '.join(given)})"

    def _repr_html_(self) -> str:
        """Show the settings that differ from the preset's, beside these."""
        usual = Config(preset=self.preset, **RECIPES[self.preset])
        pairs = ((name, value, getattr(usual, name)) for name, value in vars(self).items())
        rows = [[name, *map(tables.shown, (value, other))] for name, value, other in pairs if value != other]
        changed = counted(len(rows), "setting changed", "settings changed")
        return tables.html("Config", f"preset {self.preset}, {changed}", ["setting", "here", self.preset], rows)

    @property
    def computes_in(self) -> str:
        """The dtype of activations in training: that of the weights, or 16 bits beside float32 weights."""
        return self.precision if self.precision in SIXTEEN_BITS else self.dtype

    def _net_left_out(self) -> str:
        """Return the net where none is named: that of the weights to start from, if there are any."""
        return OF_WEIGHTS if self.weights and not self.widths else "convnet"

    def _check_together(self) -> None:
        """Raise ConfigError for settings that exclude each other."""
        msg = ""
        if self.net == OF_WEIGHTS and not self.weights:
            msg = (
                'net "weights" is that of the weights which a run starts from: name them by --weights RUN (weights=...)'
            )
        elif self.net == OF_WEIGHTS and self.widths:
            msg = 'net "weights" has its widths already: leave out widths, or name the net'
        elif self.batch_size % self.accumulate:
            msg = f"accumulate must divide batch_size, got accumulate={self.accumulate}, batch_size={self.batch_size}"
        elif self.precision == "tf32" and self.dtype != "float32":
            msg = f"precision tf32 rounds factors of float32: leave dtype at float32, got {self.dtype}"
        elif self.precision in SIXTEEN_BITS and self.dtype != "float32":
            msg = f"precision {self.precision} keeps its weights in float32: leave dtype at float32, got {self.dtype}"
        elif self.ema == 1.0:
            msg = "ema must be below 1, got ema=1.0: the average would never move"
        elif self.patience and not (self.validation or self.overfit):
            msg = f"patience={self.patience} needs validation images, got validation=0: hold some out"
        if msg:
            raise ConfigError(msg)


# What help() and editors show is the constructor's, not that of __new__ in front of it.
_init = inspect.signature(Config.__init__)
Config.__signature__ = _init.replace(parameters=list(_init.parameters.values())[1:])  # type: ignore[attr-defined]


def _checked(spec: dataclasses.Field, value: Any) -> Any:
    """Return the value of a field in its exact type, or raise the error that says what it must be."""
    name, rule = spec.name, spec.metadata
    kind = type(spec.default)
    if kind is str:
        if not isinstance(value, str):
            msg = f"{name} must be a text, got {checks.shown(value)}"
            raise ConfigError(msg)
        if rule["choices"] and value not in rule["choices"] and not value.endswith(rule["suffixes"]):
            raise ConfigError(choice.unknown(name, value, rule["choices"]))
        try:
            value.encode()
        except UnicodeEncodeError:
            msg = f"{name} must be text that UTF-8 can hold, got {checks.shown(value)}"
            raise ConfigError(msg) from None
        return value
    if kind is bool:
        return checks.flag(name, value)
    if kind is tuple:
        if not isinstance(value, (tuple, list)):
            msg = f"{name} must be ints in a list, got {checks.shown(value)}"
            raise ConfigError(msg)
        return tuple(checks.integer(name, entry, least=rule["least"]) for entry in value)
    if kind is float:
        return checks.real(name, value, low=rule["least"], high=rule["most"])
    if rule["most"] > 2**31:
        return (
            checks.word(name, value)
            if math.isfinite(rule["most"])
            else checks.integer(name, value, least=rule["least"])
        )
    return checks.integer(name, value, least=rule["least"], most=int(rule["most"]))


def _data(name: str) -> str:
    """Return the name of a data set, or the path of a folder with a separator, by which it stays known as a path."""
    if name in NAMES or is_path(name):
        return name
    if name and is_folder(Path(name)):
        return f"./{name}"
    raise ConfigError(choice.unknown("data", name, NAMES) + ", or the path of a folder of pictures")
