"""Which version of the package this is."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path


def gpuconv_version() -> str:
    """Return the version of this package, installed or run from its source tree."""
    try:
        return importlib.metadata.version("gpuconv")
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return "unknown"
    return project["version"] if project.get("name") == "gpuconv" else "unknown"
