"""The folder of a run: made without races, held by one process at a time, and whole after any crash.

config.toml        every setting: `gpuconv train --config` repeats the run from it
origin.json        the folder that paths in config.toml start from
metrics.csv        one line per epoch
events.jsonl       what happened when, see journal.py
env.json           machine, versions, the environment's settings
last.safetensors   where to go on from
best.safetensors   the epoch with the best validation accuracy, of equals the lowest loss; of a run with an average of
                   weights, the average
result.json        the outcome, with data set, machine and versions; there when the run is finished
report.html        all of it to look at, in one file
<name>.toml, .py   the net, if a file describes it: a copy, which config.toml names
tensorboard/       events for TensorBoard, if asked for: settings, and below them train/, validation/, test/
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from .. import bounded, durable
from ..errors import ConfigError
from ..folders import is_folder, path_of, quoted
from ..nn.spec import NET_FILES
from . import metrics
from .config import Config
from .journal import EVENTS, TENSORBOARD
from .machine import ENVIRONMENT
from .origin import ORIGIN, located, write_origin
from .settings import read, to_toml

CONFIG = "config.toml"
PLAN = "plan.json"  # makes a folder one of several runs, see train/several.py
LOCK = ".lock"

_MEMBER = re.compile(r"(?:[a-z]\w*=[^,]+,)*(?:seed-\d+|[a-z]\w*=[^,]+)")
_NUMBER = re.compile(r"((?<![\d.])\d+(?:\.\d+)?(?:e[-+]?\d+)?)")
_WAIT = 0.05  # seconds until a folder is tried again that somebody may only look at
_TRIES = 3


class RunFolder:
    """An existing run folder, locked until `close` or the end of a `with` block."""

    def __init__(self, path: Path) -> None:
        if not is_folder(path):
            msg = f"there is no run folder {path}"
            raise ConfigError(msg)
        self.path = path
        self.last = path / "last.safetensors"
        self.best = path / "best.safetensors"
        self._metrics = path / "metrics.csv"
        self._result = path / "result.json"
        self._config = path / CONFIG
        self._lock: IO[bytes] | None = _lock(path)
        try:
            durable.remove_stale(path)
        except BaseException:  # its frames, and with them the lock, may be kept as long as anybody looks at the error
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def start(self, config: Config) -> Config:
        """Write config.toml and a copy of the net's file, if it has one; return the settings, which name the copy."""
        if not config.net.endswith(NET_FILES):
            self.write_config(config)
            return config
        name, content = self._net_file(config.net)
        config = dataclasses.replace(config, net=name)
        self.write_config(config)
        durable.write(self.path / name, content)
        return config

    def keep(self, setting: str, value: Any) -> Any:
        """Return the value of a setting for a run in here; of a net's file that is the name of a copy."""
        if setting != "net" or not value.endswith(NET_FILES):
            return value
        name, content = self._net_file(value)
        durable.write(self.path / name, content)
        return name

    def _net_file(self, net: str) -> tuple[str, bytes]:
        """Return what a copy of a net's file is called, and what is in it."""
        file = path_of(net, "the net")
        try:
            content = bounded.read(file, bounded.TEXT)
        except OSError as error:
            msg = f"net {file} could not be read ({error.strerror or error})"
            raise ConfigError(msg) from error
        return f"net-{file.name}" if file.name.lower() == self._config.name else file.name, content

    def write_config(self, config: Config) -> None:
        """Write config.toml, and origin.json unless it is there."""
        if not (self.path / ORIGIN).exists():
            write_origin(self.path)
        durable.write(self._config, to_toml(config).encode())

    def read_config(self) -> Config | None:
        """Return the settings in config.toml, with paths as `located` has them; None if there is no such file."""
        if not self._config.exists():
            return None
        return located(read(self._config, find_files=False), self.path)

    def has_events(self) -> bool:
        """Return whether a run has been begun here."""
        return (self.path / EVENTS).exists()

    def reopen(self) -> None:
        """Remove result.json and report.html: they are of a run that was finished, and it goes on."""
        durable.remove(self._result, self.path / "report.html")

    def clear(self) -> None:
        """Remove what a run without a checkpoint has left: nothing of it can be gone on with."""
        files = [self._metrics, self.path / EVENTS, self.path / ENVIRONMENT, self.path / ORIGIN]
        try:
            config = self.read_config()
        except ConfigError:  # not ours, and not to be lost
            return
        if config is not None and config.net.endswith(NET_FILES):
            files.append(self.path / Path(config.net).name)
        shutil.rmtree(self.path / TENSORBOARD, ignore_errors=True)
        durable.remove(*files, self._config)  # last: it names the others

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.csv anew: a resumed run starts with the lines that its checkpoint knows."""
        durable.write(self._metrics, metrics.lines(rows, head=True))

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add the line of one epoch to metrics.csv."""
        durable.append(self._metrics, metrics.lines([row]))

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json."""
        text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
        # Lists of numbers on one line each: a confusion matrix then looks like one.
        text = re.sub(r"\[\n\s+([-+.\deE,\s]+?)\n\s+\]", lambda match: f"[{' '.join(match[1].split())}]", text)
        durable.write(self._result, text.encode() + b"\n")

    def read_result(self) -> dict[str, Any] | None:
        """Return what result.json holds, or None if the run is not finished or the file is damaged."""
        try:
            result = bounded.from_json(bounded.text(self._result, bounded.LOG))
        except (OSError, ValueError):
            return None
        return result if isinstance(result, dict) else None


def new_folder(path: Path | None, *, runs: Path, name: str) -> RunFolder:
    """Make a new run folder: path itself, or the first free runs/<name>-<number>; raise ConfigError if that fails.

    Of two processes that ask at once, each gets a folder of its own.
    """
    try:
        if path is not None:
            if path.is_dir() and _holds_files(path):
                raise _in_use(path)
            path.mkdir(parents=True, exist_ok=True)
            folder = RunFolder(path)
            if _holds_files(path):  # someone else was faster, and is gone again
                folder.close()
                raise _in_use(path)
            return folder
        if not re.fullmatch(r"[\w][\w.+-]*", name):
            msg = f"name must be letters, digits and . + - _, starting with a letter or digit, got {name!r}"
            raise ConfigError(msg)
        runs.mkdir(parents=True, exist_ok=True)
        taken = [
            int(match[1])
            for entry in runs.iterdir()
            if (match := re.fullmatch(rf"{re.escape(name)}-(\d+)", entry.name))
        ]
        for number in itertools.count(max(taken, default=0) + 1):
            try:
                (runs / f"{name}-{number}").mkdir()
            except FileExistsError:
                continue
            return RunFolder(runs / f"{name}-{number}")
        raise AssertionError
    except OSError as error:
        msg = f"the run folder in {path or runs} could not be made ({error.strerror or error}): choose another with --run-dir"
        raise ConfigError(msg) from error


def members(path: Path) -> list[Path] | None:
    """Return the run folders that a folder of several runs holds, in the order of their numbers; None of any other.

    They are called by what is their own: seed-3, lr=0.01, or lr=0.01,seed-3.
    """
    try:
        if not (path / PLAN).is_file():
            return None
        inside = list(path.iterdir())
    except OSError as error:
        msg = f"{path} could not be read ({error.strerror or error})"
        raise ConfigError(msg) from error
    runs = [entry for entry in inside if _MEMBER.fullmatch(entry.name) and entry.is_dir()]
    return sorted(runs, key=lambda entry: in_order(entry.name))


def in_order(name: str) -> tuple[tuple[str, float], ...]:
    """Return what names are sorted by, their numbers by size: lr=0.03 before lr=0.1, vgg-2 before vgg-10."""
    parts = _NUMBER.split(name)
    numbers = [*map(float, parts[1::2]), math.inf]
    return tuple(zip(parts[::2], numbers, strict=True))


def held(path: Path) -> bool:
    """Return whether a process works on the run, or the runs, of a folder at this moment."""
    return durable.is_locked(path / LOCK)


def refuse_several(path: Path) -> None:
    """Raise ConfigError if a folder holds several runs: what is wanted is one."""
    runs = members(path)
    if runs is not None:
        named = ", ".join(map(str, runs[:3])) + (", ..." if len(runs) > 3 else "")
        msg = f"{path} holds several runs: {named + ' (name one)' if named else 'none of them begun'}"
        raise ConfigError(msg)


def checkpoint_in(path: Path, name: str, *others: str) -> Path:
    """Return the "best" or "last" checkpoint of a run folder, or another one where that is not there.

    ConfigError, before anything is read or written, where none of them is there.
    """
    refuse_several(path)
    files = [path / f"{each}.safetensors" for each in (name, *others)]
    for file in files:
        if file.exists():
            return file
    other = path / ("best.safetensors" if name == "last" else "last.safetensors")
    way_out = f"{other} is there: name that" if other.exists() else way_to_start_again(path)
    msg = f"there is no checkpoint {files[0]}; {way_out}"
    raise ConfigError(msg)


def way_to_start_again(path: Path) -> str:
    """Return the way out where nothing in a folder can be gone on with, as the end of an error message."""
    try:
        net = read(path / CONFIG).net
        whole = not net.endswith(NET_FILES) or Path(net).is_file()
    except ConfigError:  # a run that was killed has none, or not all of one
        whole = False
    if whole:
        return f"to start again: gpuconv train --config {quoted(path / CONFIG)}"
    return (
        f"{path} has no settings to start again from, either: name another run, or start a new one with gpuconv train"
    )


def _holds_files(path: Path) -> bool:
    """Return whether there is more in a folder than a lock, which stays when nobody holds it any more."""
    return any(entry.name != LOCK for entry in path.iterdir())


def _in_use(path: Path) -> ConfigError:
    msg = f"{path} already holds files: choose another folder"
    if any((path / name).exists() for name in ("last.safetensors", "best.safetensors", PLAN)):
        msg += f", or continue what it holds with --resume {path}"
    return ConfigError(msg)


def _lock(path: Path) -> IO[bytes]:
    """Return the file that holds the folder's lock; the system lets it go when it is closed, or the process ends.

    A file and not a descriptor: an interrupt that comes before the caller has it leaves nobody to know it, and so
    closes it.
    """
    try:
        file = (path / LOCK).open("a+b", buffering=0)
    except OSError as error:
        msg = f"{path} cannot be written to ({error.strerror or error})"
        raise ConfigError(msg) from error
    try:
        _lock_soon(file)
    except OSError as error:
        file.close()
        msg = f"{path} is in use by another gpuconv process, or cannot be locked ({error.strerror or error})"
        raise ConfigError(msg) from error
    except BaseException:
        file.close()
        raise
    return file


def _lock_soon(file: IO[bytes]) -> None:
    """Lock a file that others may hold for a moment, as `held` does; OSError if it is held for longer."""
    for _ in range(_TRIES - 1):
        try:
            durable.lock(file)
        except OSError:
            time.sleep(_WAIT)
        else:
            return
    durable.lock(file)
