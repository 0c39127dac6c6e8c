"""Paths as people name them, and where the package keeps what can be fetched or made again."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

from .errors import ConfigError

_LONGEST_NAME, _LONGEST_PATH = 255, 4000


def path_of(name: str | os.PathLike[str], what: str = "the path") -> Path:
    """Return a path that somebody named, with a home folder in the place of ~ or ~user; ConfigError if there is none.

    what: what the path is of, for that error.   To do it twice is the same as once: ./~x, a file of one's own, comes
    as a whole path, for pathlib knows no other way to tell it from ~x.
    """
    text = os.fspath(name)
    _check_length(text, what)
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


def _check_length(text: str, what: str) -> None:
    """Raise ConfigError for a path that no file system can have: each question to one would be an error of its own."""
    longest = max((len(os.fsencode(part)) for part in re.split(r"[/\\]" if os.name == "nt" else "/", text)), default=0)
    if longest > _LONGEST_NAME or len(text) > _LONGEST_PATH or "\0" in text:
        fault = f"a name of {longest} bytes in it, and file systems take {_LONGEST_NAME}"
        if longest <= _LONGEST_NAME:
            fault = "a zero byte in it" if "\0" in text else f"{len(text)} letters, and systems take {_LONGEST_PATH}"
        msg = f"{what} {text[:60]!r}{'...' if len(text) > 60 else ''} has {fault}: choose another"
        raise ConfigError(msg)


def is_folder(path: Path) -> bool:
    """Return whether there is such a folder; no path is too long or odd to ask."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def cache_folder() -> Path:
    """Return the folder for downloads and compiled loops: GPUCONV_CACHE, else gpuconv in this user's cache folder.

    Raises ConfigError if that is in a home folder and there is none.

    >>> import os
    >>> os.environ["GPUCONV_CACHE"] = "/scratch/gpuconv"
    >>> data.cache_folder().as_posix()
    '/scratch/gpuconv'
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


def quoted(path: str | Path) -> str:
    """Return a path as a shell takes it: what stands in a command that people copy."""
    return shlex.quote(str(path))
