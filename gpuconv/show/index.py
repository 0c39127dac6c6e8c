"""index.html: the runs of a folder in one page that opens offline, each with its curve and a way to its report."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from .. import bounded, durable
from ..folders import quoted
from ..runs.folder import PLAN
from ..runs.overview import Entry, overview
from . import html
from .words import duration

NAME = "index.html"

_MARK = '<meta name="generator" content="gpuconv">'
_WIDTH, _HEIGHT = 96, 24
_STYLE = """
.spark { width: 96px; height: 24px; display: block; } .spark path { fill: none; stroke: var(--a); stroke-width: 1.6; }
td.in { padding-left: 20px; } a { color: var(--a); } main { max-width: 1300px; }
"""


def is_ours(path: Path) -> bool:
    """Return whether a page was written by gpuconv, which alone may be written anew."""
    try:
        return _MARK.encode() in bounded.read(path, bounded.LOG)
    except OSError:
        return False


def page_of(run: Path) -> Path:
    """Return where the page is that lists a run: beside its folder, or beside that of the several it is one of."""
    folder = run.resolve().parent
    return (folder.parent if (folder / PLAN).exists() else folder) / NAME


def write(folder: Path) -> Path:
    """Write the page of a folder of runs and return its path; raise CheckpointWriteError if that fails."""
    path = folder / NAME
    durable.write(path, page(folder, overview(folder)).encode())
    return path


def page(folder: Path, entries: Sequence[Entry]) -> str:
    """Return the page as HTML; entries as `overview` gives them."""
    now = datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="minutes").removesuffix("+00:00")
    title = escape(f"runs in {folder.resolve().name}")
    rows = [
        row
        for entry in entries
        for row in (_row(entry, ""), *(_row(run, f"{entry.name}/") for run in entry.runs or []))
    ]
    head = ["run", "state", "curve", "net", "data", "epochs", "validation", "test", "time", "parameters", "begun (UTC)"]
    table = html.table(head, rows, numbers=6) if rows else "<p>None yet.</p>"
    best = max(
        (entry for entry in entries if entry.test is not None), key=lambda entry: entry.test or 0.0, default=None
    )
    tiles = [("runs", str(len(entries)))]
    running = sum(entry.state == "running" for entry in entries)
    tiles += [("running", str(running))] if running else []
    tiles += [("highest test accuracy", f"{best.test:.2%}")] if best is not None else []
    boxes = "".join(
        f'<div class="tile"><div class="label">{label}</div><div class="number">{value}</div></div>'
        for label, value in tiles
    )
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{_MARK}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>\n{style}{_STYLE}</style></head>\n<body><main>\n"
        f"<header><h1>{title}</h1><p>as of {now} UTC; anew: gpuconv runs {escape(quoted(folder.name))} --index</p></header>"
        f'<div class="tiles">{boxes}</div><section>{table}</section>\n</main></body></html>\n'
    )


def _row(entry: Entry, above: str) -> list[str]:
    name = escape(entry.name)
    report = entry.path / html.NAME
    if report.is_file():
        name = f'<a href="{quote(f"{above}{entry.name}/{html.NAME}")}">{name}</a>'
    count = f"{entry.epochs}/{'?' if entry.planned is None else entry.planned}"
    began = (
        ""
        if entry.began is None
        else datetime.datetime.fromtimestamp(entry.began, datetime.UTC).strftime("%Y-%m-%d %H:%M")
    )
    return [
        f"&emsp;{name}" if above else name,
        escape(entry.state) + (f" <small>({escape(entry.problem)})</small>" if entry.problem else ""),
        _spark(entry.curve),
        escape(entry.net),
        escape(entry.data),
        count if entry.runs is None else f"{count} runs",
        _share(entry.validation),
        _share(entry.test),
        duration(entry.seconds) if entry.seconds else "",
        "" if entry.parameters is None else f"{entry.parameters:,}",
        began,
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _spark(points: Sequence[tuple[float, float]]) -> str:
    """Return a curve of accuracy, from its lowest to its highest, without words."""
    if len(points) < 2:
        return ""
    xs, ys = zip(*points, strict=True)
    low, high = min(ys), max(ys)
    places = (
        ((x - xs[0]) / ((xs[-1] - xs[0]) or 1) * (_WIDTH - 2) + 1, (high - y) / ((high - low) or 1) * (_HEIGHT - 4) + 2)
        for x, y in points
    )
    path = "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in places)
    words = f"accuracy from {low:.2%} to {high:.2%}"
    return (
        f'<svg class="spark" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{words}"><path d="{path}"/></svg>'
    )
