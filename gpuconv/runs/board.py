"""TensorBoard's files: the same numbers as in the journal, if they are asked for (extra `tensorboard`).

train/, validation/ and test/ are runs to TensorBoard, and a number has the same tag in each, so that it draws them into one
chart.  The settings lie above them, as the plug-in for hyperparameters looks for them.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import extras
from ..errors import CheckpointWriteError, ConfigError

_PARTS = ("train", "validation", "test")
_PLUGIN = "hparams"
_LOSS, _ACCURACY = "epoch/loss", "epoch/accuracy"


def check_tensorboard() -> None:
    """Raise ConfigError if TensorBoard events cannot be written."""
    if importlib.util.find_spec("tensorboardX") is None:
        msg = f"tensorboard=True needs the package tensorboardX: {extras.install('tensorboard')}"
        raise ConfigError(msg)


class Board:
    """The files of one run.   settings: its hyperparameters."""

    def __init__(self, folder: Path, resumed_step: int | None, settings: Mapping[str, Any]) -> None:
        check_tensorboard()
        self._folder, self._resumed_step = folder, resumed_step
        self._files: dict[str, _File] = {}
        self._hparams = _File(folder, resumed_step)
        if resumed_step is None:
            for tag, content in _session(settings):
                self._hparams.plugin(tag, content)

    def step(self, step: int, values: Mapping[str, Any]) -> None:
        """Add the numbers of a training step."""
        self._of("train").scalars(step, {f"step/{name}": value for name, value in values.items()})

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Add the numbers of an epoch: its line in metrics.csv."""
        step = row["step"]
        for part in ("train", "validation"):
            values = {_LOSS: row.get(f"{part}_loss"), _ACCURACY: row.get(f"{part}_accuracy")}
            if part == "train":
                values |= {f"epoch/{name}": row.get(name) for name in ("learning_rate", "seconds")}
            self._of(part).scalars(step, values)

    def end(self, step: int, result: Mapping[str, Any]) -> None:
        """Add the outcome of the test, and that the run is over."""
        self._of("test").scalars(step, {_LOSS: result.get("test_loss"), _ACCURACY: result.get("test_accuracy")})
        self._hparams.plugin(*_over())

    def close(self) -> None:
        """Close the files."""
        for file in (*self._files.values(), self._hparams):
            file.close()

    def _of(self, part: str) -> _File:
        """Return the file of a part of the run, begun with its first number."""
        if part not in self._files:
            self._files[part] = _File(self._folder / part, self._resumed_step)
        return self._files[part]


class _File:
    """A TensorBoard event file.

    The records are written one by one, without tensorboardX's SummaryWriter: that names its files after the host, and
    writes them from a thread in which a full disk is not seen.
    """

    def __init__(self, folder: Path, resumed_step: int | None) -> None:
        from tensorboardX.proto import event_pb2, summary_pb2  # type: ignore[import-untyped]
        from tensorboardX.record_writer import RecordWriter  # type: ignore[import-untyped]

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._metadata = summary_pb2.SummaryMetadata
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
        if entries:
            self._add(step=step, summary=self._summary(value=entries))

    def plugin(self, tag: str, content: bytes) -> None:
        """Add what the plug-in for hyperparameters reads."""
        data = self._metadata.PluginData(plugin_name=_PLUGIN, content=content)
        value = self._summary.Value(tag=f"_hparams_/{tag}", metadata=self._metadata(plugin_data=data))
        self._add(step=0, summary=self._summary(value=[value]))

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


def _session(settings: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """Return which hyperparameters and results there are, and the values that this run has, by tag."""
    from tensorboardX.proto import api_pb2, plugin_hparams_pb2

    start, infos = plugin_hparams_pb2.SessionStartInfo(start_time_secs=time.time()), []
    for name, value in settings.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
            kind = "DATA_TYPE_BOOL"
        elif isinstance(value, (int, float)):
            start.hparams[name].number_value = value
            kind = "DATA_TYPE_FLOAT64"
        else:
            start.hparams[name].string_value = value if isinstance(value, str) else ", ".join(map(str, value))
            kind = "DATA_TYPE_STRING"
        infos.append(api_pb2.HParamInfo(name=name, type=api_pb2.DataType.Value(kind)))
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(group=part, tag=tag), display_name=f"{part} {tag.split('/')[1]}")
        for part in _PARTS
        for tag in (_LOSS, _ACCURACY)
    ]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    data = plugin_hparams_pb2.HParamsPluginData
    return [
        ("experiment", data(experiment=experiment).SerializeToString()),
        ("session_start_info", data(session_start_info=start).SerializeToString()),
    ]


def _over() -> tuple[str, bytes]:
    """Return the tag and the words that say that a run is over."""
    from tensorboardX.proto import api_pb2, plugin_hparams_pb2

    status = api_pb2.Status.Value("STATUS_SUCCESS")
    end = plugin_hparams_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    return "session_end_info", plugin_hparams_pb2.HParamsPluginData(session_end_info=end).SerializeToString()


def _not_written(path: Path, error: OSError) -> CheckpointWriteError:
    return CheckpointWriteError(f"{path} could not be written ({error.strerror or error})")
