"""Paths as people name them, and where the package keeps what can be fetched or made again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .errors import ConfigError


def path_of(name: str | os.PathLike[str], what: str = "the path") -> Path:
    """Return a path that somebody named, with a home folder in the place of ~ or ~user; ConfigError if there is none.

    what: what the path is of, for that error.   To do it twice is the same as once: ./~x, a file of one's own, comes
    as a whole path, for pathlib knows no other way to tell it from ~x.
    """
    text = os.fspath(name)
    if not text.startswith("~"):
        path = Path(text)
        return Path.cwd() / path if path.parts and path.parts[0].startswith("~") else path
    expanded = os.path.expanduser(text)  # noqa: PTH111 - Path.expanduser takes ./~x for ~x
    if expanded == text:
        user = Path(text).parts[0][1:]
        missing = f"there is no user {user}" if user else "this user has no home folder"
        msg = f"{what} {text} cannot be found, for {missing}: write it in full, or as ./{text} if ~ is part of a name"
        raise ConfigError(msg)
    return Path(expanded)


def is_folder(path: Path) -> bool:
    """Return whether there is such a folder; no path is too long or odd to ask."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def cache_folder() -> Path:
    """Return the folder for downloads and compiled loops: GPUCONV_CACHE, else gpuconv in this user's cache folder.

    Raises ConfigError if that is in a home folder and there is none.
    """
    chosen = os.environ.get("GPUCONV_CACHE")
    if chosen:
        return path_of(chosen, "the cache folder (environment variable GPUCONV_CACHE)")
    # A relative XDG path is to be ignored, by its own specification.
    base = Path(os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / "gpuconv"
    try:
        return Path.home() / ".cache" / "gpuconv"
    except RuntimeError:
        msg = "this user has no home folder to keep a cache in: name one by the environment variable GPUCONV_CACHE"
        raise ConfigError(msg) from None
