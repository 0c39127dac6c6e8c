"""TensorBoard's files: the same numbers as in the journal, if they are asked for (extra `tensorboard`)."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import extras
from ..errors import CheckpointWriteError, ConfigError


def check_tensorboard() -> None:
    """Raise ConfigError if TensorBoard events cannot be written."""
    if importlib.util.find_spec("tensorboardX") is None:
        msg = f"tensorboard=True needs the package tensorboardX: {extras.install('tensorboard')}"
        raise ConfigError(msg)


class Board:
    """A TensorBoard event file.

    The records are written one by one, without tensorboardX's SummaryWriter: that names its files after the host, and
    writes them from a thread in which a full disk is not seen.
    """

    def __init__(self, folder: Path, resumed_step: int | None) -> None:
        check_tensorboard()
        from tensorboardX.proto import event_pb2, summary_pb2  # type: ignore[import-untyped]
        from tensorboardX.record_writer import RecordWriter  # type: ignore[import-untyped]

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        try:
            folder.mkdir(exist_ok=True)
            # TensorBoard reads the files of a folder in the order of their names.
            number = 1 + sum(1 for _ in folder.glob("events.out.tfevents.*"))
            self._path = folder / f"events.out.tfevents.{number:010d}"
            self._file = RecordWriter(str(self._path))
        except OSError as error:
            raise _not_written(folder, error) from error
        self._add(file_version="brain.Event:2")
        if resumed_step is not None:  # TensorBoard forgets what it read of this step and later ones
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(step=resumed_step + 1, session_log=start)

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Add one number per name; what is None, NaN or infinite is left out."""
        entries = [
            self._summary.Value(tag=name, simple_value=value)
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        ]
        self._add(step=step, summary=self._summary(value=entries))

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as error:
            raise _not_written(self._path, error) from error

    def _add(self, **fields: Any) -> None:
        try:
            self._file.write(self._event(wall_time=time.time(), **fields).SerializeToString())
            self._file.flush()
        except OSError as error:
            raise _not_written(self._path, error) from error


def _not_written(path: Path, error: OSError) -> CheckpointWriteError:
    return CheckpointWriteError(f"{path} could not be written ({error.strerror or error})")
