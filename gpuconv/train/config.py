"""The settings of a run: one frozen dataclass, the presets, and the TOML file that repeats a run.

A field's default, range and help text stand here and nowhere else: the command line makes its flags from them.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import bounded, checks
from ..data.sources import NAMES, is_path
from ..errors import ConfigError, GpuconvError
from ..nn.muon import MOST_ITERATIONS
from ..nn.spec import NET_FILES
from ..ops.augmentation import PAD_MODES

_OVERFIT_STEPS = 300


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


_NETS = ("convnet", "three-layer", "vgg", "resnet9", "resnet18", "speedrun")  # each has a preset of its name


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every setting of a training run.  Construction checks each one and raises ConfigError."""

    preset: str = _setting("convnet", "the recipe the other settings start from", choices=_NETS)

    # What is trained
    net: str = _setting(
        "convnet", "the net, or a .toml or .py file that describes one", choices=_NETS, suffixes=NET_FILES
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
        "float32", "float16: weights stay float32; tf32: not built yet", choices=("float32", "tf32", "float16")
    )
    device: str = _setting("auto", "where to train", choices=("auto", "cpu", "cuda"))
    seed: int = _setting(0, "same seed, same run, bit for bit", least=0, most=2**64 - 1)

    # On what
    data: str = _setting("auto", f"{', '.join(NAMES)}, or a folder of pictures")
    data_dir: str = _setting("", "folder of CIFAR's files [GPUCONV_DATA, else the cache], or of pictures that moved")
    download: bool = _setting(True, "fetch CIFAR if it is not here")
    image_size: int = _setting(0, "scale a folder's pictures to N x N; 0: as they are", least=0)
    validation: int = _setting(
        -1,
        "last training images held out to choose the best epoch; -1: 5000, of a folder a tenth if that is less",
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
    lr_start: float = _setting(0.04, "one-cycle: first rate, as a share of lr", least=0, most=1)
    lr_end: float = _setting(0.0, "cosine, one-cycle: last rate, as a share of lr", least=0, most=1)
    lr_curve: str = _setting("linear", "one-cycle: shape of both ways", choices=("linear", "cosine"))
    lr_every: int = _setting(2, "step: epochs between two reductions", least=1)
    lr_factor: float = _setting(0.1, "step: factor of a reduction", least=0, most=1)

    tta: str = _setting("none", "second test, of averaged views", choices=("none", "flip", "flip+shift"))
    tensorboard: bool = _setting(False, "write TensorBoard events, too")
    checkpoint_every: int = _setting(0, "save after every N steps, too; 0: only after epochs", least=0)

    def __post_init__(self) -> None:
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
            raise ConfigError(msg)
        if self.window % 2 == 0:
            msg = f"window must be odd, got {self.window}: the convolution keeps the image size"
            raise ConfigError(msg)
        self._check_together()

    def _check_together(self) -> None:
        """Raise ConfigError for settings that exclude each other."""
        msg = ""
        if self.batch_size % self.accumulate:
            msg = f"accumulate must divide batch_size, got accumulate={self.accumulate}, batch_size={self.batch_size}"
        elif self.precision == "tf32":
            msg = "precision tf32 is not built: no kernel rounds to TF32 yet; choose float32 or float16"
        elif self.precision == "float16" and self.dtype != "float32":
            msg = f"precision float16 keeps its weights in float32: leave dtype at float32, got {self.dtype}"
        elif self.ema == 1.0:
            msg = "ema must be below 1, got ema=1.0: the average would never move"
        elif self.patience and not (self.validation or self.overfit):
            msg = f"patience={self.patience} needs validation images, got validation=0: hold some out"
        if msg:
            raise ConfigError(msg)


def preset(name: str) -> Config:
    """Return the preset of a name, or raise ConfigError with the names there are."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(_unknown("preset", name, list(PRESETS)))
    return PRESETS[name]


def from_values(values: Mapping[str, Any], base: Config | None = None) -> Config:
    """Return a Config from plain values; what they leave out comes from base, else from the preset they name."""
    names = [spec.name for spec in dataclasses.fields(Config)]
    for name in values:
        if name not in names:
            raise ConfigError(_unknown("setting", name, names))
    if base is None:
        base = preset(values.get("preset", "convnet"))
    return dataclasses.replace(base, **values)


def to_values(config: Config) -> dict[str, Any]:
    """Return every setting as a plain value: what from_values takes, TOML and JSON write."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}


def overfitting(config: Config, given: Iterable[str] = ()) -> Config:
    """Return the settings of a run that must learn its `overfit` images by heart, changed only where not `given`.

    Batches of at most as many images, nothing that makes it harder to learn them, and at least 300 steps.
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


def shareable(config: Config) -> dict[str, Any]:
    """Return the settings as anyone may see them: without data_dir, and of other paths the last part alone.

    A folder of pictures is "./<its name>", by which it stays known as a path: `from_values` takes what this returns.
    """
    values = {name: value for name, value in to_values(config).items() if name != "data_dir"}
    short = {
        name: re.split(r"[/\\]", value.rstrip("/\\"))[-1] if isinstance(value, str) else value
        for name, value in values.items()
    }
    if short["data"] != values["data"]:
        short["data"] = f"./{short['data']}"
    return short


def shown(value: object) -> str:
    """Return the value of a setting or a fact as words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value) or "-"


