"""Line charts for a terminal, drawn without a library: in dots of braille, or in letters where those cannot be shown.

A cell of a terminal holds 2 x 4 dots, so that a chart of ten lines has forty.  Lines are told apart by colour and by what
stands at their ends; without colours every second one is dashed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import tables
from .chart import Frame, frame_of, ticks
from .curves import Line

if TYPE_CHECKING:
    from rich.text import Text

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
_FAINT = "bright_black"
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # of the dots of a cell, by row and column
_LETTERS = "*oabcd"
_MOST_OF_NAME = 16


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn.   y: how to write a value.   columns: where the axis below has words, and which."""

    title: str
    lines: Sequence[Line]
    y: Callable[[float], str]
    x: str = "epoch"
    zero: bool = False
    columns: Callable[[float, float], list[tuple[float, str]]] | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """How a terminal shows a chart."""

    braille: bool = True
    colour: bool = True


def draw(chart: Chart, width: int, height: int, style: Style) -> list[Text]:
    """Return a chart as so many lines of text, each of at most so many columns; a chart without points is two lines."""
    from rich.text import Text

    lines = [line for line in chart.lines if line.points]
    frame = frame_of(lines, zero=chart.zero)
    title = Text(chart.title, "bold" if style.colour else "")
    if any(line.style == "faint" for line in lines):
        title.append(
            "  (faint: each step)" if style.colour and style.braille else "  (.: each step)",
            _FAINT if style.colour else "",
        )
    if frame is None:
        return [title, Text("nothing yet")]
    named = [line for line in lines if line.style != "faint"]
    words = [
        f" {line.end or f'{tables.shortened(line.name, _MOST_OF_NAME)} {chart.y(line.points[-1][1])}'}"
        for line in named
    ]
    levels = {level: chart.y(level) for level in frame.rows}
    left = max(map(tables.width, levels.values()))
    across = max(8, width - left - 1 - max(map(tables.width, words), default=0))
    down = height - 3
    cells, colours = _cells(frame, lines, named, across, down, style)
    edges = "│├└─┴" if style.braille else "|++-+"

    def row_of(value: float) -> float:
        return min(down - 1.0, max(0.0, (frame.high - value) / (frame.high - frame.low) * (down - 1)))

    labels = {round(row_of(level)): word for level, word in levels.items()}
    ends = _spread([row_of(line.points[-1][1]) for line in named], down)
    rows = [title]
    for row in range(down):
        text = Text(f"{labels.get(row, ''):>{left}}{edges[row in labels]}")
        for letter, colour in zip(cells[row], colours[row], strict=True):
            text.append(letter, colour)
        for number, end in enumerate(ends):
            if end == row:
                text.append(words[number], _colour(number, style))
        rows.append(text)
    return rows + _axis(chart, frame, across, left, edges)


def _cells(
    frame: Frame, lines: Sequence[Line], named: Sequence[Line], across: int, down: int, style: Style
) -> tuple[list[list[str]], list[list[str]]]:
    """Return the letters of a chart and their colours: what is faint only where nothing else is."""
    fine = (4, 2) if style.braille else (1, 1)
    shape = down * fine[0], across * fine[1]
    letters = [[" "] * across for _ in range(down)]
    colours = [[""] * across for _ in range(down)]
    taken = np.zeros((down, across), np.int64)
    for line in sorted(lines, key=lambda line: line.style != "faint"):
        faint = line.style == "faint"
        number = 0 if faint else named.index(line)
        dots = _dots(frame, line, shape, dashed=style.braille and not style.colour and number % 2 == 1)
        marks = (dots.reshape(down, fine[0], across, fine[1]) * _BITS[: fine[0], None, : fine[1]]).sum(axis=(1, 3))
        for row, column in zip(*np.nonzero(marks), strict=True):
            if faint:
                shown = marks[row, column]
            else:
                taken[row, column] |= marks[row, column]
                shown = taken[row, column]
            letters[row][column] = (
                chr(0x2800 + shown) if style.braille else "." if faint else _LETTERS[number % len(_LETTERS)]
            )
            colours[row][column] = (_FAINT if style.colour else "") if faint else _colour(number, style)
    return letters, colours


def _dots(frame: Frame, line: Line, shape: tuple[int, int], *, dashed: bool) -> np.ndarray:
    """Return which dots a line goes through; what runs out of the frame is cut off."""
    points = np.array(line.points, float)
    xs = (points[:, 0] - frame.left) / (frame.right - frame.left) * (shape[1] - 1)
    ys = (frame.high - points[:, 1]) / (frame.high - frame.low) * (shape[0] - 1)
    steps = (
        np.maximum(np.abs(np.diff(xs)), np.abs(np.diff(ys))).clip(max=10 * max(shape)) if len(xs) > 1 else np.empty(0)
    )
    between = [
        np.linspace((xs[n], ys[n]), (xs[n + 1], ys[n + 1]), int(np.ceil(count)) + 1) for n, count in enumerate(steps)
    ]
    places = np.concatenate([*between, np.stack([xs[-1:], ys[-1:]], axis=1)])
    at = np.round(places).astype(int)
    if len(xs) == 1:  # a point alone is easily missed
        at = at + np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    if dashed and len(xs) > 1:
        at = at[at[:, 0] % 4 < 2]
    inside = (at[:, 0] >= 0) & (at[:, 0] < shape[1]) & (at[:, 1] >= 0) & (at[:, 1] < shape[0])
    dots = np.zeros(shape, bool)
    dots[at[inside, 1], at[inside, 0]] = True
    return dots


def _axis(chart: Chart, frame: Frame, across: int, left: int, edges: str) -> list[Text]:
    """Return the axis below a chart and its words."""
    from rich.text import Text

    line, words, end = [edges[3]] * across, [" "] * (left + 1 + across), -1
    for value, word in (chart.columns or _whole)(frame.left, frame.right):
        column = round((value - frame.left) / (frame.right - frame.left) * (across - 1))
        start = min(max(0, left + 1 + column - (len(word) - 1) // 2), len(words) - len(word))
        if start <= end:
            continue
        line[column] = edges[4]
        words[start : start + len(word)] = word
        end = start + len(word)
    text = "".join(words).rstrip()
    return [Text(f"{'':>{left}}{edges[2]}{''.join(line)}"), Text(f"{text}  {chart.x}")]


def _whole(left: float, right: float) -> list[tuple[float, str]]:
    """Return whole numbers between two, fractions where there are too few of them."""
    for whole in (True, False):
        found = [(value, f"{value:g}") for value in ticks(left, right, whole=whole) if left <= value <= right]
        if len(found) > 1:
            break
    return found


def _spread(wanted: Sequence[float], count: int) -> list[int]:
    """Return rows for words that are wanted in rows, in the same order and none in that of another."""
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    rows: list[int] = []
    for number in order:
        rows.append(max(round(wanted[number]), rows[-1] + 1 if rows else 0))
    for place in reversed(range(len(rows))):  # what was pushed out at the bottom pushes up what is above it
        rows[place] = min(rows[place], count - 1 if place == len(rows) - 1 else rows[place + 1] - 1)
    return [rows[order.index(number)] for number in range(len(wanted))]


def _colour(number: int, style: Style) -> str:
    return _COLOURS[number % len(_COLOURS)] if style.colour else ""
