"""metrics.csv: one line per epoch, written, read, and shown in notebooks."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from .. import tables
from ..checks import shown
from . import records


class Row(TypedDict):
    """One epoch: a line of the file."""

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float


COLUMNS = tuple(Row.__annotations__)


def lines(rows: Sequence[Mapping[str, Any]], *, head: bool = False) -> bytes:
    """Return epochs as lines of the file, below its first line if that is wanted, too."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if head:
        writer.writerow(COLUMNS)
    writer.writerows(["" if row[column] is None else row[column] for column in COLUMNS] for row in rows)
    return text.getvalue().encode()


def read(content: bytes) -> list[dict[str, Any]]:
    """Return the epochs in the file as numbers, None where there is none; raise ValueError, in words, for anything else."""
    try:
        head, *lines = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
    except (ValueError, csv.Error) as error:
        msg = f"it is no table of numbers ({error})"
        raise ValueError(msg) from None
    if tuple(head) != COLUMNS:
        msg = f"its columns must be {', '.join(COLUMNS)}, got {shown(', '.join(head))}"
        raise ValueError(msg)
    rows = []
    for number, cells in enumerate(lines, 1):
        row = {name: _number(text) for name, text in itertools.zip_longest(COLUMNS, cells)}
        records.check(f"line {number}", row, Row)
        if len(row) > len(COLUMNS):
            msg = f"line {number} has {len(cells)} cells for {len(COLUMNS)} columns"
            raise ValueError(msg)
        rows.append(row)
    return rows


def _number(text: str | None) -> Any:
    """Return a cell of metrics.csv: an int where it is one, a text where it is no number."""
    if not text:
        return None
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return text


def html(name: str, state: str, rows: list[dict[str, Any]], *, folded: bool = False) -> str:
    """Return an HTML table of a run's epochs, for notebooks.   folded: it opens by a click."""
    shown = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds")
    head = [column.replace("_", " ") for column in shown]
    cells = [[_cell(column, row[column]) for column in shown] for row in rows]
    return tables.html(name, state, head, cells, folded="epochs" if folded else "")


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return ""
    if column.endswith("accuracy"):
        return f"{value:.2%}"
    return f"{value:.4f}" if column.endswith("loss") else f"{value:g}"
