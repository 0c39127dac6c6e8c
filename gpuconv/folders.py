"""Where the package keeps what can be fetched or made again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for downloads and compiled loops: GPUCONV_CACHE, else gpuconv in this user's cache folder."""
    chosen = os.environ.get("GPUCONV_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    # A relative XDG path is to be ignored, by its own specification.
    base = Path(os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "gpuconv"
