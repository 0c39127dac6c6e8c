"""What a finished run came to: the Result that training returns, and the same as result.json."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import metrics
from .config import Config
from .evaluation import Evaluation, pack_bits
from .machine import machine, versions
from .settings import shareable

# What every result.json has; reports and comparisons rely on it.
REQUIRED = (
    *("data", "data_fingerprint", "classes", "date", "parameters", "epochs", "best_epoch", "validation_accuracy"),
    *("test_accuracy", "test_loss", "test_images", "test_right", "test_accuracy_by_class", "confusion", "mistakes"),
    *("seconds", "images_per_second"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The outcome of a finished run.  Test numbers are those of its best epoch."""

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

    def _repr_html_(self) -> str:
        return metrics.html(self.folder.name, f"test accuracy {self.test_accuracy:.2%}", self.metrics)


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


def from_record(
    folder: Path, values: Mapping[str, Any] | None, rows: list[dict[str, Any]], steps: int
) -> Result | None:
    """Return the Result of a run that is over after so many steps; None if its own result.json is still to be written.

    values: what result.json holds, if it is there.   rows: the epochs in the run's last checkpoint.
    """
    values = values or {}
    names = [name for name in Result.__dataclass_fields__ if name not in ("folder", "metrics")]
    if any(name not in values for name in names) or values["steps"] != steps:
        return None
    return Result(folder=folder, metrics=rows, **{name: values[name] for name in names})
