"""What happens in a run, as it happens: events.jsonl and, if asked for, TensorBoard's file.

events.jsonl holds one JSON object a line: its "event", the "time" (UTC), the last "step" done and the "epoch" in
progress, both counted from 1, and values; of a run that is over, and of a line on an epoch, that epoch.
A line that a killed process left unfinished, or that says something else than `Event`, is passed over by `read`, and cut when the run goes on.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict

from .. import bounded, durable
from ..errors import ConfigError
from . import records
from .board import Board

EVENTS = "events.jsonl"
TENSORBOARD = "tensorboard"


class _Named(TypedDict):
    event: str


class Event(_Named, total=False):
    """What a line may say: of these entries each kind of event has some."""

    time: str
    step: int
    epoch: int
    message: str
    # of a start, and of an end
    data: str
    data_fingerprint: str
    classes: list[str]
    mean: list[float]
    std: list[float]
    input_shape: list[int]
    scaling: str
    training_images: int
    validation_images: int
    test_images: int
    epochs: int
    steps: int
    parameters: int
    processes: int
    # of a step
    loss: float
    accuracy: float
    # of an epoch, and of an end
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    test_accuracy: float
    test_loss: float
    test_accuracy_tta: float | None
    best_epoch: int
    ended_by: str
    skipped_steps: int
    images_per_second: float


_LONGEST_LINE = 1 << 20
_LAST_BYTES = 1 << 16  # that hold the last line, but for one with very many classes
_MOST_STEPS = 1000  # step events of a run, whatever its length: enough for a curve, and a file that stays small


class NoJournal:
    """Notes nothing: what a run without a folder has."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the TensorBoard file."""

    def step(self, step: int, epoch: int, values: Callable[[], Mapping[str, float]]) -> None:
        """Note a training step, if it is one of those written down; values is called only then.

        step, epoch: the one just done and the one it belongs to, counted from 1.
        """

    def epoch(self, row: Mapping[str, Any], *, best: bool) -> None:
        """Note the end of an epoch: row is its line in metrics.csv."""

    def end(self, result: Mapping[str, Any]) -> None:
        """Note the outcome: what of result is a number or None, and ended_by."""

    def event(self, kind: str, **values: Any) -> None:
        """Note anything else; where values say no other, step and epoch are those of the last step or epoch noted."""


class Journal(NoJournal):
    """The events of one run.  Use it in a `with` block: leaving it closes the TensorBoard file.

    steps: those of the whole run; of its training steps, about a thousand at most are written down.
    resumed_step, epochs: where the checkpoint stands that a run goes on from, and how many epochs had ended there; what
    lies after it is cut, as metrics.csv is.   epoch: the one in progress, if not the next.
    tensorboard: the settings of the run, if it writes TensorBoard's files, too.
    Every method raises CheckpointWriteError if the disk is full or the like.
    """

    def __init__(
        self,
        path: Path,
        *,
        steps: int,
        resumed_step: int | None = None,
        epochs: int = 0,
        epoch: int | None = None,
        tensorboard: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path / EVENTS
        self.every = max(1, steps // _MOST_STEPS)
        self._step, self._epoch = resumed_step or 0, epochs + 1 if epoch is None else epoch
        kept = [] if resumed_step is None else [e for e in read(path) if _lies_before(e, resumed_step, epochs)]
        durable.write(self.path, b"".join(_line(event) for event in kept))
        self._board = None if tensorboard is None else Board(path / TENSORBOARD, resumed_step, tensorboard)
        if resumed_step is not None:
            self.event("resumed")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()

    def start(self, info: Mapping[str, Any]) -> None:
        """Note what the run is: data set, net, settings."""
        self.event("start", **info)

    def step(self, step: int, epoch: int, values: Callable[[], Mapping[str, float]]) -> None:
        self._step, self._epoch = step, epoch
        if step != 1 and step % self.every:
            return
        numbers = values()
        self._write("step", {"step": step, "epoch": epoch, **numbers}, flush=False)
        if self._board is not None:
            self._board.step(step, numbers)

    def epoch(self, row: Mapping[str, Any], *, best: bool) -> None:
        self._step, self._epoch = row["step"], row["epoch"]
        self._write("epoch", row)
        if best:
            self.event("best", validation_accuracy=row["validation_accuracy"])
        if self._board is not None:
            self._board.epoch(row)

    def end(self, result: Mapping[str, Any]) -> None:
        kept = {
            name: value
            for name, value in result.items()
            if value is None or isinstance(value, (int, float)) or name == "ended_by"
        }
        self.event("end", **kept)
        if self._board is not None:
            self._board.end(self._step, result)

    def event(self, kind: str, **values: Any) -> None:
        self._write(kind, {"step": self._step, "epoch": self._epoch, **values})

    def _write(self, kind: str, values: Mapping[str, Any], *, flush: bool = True) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        durable.append(self.path, _line({"event": kind, "time": now, **values}), flush=flush)


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the events in a run folder, in order, without lines that are damaged; [] if there is no such file."""
    try:
        lines = bounded.read(folder / EVENTS, bounded.LOG).split(b"\n")
    except OSError:
        return []
    return list(_events(lines))


def _events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the events in lines, without those that are damaged."""
    for line in lines:
        try:
            event = bounded.from_json(line)
            records.check("", event, Event)
        except (ValueError, ConfigError):
            continue
        yield event


def ends(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return how a run was begun, and the last thing that happened in it, without reading what lies between; {} for none."""
    try:
        with (folder / EVENTS).open("rb") as file:
            first = file.readline(_LONGEST_LINE)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
            last = file.read(_LAST_BYTES).split(b"\n")
    except OSError:
        return {}, {}
    start = next(_events([first]), {})
    return start if start.get("event") == "start" else {}, next(_events(reversed(last)), {})


def _lies_before(event: Mapping[str, Any], step: int, epochs: int) -> bool:
    """Tell whether a checkpoint at that step, with so many epochs ended, knows of the event."""
    if event["event"] == "end":
        return False
    if event["event"] in ("epoch", "best") and event.get("epoch", 0) > epochs:
        return False
    return event.get("step", 0) <= step


def _line(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n"
