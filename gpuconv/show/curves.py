"""The curves of a run: lines of points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..runs.reading import Reading

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; style is a CSS class: "a", "b", or "faint" for what lies behind them.

    end: what stands at its end in a terminal, in place of its name and its last value.
    """

    name: str
    points: Points
    style: str = "a"
    end: str = ""


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
