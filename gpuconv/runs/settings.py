"""Settings by name and on disk: the presets, plain values, the TOML file that repeats a run, what others may see."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import bounded
from ..errors import ConfigError
from ..nn import choice
from ..nn.spec import NET_FILES
from .config import OF_WEIGHTS, Config
from .origin import located
from .recipes import RECIPES

PRESETS = {name: Config(preset=name, **values) for name, values in RECIPES.items()}


def preset(name: str) -> Config:
    """Return the preset of a name, or raise ConfigError with the names there are."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(choice.unknown("preset", name, PRESETS))
    return PRESETS[name]


def run_name(config: Config) -> str:
    """Return what a run's folder is called, before its number: its net, or the file of that; of weights' net the preset.

    Of a file's name what `new_folder` takes is kept.
    """
    if config.net == OF_WEIGHTS:
        return config.preset
    if not config.net.endswith(NET_FILES):
        return config.net
    stem = re.split(r"[/\\]", config.net)[-1].rpartition(".")[0]
    return re.sub(r"[^\w.+-]+", "-", stem).lstrip(".+-") or "net"


def from_values(values: Mapping[str, Any], base: Config | None = None) -> Config:
    """Return a Config from plain values; what they leave out comes from base, else from the preset they name.

    Without either it is what `Config` takes: convnet, or the net of weights.
    """
    if base is None:
        if "preset" not in values:
            return Config(**values)
        base = preset(values["preset"])
    return dataclasses.replace(base, **values)


def to_values(config: Config) -> dict[str, Any]:
    """Return every setting as a plain value: what from_values takes, TOML and JSON write."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}


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


def difference(old: Config, new: Config) -> str:
    """Return the settings in which two Configs differ, as words, or "" if they are equal."""
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in vars(old))
    return ", ".join(f"{name} {was!r} -> {now!r}" for name, was, now in pairs if was != now)


def read(path: Path, *, find_files: bool = True) -> Config:
    """Return the Config of a TOML file; settings it leaves out come from its preset.

    find_files: the file of a net is looked for beside this one first, data and weights of a run where it was begun; net,
    data, data_dir and weights are then the paths of what was found.
    """
    what = f"config file {path}"
    _, values = bounded.toml_file(path, what)
    try:
        config = from_values(values)
    except ConfigError as error:
        msg = f"{what}: {error}"
        raise ConfigError(msg) from None
    if not find_files:
        return config
    beside = path.parent / config.net
    if config.net.endswith(NET_FILES) and beside.is_file():
        config = dataclasses.replace(config, net=str(beside))
    return located(config, path.parent)


def to_toml(config: Config) -> str:
    """Return the text of a TOML file that `read` turns into an equal Config."""
    return values_to_toml(to_values(config))


def values_to_toml(values: Mapping[str, Any]) -> str:
    """Return settings, as to_values gives them, as the text of a TOML file."""
    lines = ["# All settings of a gpuconv run.  Repeat it with: gpuconv train --config FILE", ""]
    lines += [f"{name} = {_toml(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # TOML's basic strings are JSON's, but DEL must be escaped
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)
