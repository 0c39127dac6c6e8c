"""Where a run was begun: the folder that relative paths in its settings start from."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Any, TypedDict

from .. import bounded, durable
from ..data.sources import is_path
from ..errors import ConfigError
from ..folders import is_folder
from . import records
from .config import Config

ORIGIN = "origin.json"


class Origin(TypedDict):
    """What the file holds."""

    folder: str


def write_origin(folder: Path) -> None:
    """Note in a run folder that its run is begun in the working directory; of a run inside that, as a way up from it.

    So both may be moved together.  Nothing is noted where the working directory has been deleted.
    """
    with contextlib.suppress(FileNotFoundError):
        start, folder = Path.cwd(), folder.resolve()
        origin = os.path.relpath(start, folder) if folder.is_relative_to(start) else str(start)
        durable.write(folder / ORIGIN, json.dumps({"folder": origin}, ensure_ascii=False).encode() + b"\n")


def located(config: Config, folder: Path) -> Config:
    """Return the settings of a run with the relative paths of data and weights that lie where it was begun made whole.

    They stay as they are where that is the working directory, or not known: a damaged file is as good as none.
    """
    start = _start(folder)
    if start is None or start.samefile(os.curdir):
        return config
    whole = _whole(config, start)
    return dataclasses.replace(config, **{name: path for name, path in whole.items() if Path(path).exists()})


def same_paths(config: Config, folder: Path) -> Config:
    """Return the settings of a run with every path made whole, so that two spellings of one can be compared."""
    return dataclasses.replace(config, **_whole(config, _start(folder) or Path.cwd()))


def _start(folder: Path) -> Path | None:
    """Return the folder where a run was begun; None if it is not known or gone."""
    origin: Any = bounded.json_object(folder / ORIGIN)
    try:
        records.check("", origin, Origin)
    except ConfigError:
        return None
    start = (folder / origin["folder"]).absolute()
    return start if is_folder(start) else None


def _whole(config: Config, start: Path) -> dict[str, Any]:
    """Return the paths in settings, but for those in home folders, as they are from a folder."""
    paths = {"data": config.data if is_path(config.data) else "", "data_dir": config.data_dir}
    paths["weights"] = config.weights
    return {name: str((start / path).resolve()) for name, path in paths.items() if path and not path.startswith("~")}
