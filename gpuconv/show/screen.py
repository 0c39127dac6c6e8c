"""The curves of a run, or of several of one recipe, as they fit into a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import tables
from ..errors import ConfigError
from ..plural import counted
from ..runs.reading import Reading
from .canvas import Chart, Style, draw
from .curves import Line, curve_lines

if TYPE_CHECKING:
    from rich.text import Text

_ONE_COLUMN, _TWO_COLUMNS = 110, 190  # of a terminal that has room for a second chart beside the first, and a third
_THIRD_BELOW = 40  # lines that have room for a third chart below two
_LEAST, _MOST = 8, 24  # lines of a chart
_AROUND = 2  # lines: the command before, the prompt behind
_GAP = "  "
_MOST_RUNS = 6


def size() -> tuple[int, int]:
    """Return columns and lines of the terminal, or of the usual one where there is none."""
    return shutil.get_terminal_size((80, 24))


def say(lines: Iterable[str]) -> None:
    """Write lines to standard output: as they are, but broken between words where a terminal would break them anywhere."""
    if sys.stdout.isatty():
        columns = size()[0]
        lines = [part for text in lines for line in text.split("\n") for part in tables.wrapped(line, columns)]
    sys.stdout.write("\n".join(lines) + "\n")


def console() -> Any:
    """Return what writes lines with colours to standard output, as they are."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)


def style_of(console: Any) -> Style:
    """Return how a console of rich can show charts: by what its encoding and its terminal know."""
    try:
        "⣿│├└┴─".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        braille = False
    else:
        braille = os.environ.get("TERM") != "linux"  # whose font has no braille
    return Style(braille, console.color_system is not None and not console.no_color)


def of_run(run: Reading, columns: int, lines: int, style: Style) -> list[Text]:
    """Return the curves of a run in so many columns and lines; raise ConfigError if it has none yet."""
    loss, accuracy, rate = curve_lines(run)
    if not any(line.points for line in loss):
        msg = f"{run.path} has no curves yet: no step of it is done"
        raise ConfigError(msg)
    charts = [Chart("loss", loss, "{:.3g}".format), Chart("accuracy", accuracy, _percent)]
    charts.append(Chart("learning rate", rate, "{:.3g}".format, zero=True))
    return _page(f"{run.path}: {run.state}", charts, columns, lines, style)


def of_runs(folder: Path, runs: Sequence[Reading], columns: int, lines: int, style: Style) -> list[Text]:
    """Return the validation curves of several runs, or those of training where there is no validation."""
    shown = [run for run in runs if any(line.points for line in curve_lines(run)[0])][:_MOST_RUNS]
    if not shown:
        msg = f"{folder} has no curves yet: no step of its runs is done"
        raise ConfigError(msg)
    parts: list[list[Line]] = [[], []]
    names = set()
    for run in shown:
        for part, curves in zip(parts, curve_lines(run), strict=False):
            by_name = {line.name: line for line in curves if line.points}
            line = by_name.get("validation") or by_name.get("training")
            if line is not None:
                names.add(line.name)
                part.append(Line(run.name, line.points))
    what = " and ".join(sorted(names))
    done = sum(run.finished for run in runs)
    of_all = f", the first {len(shown)} with curves" if len(shown) < len(runs) else ""
    head = f"{folder}: {counted(len(runs), 'run')}, {done} finished{of_all}"
    charts = [Chart(f"{what} loss", parts[0], "{:.3g}".format), Chart(f"{what} accuracy", parts[1], _percent)]
    return _page(head, charts, columns, lines, style)


def _page(head: str, charts: Sequence[Chart], columns: int, lines: int, style: Style) -> list[Text]:
    """Return a heading and as many charts as there is room for, beside each other where it is wide."""
    from rich.text import Text

    beside = 1 if columns < _ONE_COLUMN else 2 if columns < _TWO_COLUMNS else 3
    shown = charts if beside == 3 or (beside == 1 and lines >= _THIRD_BELOW) else charts[:2]
    below = -(-len(shown) // beside)
    heading = [Text(line) for line in tables.wrapped(head, columns - 1)]
    height = min(_MOST, max(_LEAST, (lines - len(heading) - _AROUND) // below))
    width = (columns - 1 - len(_GAP) * (beside - 1)) // beside  # not to the edge, where terminals wrap
    page = heading
    for start in range(0, len(shown), beside):
        drawn = [draw(chart, width, height, style) for chart in shown[start : start + beside]]
        for row in range(max(map(len, drawn))):
            text = Text()
            for number, chart in enumerate(drawn):
                cell = chart[row] if row < len(chart) else Text()
                text.append(_GAP if number else "").append_text(cell)
                if number + 1 < len(drawn):
                    text.append(" " * (width - cell.cell_len))
            text.rstrip()
            page.append(text)
    return page


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"
