"""What can be set, by environment variables: see the table in README.md."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import CupyEmulatedError

_PREFIX = "CUPY_EMULATED_"
# Compute capabilities that NVRTC compiles for; what it does not know, it refuses itself.
_ARCHITECTURES = (50, 129)
_NUMBERS = {  # name -> value that counts if nothing is set, least, most
    "ARCH": (80, *_ARCHITECTURES),
    "SMS": (4, 1, 1024),
    "MEMORY": (8192, 1, 1 << 18),
    "DEVICES": (1, 1, 8),
    "TIMEOUT": (600, 1, 86400),
}
_SWITCHES = ("LAZY", "GUARD")
_TEXTS = ("TRACE", "RECORD", "CACHE")


@dataclass(frozen=True)
class Settings:
    """The settings of a process."""

    arch: int
    multiprocessors: int
    memory: int  # MiB of one device
    devices: int
    timeout: int  # seconds that one launch may take
    lazy: bool
    guard: bool
    trace: str  # "" no, "1" on stderr, else a file
    record: str  # the file that lists the kernels which are built; "" none
    cache: Path


@functools.cache
def settings() -> Settings:
    """Return the settings of this process, read once."""
    return read(os.environ)


def read(environment: Mapping[str, str]) -> Settings:
    """Return the settings that environment variables make; raise CupyEmulatedError for one that makes no sense."""
    for name in environment:
        known = (*_NUMBERS, *_SWITCHES, *_TEXTS)
        if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in known:
            msg = f"{name} is no setting; there are {', '.join(_PREFIX + n for n in known)}"
            raise CupyEmulatedError(msg)
    number = {name: _number(environment, name, *limits) for name, limits in _NUMBERS.items()}
    lazy, guard = (_switch(environment, name) for name in _SWITCHES)
    trace = environment.get(f"{_PREFIX}TRACE", "")
    record = environment.get(f"{_PREFIX}RECORD", "")
    home = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(environment.get(f"{_PREFIX}CACHE") or home / "cupy-emulated").absolute()
    return Settings(
        number["ARCH"],
        number["SMS"],
        number["MEMORY"],
        _visible(environment, number["DEVICES"]),
        number["TIMEOUT"],
        lazy,
        guard,
        trace if trace == "1" else "" if trace == "0" else _file("TRACE", trace),
        _file("RECORD", record),
        cache,
    )


def _visible(environment: Mapping[str, str], devices: int) -> int:
    """Return how many devices CUDA_VISIBLE_DEVICES leaves: as CUDA reads it, up to the first that does not exist."""
    text = environment.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return devices
    count = 0
    for name in text.split(","):
        if not (name.strip().isascii() and name.strip().isdigit() and int(name) < devices):
            break
        count += 1
    return min(count, devices)


def _file(name: str, text: str) -> str:
    """Return the whole path of a file that is to be written; "" if there is none."""
    if text and not Path(text).absolute().parent.is_dir():
        msg = f"{_PREFIX}{name}={text} is in a folder that does not exist"
        raise CupyEmulatedError(msg)
    return str(Path(text).absolute()) if text else ""


def _number(environment: Mapping[str, str], name: str, otherwise: int, least: int, most: int) -> int:
    text = environment.get(_PREFIX + name, "")
    if not text:
        return otherwise
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        msg = f"{_PREFIX}{name}={text} must be a whole number from {least} to {most}"
        raise CupyEmulatedError(msg)
    return int(text)


def _switch(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(_PREFIX + name, "")
    if text not in ("", "0", "1"):
        msg = f"{_PREFIX}{name}={text} must be 0 or 1"
        raise CupyEmulatedError(msg)
    return text == "1"
