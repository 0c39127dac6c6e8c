"""Runs in a table as wide as the terminal: the columns that one looks for first, and others where there is room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .. import tables
from ..folders import quoted
from ..plural import counted
from ..runs.overview import Entry
from .words import duration

_MOST_INSIDE = 12  # runs of one recipe that are listed below it
_LEAST_OF_WORDS = 7  # columns that a net's name, or a data set's, is never cut below
_LEAST_OF_RUN = 16  # nor that of a run, by which it is told from others
_GIVES_WAY = ("data", "net", "valid.", "age")  # in the order in which columns are left out of a narrow terminal
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
    words = {
        "run": [f"{'  ' * depth}{tables.printable(entry.name)}" for depth, entry in rows],
        "state": [entry.state for _, entry in rows],
        "net": [entry.net for _, entry in rows],
        "data": [entry.data for _, entry in rows],
    }
    numbers = {title: [cell(entry) for _, entry in rows] for title, cell in _COLUMNS}

    def wanted(*, cut: bool) -> int:
        least = [
            min(_width(title, cells), _least(title)) if cut else _width(title, cells) for title, cells in words.items()
        ]
        each = [*least, *(_width(title, cells) for title, cells in numbers.items())]
        return sum(each) + _GAP * (len(each) - 1)

    for title in _GIVES_WAY:
        if wanted(cut=True) > columns:
            words.pop(title, None)
            numbers.pop(title, None)
    for title, cell in _MORE:
        more = [cell(entry) for _, entry in rows]
        if any(more) and wanted(cut=False) + _GAP + _width(title, more) <= columns:
            numbers[title] = more
    widths = _cut({title: _width(title, cells) for title, cells in words.items()}, wanted(cut=False) - columns)
    shown = [[title, *(tables.shortened(cell, widths[title]) for cell in cells)] for title, cells in words.items()]
    shown += [[title, *cells] for title, cells in numbers.items()]
    lines = tables.columns(list(zip(*shown, strict=True)), numbers=len(numbers))
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
            notes.append(f"{entry.name} holds {len(inside)} runs: gpuconv runs {quoted(entry.path)} lists them")
        notes += [f"{one.path}: {one.problem}" for one in (entry, *inside) if one.problem]
    return rows, notes


def _width(title: str, cells: Sequence[str]) -> int:
    return max(map(tables.width, (title, *cells)))


def _least(title: str) -> int:
    return _LEAST_OF_RUN if title == "run" else _LEAST_OF_WORDS


def _cut(widths: dict[str, int], excess: int) -> dict[str, int]:
    """Return the widths of columns of words with so many columns less: the widest give way, but not below a few letters."""
    left = dict(widths)
    for _ in range(excess):
        cuttable = [title for title in left if left[title] > _least(title)]
        if not cuttable:
            break
        left[max(cuttable, key=left.__getitem__)] -= 1
    return left


def age(seconds: float) -> str:
    """Return how long ago something was, in one unit."""
    for unit, length in (("y", 365 * 86400), ("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length * (2 if unit == "y" else 1):
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
