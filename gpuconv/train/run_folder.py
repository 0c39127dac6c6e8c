"""The folder of a run: made without races, held by one process at a time, and whole after any crash.

config.toml        every setting: `gpuconv train --config` repeats the run from it
metrics.csv        one line per epoch
events.jsonl       what happened when, see journal.py
env.json           machine, versions, the environment's settings
last.safetensors   where to go on from
best.safetensors   the epoch with the best validation accuracy; of a run with an average of weights, the average
result.json        the outcome, with data set, machine and versions; there when the run is finished
report.html        all of it to look at, in one file
tensorboard/       events for TensorBoard, if asked for
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .. import durable
from ..errors import CheckpointWriteError, ConfigError
from .config import Config, read, to_toml

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

COLUMNS = (
    "epoch",
    "step",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "seconds",
)


class RunFolder:
    """An existing run folder, locked until `close` or the end of a `with` block."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            msg = f"there is no run folder {path}"
            raise ConfigError(msg)
        self.path = path
        self.last = path / "last.safetensors"
        self.best = path / "best.safetensors"
        self._metrics = path / "metrics.csv"
        self._result = path / "result.json"
        self._lock = _lock(path)
        durable.remove_stale(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes use the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write_config(self, config: Config) -> None:
        """Write config.toml."""
        durable.write(self.path / "config.toml", to_toml(config).encode())

    def read_config(self) -> Config:
        """Return the settings in config.toml."""
        return read(self.path / "config.toml")

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.csv anew: a resumed run starts with the lines that its checkpoint knows."""
        durable.write(self._metrics, _csv([dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]))

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add the line of one epoch to metrics.csv."""
        try:
            with self._metrics.open("ab") as file:
                file.write(_csv([row]))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            msg = f"{self._metrics} could not be written ({error.strerror or error})"
            raise CheckpointWriteError(msg) from error

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json."""
        text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
        # Lists of numbers on one line each: a confusion matrix then looks like one.
        text = re.sub(r"\[\n\s+([-+.\deE,\s]+?)\n\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
        durable.write(self._result, text.encode() + b"\n")

    def read_result(self) -> dict[str, Any] | None:
        """Return what result.json holds, or None if the run is not finished or the file is damaged."""
        try:
            result = json.loads(self._result.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return result if isinstance(result, dict) else None


def create(path: Path | None, *, runs: Path, name: str) -> RunFolder:
    """Make a new run folder: path itself, or the first free runs/<name>-<number>; raise ConfigError if that fails.

    Of two processes that ask at once, each gets a folder of its own.
    """
    try:
        if path is not None:
            if path.is_dir() and any(path.iterdir()):
                raise _in_use(path)
            path.mkdir(parents=True, exist_ok=True)
            folder = RunFolder(path)
            if any(entry.name != ".lock" for entry in path.iterdir()):  # someone else was faster, and is gone again
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


def _in_use(path: Path) -> ConfigError:
    return ConfigError(f"{path} already holds files: continue it with --resume {path}, or choose another folder")


def _lock(path: Path) -> int | None:
    """Return the descriptor that holds the folder's lock; the system lets it go when the process ends, however."""
    try:
        descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        msg = f"{path} cannot be written to ({error.strerror or error})"
        raise ConfigError(msg) from error
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        msg = f"{path} is in use by another gpuconv process, or cannot be locked ({error.strerror or error})"
        raise ConfigError(msg) from error
    return descriptor


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(["" if row[column] is None else row[column] for column in COLUMNS])
    return text.getvalue().encode()
