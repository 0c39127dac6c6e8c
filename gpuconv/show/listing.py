"""Runs in a table as wide as the terminal: the columns that one looks for first, and others where there is room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .. import tables
from ..plural import counted
from ..runs.overview import Entry
from .words import duration

_MOST_INSIDE = 12  # runs of one recipe that are listed below it
_LEAST_OF_WORDS = 7  # columns that a name is never cut below
_GAP = 2

_Cell = Callable[[Entry], str]


def _epochs(entry: Entry) -> str:
    if entry.runs is not None and entry.epochs == entry.planned:
        return counted(entry.epochs, "run")
    count = f"{entry.epochs}/{'?' if entry.planned is None else entry.planned}"
    return count if entry.runs is None else f"{count} runs"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _setting(name: str) -> _Cell:
    return lambda entry: f"{entry.settings[name]:g}" if name in entry.settings and entry.runs is None else ""


_COLUMNS: tuple[tuple[str, _Cell], ...] = (
    ("epochs", _epochs),
    ("valid.", lambda entry: _share(entry.validation)),
    ("test", lambda entry: _share(entry.test)),
    ("age", lambda entry: "-" if entry.age is None else age(entry.age)),
)
# In the order in which they are added where there is room.
_MORE: tuple[tuple[str, _Cell], ...] = (
    ("time", lambda entry: "" if not entry.seconds else duration(entry.seconds)),
    ("parameters", lambda entry: "" if entry.parameters is None else f"{entry.parameters:,}"),
    ("lr", _setting("lr")),
    ("batch", _setting("batch_size")),
    ("seed", _setting("seed")),
)


def listing(folder: Path, entries: Sequence[Entry], columns: int) -> list[str]:
    """Return a table of runs in so many columns; means of several runs of one recipe stand above these."""
    if not entries:
        return [f"no runs in {folder}: gpuconv train makes one"]
    rows, notes = _rows(entries)
    words = [["run", "state", "net", "data"]]
    words += [
        [f"{'  ' * depth}{tables.printable(entry.name)}", entry.state, entry.net, entry.data] for depth, entry in rows
    ]
    numbers = [[title, *(cell(entry) for _, entry in rows)] for title, cell in _COLUMNS]
    least = [_width([row[place] for row in words]) for place in range(4)]
    for title, cell in _MORE:
        more = [title, *(cell(entry) for _, entry in rows)]
        wanted = sum(least) + sum(map(_width, (*numbers, more))) + _GAP * (3 + len(numbers) + 1)
        if any(more[1:]) and wanted <= columns:
            numbers.append(more)
    room = columns - sum(map(_width, numbers)) - _GAP * (3 + len(numbers))
    for place, wanted in enumerate(_cut(least, room)):
        for row in words:
            row[place] = tables.shortened(row[place], wanted)
    lines = tables.columns(
        [[*row, *(column[number] for column in numbers)] for number, row in enumerate(words)], numbers=len(numbers)
    )
    lines.insert(1, "-" * max(map(tables.width, lines)))
    return [*lines, *(line for note in notes for line in tables.wrapped(note, columns, indent="  "))]


def _rows(entries: Sequence[Entry]) -> tuple[list[tuple[int, Entry]], list[str]]:
    """Return runs with how far they are set in, and what is to be said below the table."""
    rows, notes = [], []
    for entry in entries:
        rows.append((0, entry))
        inside = entry.runs or []
        if len(inside) <= _MOST_INSIDE:
            rows += [(1, run) for run in inside]
        else:
            notes.append(f"{entry.name} holds {len(inside)} runs: gpuconv runs {entry.path} lists them")
        notes += [f"{one.path}: {one.problem}" for one in (entry, *inside) if one.problem]
    return rows, notes


def _width(cells: Sequence[str]) -> int:
    return max(map(tables.width, cells))


def _cut(widths: Sequence[int], room: int) -> list[int]:
    """Return the widths of columns of words in so much room: the widest give way, but not below a few letters."""
    left = list(widths)
    while sum(left) > room and max(left) > _LEAST_OF_WORDS:
        left[left.index(max(left))] -= 1
    return left


def age(seconds: float) -> str:
    """Return how long ago something was, in one unit."""
    for unit, length in (("y", 365 * 86400), ("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length * (2 if unit == "y" else 1):
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
