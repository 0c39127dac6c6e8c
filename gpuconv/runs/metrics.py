"""metrics.csv: one line per epoch, written, read, and shown in notebooks."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from .. import tables

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


def lines(rows: Sequence[Mapping[str, Any]], *, head: bool = False) -> bytes:
    """Return epochs as lines of the file, below its first line if that is wanted, too."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if head:
        writer.writerow(COLUMNS)
    writer.writerows(["" if row[column] is None else row[column] for column in COLUMNS] for row in rows)
    return text.getvalue().encode()


def read(content: bytes) -> list[dict[str, Any]]:
    """Return the epochs in the file as numbers, None where there is none; raise ValueError for anything else."""
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))
        return [{name: _number(text) for name, text in row.items()} for row in rows]
    except (TypeError, csv.Error) as error:
        raise ValueError from error


def _number(text: str | None) -> float | None:
    """Return a cell of metrics.csv: an int where it is one."""
    if text is None:
        raise TypeError
    if text == "":
        return None
    return int(text) if text.isdecimal() else float(text)


def html(name: str, state: str, rows: list[dict[str, Any]]) -> str:
    """Return an HTML table of a run's epochs, for notebooks."""
    shown = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds")
    head = [column.replace("_", " ") for column in shown]
    return tables.html(name, state, head, [[_cell(column, row[column]) for column in shown] for row in rows])


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return ""
    if column.endswith("accuracy"):
        return f"{value:.2%}"
    return f"{value:.4f}" if column.endswith("loss") else f"{value:g}"
