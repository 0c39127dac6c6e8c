"""The curves of a run: lines of points, and as text in a terminal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..runs.reading import Reading

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; style is a CSS class: "a", "b", or "faint" for what lies behind them."""

    name: str
    points: Points
    style: str = "a"


def curve_lines(run: Reading) -> tuple[list[Line], list[Line], list[Line]]:
    """Return the lines of loss, accuracy and learning rate over the epochs; points lie at the ends of epochs."""
    rows = run.metrics
    steps = [event for event in run.events if event["event"] == "step"]
    plan, epochs = run.facts.get("steps"), run.facts.get("epochs")
    per_epoch = rows[0]["step"] if rows else (plan / epochs if plan and epochs else None)

    def column(name: str) -> list[tuple[float, float]]:
        return [(row["step"] / per_epoch, row[name]) for row in rows if row[name] is not None]

    def of_steps(name: str) -> list[tuple[float, float]]:
        return [(event["step"] / per_epoch, event[name]) for event in steps if name in event]

    if not per_epoch:
        return [], [], []
    loss = [
        Line("each step", of_steps("loss"), "faint"),
        Line("training", column("train_loss"), "a"),
        Line("validation", column("validation_loss"), "b"),
    ]
    accuracy = [
        Line("training", column("train_accuracy"), "a"),
        Line("validation", column("validation_accuracy"), "b"),
    ]
    rates = of_steps("learning_rate") or column("learning_rate")
    rate = [Line("learning rate", rates)]
    return loss, accuracy, rate


def text_curve(
    points: Points, *, width: int = 60, height: int = 10, write: Callable[[float], str] = "{:.3g}".format
) -> str:
    """Return a curve as lines of text, its highest and lowest value at the left; points are evenly spaced."""
    values = [value for _, value in points]
    if not values:
        return ""
    columns = min(width, max(len(values), 1))
    edges = np.linspace(0, len(values), columns + 1).round().astype(int)
    means = [float(np.mean(values[start:stop])) for start, stop in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    rows = [round((value - low) / span * (height - 1)) if high > low else height // 2 for value in means]
    stretch = max(1, width // columns)
    labels = {height - 1: write(high), 0: write(low)} if high > low else {height // 2: write(low)}
    margin = max(map(len, labels.values()))
    lines = []
    for level in range(height - 1, -1, -1):
        marks = "".join(("*" if row == level else " ") + " " * (stretch - 1) for row in rows)
        lines.append(f"{labels.get(level, ''):>{margin}} |{marks}".rstrip())
    return "\n".join(lines)
