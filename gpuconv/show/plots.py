"""Curves of runs as pictures, by matplotlib (extra `plots`); imported only when a picture is asked for."""

from __future__ import annotations

import functools
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import durable, extras
from ..errors import ConfigError
from ..runs.reading import Reading
from .curves import curve_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
_MOST_NAMED = 40  # classes of a confusion matrix that has their names and numbers
_DARK = 0.4  # share of a class whose cell is too dark for black numbers


def available() -> bool:
    """Tell whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def check(path: Path | None = None) -> None:
    """Raise ConfigError if pictures cannot be drawn, or not into a file of that name."""
    if path is not None and path.suffix.lower() not in SUFFIXES:
        msg = f"a picture's name must end in {', '.join(SUFFIXES)}, got {path}"
        raise ConfigError(msg)
    if not available():
        msg = f"pictures need the package matplotlib: {extras.install('plots')}"
        raise ConfigError(msg)


def curves(runs: Sequence[Reading]) -> Figure:
    """Return a Figure with loss, accuracy and learning rate over the epochs; of several runs, in a colour each.

    It belongs to no window: the state of matplotlib.pyplot is not touched.
    """
    check()
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, title in zip(panels, ("Loss", "Accuracy", "Learning rate"), strict=True):
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[1].yaxis.set_major_formatter(PercentFormatter(1.0))
    for number, run in enumerate(runs):
        _draw(panels, run, number, alone=len(runs) == 1)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    panels[2].set_ylim(bottom=0)
    # What a notebook asks for, which knows figures of its own otherwise only after %matplotlib inline.
    figure._repr_png_ = functools.partial(png, figure)  # type: ignore[attr-defined]
    return figure


def rates(values: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], chosen: float | None) -> Figure:
    """Return a Figure with the losses of steps at learning rates, up to where they blow up, and the rate that was chosen."""
    check()
    from matplotlib.figure import Figure

    count = until_it_blows_up(smoothed)
    values, losses, smoothed = values[:count], losses[:count], smoothed[:count]

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(values, losses, color="C0", alpha=0.3, linewidth=0.8, label="each step")
    axes.plot(values, smoothed, color="C0", label="smoothed")
    if chosen is not None:
        axes.axvline(chosen, color="C1", linestyle=":", label=f"lr {chosen:g}")
    if count:
        low, high = min(*losses, *smoothed), max(smoothed)
        height = (high - low) or 1.0
        axes.set_ylim(low - 0.05 * height, high + 0.25 * height)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure._repr_png_ = functools.partial(png, figure)  # type: ignore[attr-defined]
    return figure


def confusion(classes: Sequence[str], counts: np.ndarray) -> Figure:
    """Return a Figure of a confusion matrix: a row for each class, coloured by what its pictures were taken for."""
    check()
    from matplotlib.figure import Figure

    size = min(16.0, 2.5 + 0.45 * len(classes))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0.0, vmax=1.0)  # the root shows small shares
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    if len(classes) <= _MOST_NAMED:
        places = range(len(classes))
        axes.set_xticks(places, labels=classes, rotation=90)
        axes.set_yticks(places, labels=classes)
        for true, taken in zip(*np.nonzero(counts), strict=True):
            light = shares[true, taken] > _DARK
            axes.text(
                taken,
                true,
                f"{counts[true, taken]:,}",
                ha="center",
                va="center",
                fontsize=7,
                color="w" if light else "k",
            )
    figure._repr_png_ = functools.partial(png, figure)  # type: ignore[attr-defined]
    return figure


def until_it_blows_up(smoothed: Sequence[float]) -> int:
    """Return how many losses a chart shows: those after them are so much higher that nothing else would be seen."""
    if not smoothed:
        return 0
    top = 2 * smoothed[0] - min(smoothed)
    return 1 + max(place for place, loss in enumerate(smoothed) if loss <= top)


def png(figure: Figure) -> bytes:
    """Return a Figure as the bytes of a small PNG, for a notebook."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=80)
    return content.getvalue()


def _draw(panels: Sequence[Axes], run: Reading, number: int, *, alone: bool) -> None:
    """Add the lines of one run: of a single one the training's and validation's differ in colour, else in stroke."""
    styles: dict[str, dict[str, Any]] = {
        "each step": {"color": "C0", "alpha": 0.3, "linewidth": 0.8},
        "training": {"color": "C0", "marker": "."},
        "validation": {"color": "C1", "marker": "."},
        "learning rate": {"color": "C0"},
    }
    if not alone:
        colour = f"C{number}"
        styles = {
            "training": {"color": colour, "linestyle": ":", "linewidth": 1.2},
            "validation": {"color": colour, "marker": "."},
            "learning rate": {"color": colour},
        }
    for axes, lines in zip(panels, curve_lines(run), strict=True):
        for line in lines:
            if not line.points or line.name not in styles:
                continue
            across, up = zip(*line.points, strict=True)
            label = line.name if alone else f"{run.name}: {line.name}"
            axes.plot(across, up, label=label, **styles[line.name])


def save(figure: Figure, path: Path) -> None:
    """Write a Figure as .png, .svg or .pdf; equal figures give equal files."""
    import matplotlib as mpl

    content = io.BytesIO()
    kind = path.suffix.lower().removeprefix(".")
    dates = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with mpl.rc_context({"svg.hashsalt": "gpuconv"}):
        figure.savefig(content, format=kind, dpi=150, metadata=dates[kind])
    durable.write(path, content.getvalue())