def read(path: Path, *, find_net: bool = True) -> Config:
    """Return the Config of a TOML file; settings it leaves out come from its preset.

    find_net: the file of a net is looked for beside this one first, and then net is the path of what was found.
    """
    try:
        config = from_values(bounded.toml(bounded.text(path)))
    except OSError as error:
        msg = f"config file {path} could not be read ({error.strerror or error})"
        raise ConfigError(msg) from None
    except ConfigError as error:
        msg = f"config file {path}: {error}"
        raise ConfigError(msg) from None
    except ValueError as error:
        msg = f"config file {path} is not TOML: {error}"
        raise ConfigError(msg) from None
    beside = path.parent / config.net
    if find_net and config.net.endswith(NET_FILES) and beside.is_file():
        return dataclasses.replace(config, net=str(beside))
    return config


def to_toml(config: Config) -> str:
    """Return the text of a TOML file that `read` turns into an equal Config."""
    return values_to_toml(to_values(config))


def values_to_toml(values: Mapping[str, Any]) -> str:
    """Return settings, as to_values gives them, as the text of a TOML file."""
    lines = ["# All settings of a gpuconv run.  Repeat it with: gpuconv train --config FILE", ""]
    lines += [f"{name} = {_toml(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def difference(old: Config, new: Config) -> str:
    """Return the settings in which two Configs differ, as words, or "" if they are equal."""
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in vars(old))
    return ", ".join(f"{name} {was!r} -> {now!r}" for name, was, now in pairs if was != now)


def _checked(spec: dataclasses.Field, value: Any) -> Any:
    """Return the value of a field in its exact type, or raise the error that says what it must be."""
    name, rule = spec.name, spec.metadata
    kind = type(spec.default)
    if kind is str:
        if not isinstance(value, str):
            msg = f"{name} must be a text, got {value!r}"
            raise ConfigError(msg)
        if rule["choices"] and value not in rule["choices"] and not value.endswith(rule["suffixes"]):
            raise ConfigError(_unknown(name, value, list(rule["choices"])))
        try:
            value.encode()
        except UnicodeEncodeError:
            msg = f"{name} must be text that UTF-8 can hold, got {value!r}"
            raise ConfigError(msg) from None
        return value
    if kind is bool:
        return checks.flag(name, value)
    if kind is tuple:
        if not isinstance(value, (tuple, list)):
            msg = f"{name} must be ints in a list, got {value!r}"
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
    if name and Path(name).is_dir():
        return f"./{name}"
    raise ConfigError(_unknown("data", name, list(NAMES)) + ", or the path of a folder of pictures")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # TOML's basic strings are JSON's, but DEL must be escaped
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)


def _unknown(what: str, name: object, known: list[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else "known: " + ", ".join(known)
    return f"{what} {name!r} is not known; {hint}"


PRESETS = {
    "convnet": Config(),
    "three-layer": Config(
        preset="three-layer",
        net="three-layer",
        optimizer="adam",
        lr=1e-3,
        epochs=8,
        crop=0,
        flip_mode="random",
        weight_decay=0.0,
    ),
    "vgg": Config(preset="vgg", net="vgg", epochs=10),
    "resnet9": Config(preset="resnet9", net="resnet9", epochs=10, batch_size=256, lr=0.2),
    "resnet18": Config(preset="resnet18", net="resnet18", epochs=10),
    # Rates, momenta and weight decay of airbench94_muon, from its sum over a batch to a mean over 512: a rate of SGD
    # grows by 512.  Filters 0.24, which Muon makes blind to that; biases 0.053 x 512 / 0.24 = 113; the head 0.67 x 512 /
    # 0.24, less the square of what its first weights are smaller by here (0.0361: 1 / 16 / sqrt 3 against 1), = 1.86.
    # Decay: 0.004 of its batch of 2000 is 2e-6 an image, 512 of them by the head's rate of 0.446, = 2.3e-3.  That run
    # decays biases, too, and freezes the whitening's after three epochs.
    "speedrun": Config(
        preset="speedrun",
        net="speedrun",
        epochs=5,
        batch_size=512,
        optimizer="muon",
        lr=0.24,
        momentum=0.85,
        affine_lr=1.86,
        bias_lr=113.0,
        weight_decay=2.3e-3,
        label_smoothing=0.2,
        warmup=0.0,
        tta="flip+shift",
    ),
}
