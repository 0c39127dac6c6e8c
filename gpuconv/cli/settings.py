"""Flags that are the fields of Config, for the commands that train."""

from __future__ import annotations

import argparse
from typing import Any

from ..runs.config import Config
from ..runs.settings import from_values, read

# Which fields of Config stand under which heading of `gpuconv train --help`.
GROUPS = {
    "net": ("net", "widths", "filters", "window", "hidden", "weight_scale"),
    "data": (
        *("data", "data_dir", "download", "image_size", "skip_broken", "validation", "train_images", "test_images"),
        *("flip", "flip_mode", "crop", "pad_mode", "cutout"),
    ),
    "length": ("epochs", "max_steps", "max_minutes", "patience", "batch_size", "accumulate", "batch_norm"),
    "update": (
        *("optimizer", "momentum", "nesterov", "muon_momentum", "muon_iterations"),
        *("beta1", "beta2", "smoothing", "eps"),
        *("weight_decay", "affine_lr", "bias_lr", "label_smoothing", "clip_norm", "ema"),
    ),
    "learning rate": (
        *("lr", "schedule", "warmup", "warmup_steps", "lr_start", "lr_end", "lr_curve", "lr_every", "lr_factor"),
    ),
    "machine and arithmetic": ("device", "graph", "dtype", "precision", "seed"),
    "saving and testing": ("checkpoint_every", "tta"),
}


def add_setting(group: Any, name: str) -> None:
    """Add the flag of one field of Config; a flag that is not given is absent from the parsed arguments."""
    spec = Config.__dataclass_fields__[name]
    shown = spec.default
    if isinstance(shown, tuple):
        shown = ",".join(map(str, shown))
    settings: dict[str, Any] = {"default": argparse.SUPPRESS, "dest": name, "help": spec.metadata["help"]}
    if isinstance(spec.default, bool):
        settings["action"] = argparse.BooleanOptionalAction
        shown = "yes" if shown else "no"
    else:
        settings["type"] = _integers if isinstance(spec.default, tuple) else type(spec.default)
        text = {"data": "NAME|DIR", "weights": "RUN|FILE"}.get(name, "DIR")
        settings["metavar"] = {str: text, float: "X", int: "N", tuple: "N,N,..."}[type(spec.default)]
        if spec.metadata["choices"]:
            settings["metavar"] = "NAME"
            settings["help"] += f": {', '.join(spec.metadata['choices'])}"
        if name == "net":
            shown = f"{Config().net}, or that of --weights"
    if shown != "":
        settings["help"] += f" [{shown}]"
    group.add_argument(f"--{name.replace('_', '-')}", **settings)


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        msg = f"expected ints with commas between them, as in 32,64,128, got {text!r}"
        raise argparse.ArgumentTypeError(msg) from None


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings among the arguments of a command; a preset that is not given is None."""
    return {name: value for name, value in vars(arguments).items() if name in Config.__dataclass_fields__}


def base(arguments: argparse.Namespace, preset: str | None, settings: dict[str, Any]) -> Config:
    """Return the settings that others are changes of: of a file, a preset, or of the weights that a run starts from."""
    if arguments.config is not None:
        return read(arguments.config)
    if preset is None and settings.get("weights") and not {"net", "widths"} & set(settings):
        from ..train.weights import recipe_of

        return recipe_of(settings["weights"])
    return from_values({} if preset is None else {"preset": preset})
