"""What a finished run came to: the Result that training returns, and the same as result.json."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from ..errors import ConfigError
from . import metrics, records
from .config import Config
from .evaluation import Evaluation, pack_bits
from .machine import Machine, machine, versions
from .settings import shareable


class _Required(TypedDict):
    data: str
    data_fingerprint: str
    classes: list[str]
    date: str
    parameters: int
    epochs: int
    best_epoch: int
    validation_accuracy: float | None
    test_accuracy: float
    test_loss: float
    test_images: int
    test_right: str
    test_accuracy_by_class: dict[str, float | None]
    confusion: list[list[int]]
    mistakes: list[tuple[int, int, int, float]]
    seconds: float
    images_per_second: float


class Record(_Required, total=False):
    """What result.json holds: first what it has always held, which reports and comparisons rely on."""

    mean: list[float]
    std: list[float]
    input_shape: list[int]
    scaling: str
    training_images: int
    validation_images: int
    steps: int
    test_accuracy_tta: float | None
    ended_by: str
    skipped_steps: int
    processes: int
    machine: Machine
    versions: dict[str, str]
    config: dict[str, Any]


_SHARES = ("validation_accuracy", "test_accuracy", "test_accuracy_tta")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Result:
    """The outcome of a finished run.  Test numbers are those of its best epoch.

    >>> pictures = data.draw_shapes(100, 40)
    >>> config = train.Config(widths=(4,), epochs=2, batch_size=20, validation=20)
    >>> result = train.train(config, folder="second", dataset=pictures, progress="none")
    >>> result.steps, result.ended_by, [row["epoch"] for row in result.metrics]
    (8, 'epochs', [1, 2])
    """

    folder: Path
    data: str
    metrics: list[dict[str, Any]]
    best_epoch: int
    validation_accuracy: float | None
    test_accuracy: float
    test_loss: float
    steps: int
    seconds: float
    images_per_second: float
    test_accuracy_tta: float | None  # with the views that config.tta asks for; None without
    ended_by: str  # "epochs", "max-steps", "max-minutes" or "patience"

    def __repr__(self) -> str:
        return f"Result({self.folder.name}: {self.state})"

    @property
    def state(self) -> str:
        """The outcome in words."""
        return f"test accuracy {self.test_accuracy:.2%}, best epoch {self.best_epoch} of {len(self.metrics)}"

    def _repr_html_(self) -> str:
        """Show the outcome, and the epochs, which training has shown one by one, on a click."""
        return metrics.html(self.folder.name, self.state, self.metrics, folded=True)


def record(result: Result, test: Evaluation, config: Config, about: Mapping[str, Any], skipped: int) -> dict[str, Any]:
    """Return what result.json holds: nothing in it tells whose machine it was.

    about: what is known of a run before its first step.   skipped: steps that made no update, in float16.
    """
    return {
        **about,
        "epochs": len(result.metrics),
        "steps": result.steps,
        "validation_accuracy": result.validation_accuracy,
        "test_accuracy": result.test_accuracy,
        "test_loss": result.test_loss,
        "test_accuracy_tta": result.test_accuracy_tta,
        "test_accuracy_by_class": dict(zip(about["classes"], test.class_accuracy, strict=True)),
        "confusion": test.confusion.tolist(),
        "mistakes": [list(mistake) for mistake in test.mistakes],
        "test_right": pack_bits(test.right),
        "best_epoch": result.best_epoch,
        "ended_by": result.ended_by,
        "skipped_steps": skipped,
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "config": shareable(config),
    }


def check_record(values: Mapping[str, Any]) -> None:
    """Raise ConfigError, which names the entry, unless this is what a result.json can hold."""
    records.check("", values, Record)
    classes, images = len(values["classes"]), values["test_images"]
    wrong = ""
    if not classes or not images:
        wrong = "classes and test_images must not be empty"
    elif [len(row) for row in values["confusion"]] != [classes] * classes:
        wrong = f"confusion must have a row and a column for each of {classes} classes"
    elif values["test_accuracy_by_class"].keys() != set(values["classes"]):
        wrong = "test_accuracy_by_class must have an entry for each of classes"
    elif any(max(true, taken) >= classes or image >= images for image, true, taken, _ in values["mistakes"]):
        wrong = f"mistakes must be among test_images={images} and {classes} classes"
    elif not _holds_bits(values["test_right"], images):
        wrong = f"test_right must hold a bit for each of test_images={images}"
    elif beyond := [name for name in _SHARES if (values.get(name) or 0) > 1]:
        wrong = f"{beyond[0]} must be a number from 0 to 1, got {values[beyond[0]]}"
    elif max((share or 0 for share in values["test_accuracy_by_class"].values()), default=0) > 1:
        wrong = "test_accuracy_by_class must be numbers from 0 to 1"
    if wrong:
        raise ConfigError(wrong)


def _holds_bits(text: str, count: int) -> bool:
    """Return whether this is what pack_bits makes of so many bools."""
    try:
        return len(base64.b64decode(text, validate=True)) == (count + 7) // 8
    except ValueError:
        return False


def from_record(
    folder: Path, values: Mapping[str, Any] | None, rows: list[dict[str, Any]], steps: int
) -> Result | None:
    """Return the Result of a run that is over after so many steps; None if its own result.json is still to be written.

    values: what result.json holds, if it is there.   rows: the epochs in the run's last checkpoint.
    """
    try:
        check_record(values or {})
    except ConfigError:
        return None
    values = values or {}
    names = [name for name in Result.__dataclass_fields__ if name not in ("folder", "metrics")]
    if any(name not in values for name in names) or values["steps"] != steps:
        return None
    return Result(folder=folder, metrics=rows, **{name: values[name] for name in names})
