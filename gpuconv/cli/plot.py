"""`gpuconv plot`: the curves of a run, as a picture, as text, or in its report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..errors import ConfigError


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "plot",
        help="curves of a run as a picture or as text; its report",
        description=(
            "Show the curves of a run, finished or not: in the terminal, or as a picture,\n"
            "which needs matplotlib (pip install 'gpuconv[plots]')."
        ),
    )
    parser.add_argument("run_path", metavar="RUN", type=Path, help="run folder")
    parser.add_argument("--save", metavar="FILE", type=Path, help="picture to write: .png, .svg or .pdf")
    parser.add_argument("--report", action="store_true", help="write report.html in the run folder anew")
    parser.add_argument("--text", action="store_true", help="in the terminal, also if something is written")
    parser.set_defaults(run=_plot)


def _plot(arguments: argparse.Namespace) -> int:
    from ..show import plots
    from ..show.run import Run

    run = Run(arguments.run_path)
    if arguments.save is not None:
        plots.check(arguments.save)
    if arguments.save is not None:
        plots.save(run.plot(), arguments.save)
        sys.stdout.write(f"{arguments.save} is written\n")
    if arguments.report:
        sys.stdout.write(f"{run.report()} is written\n")
    if arguments.text or not (arguments.report or arguments.save):
        sys.stdout.write(_text(run) + "\n")
    return 0


def _text(run: Any) -> str:
    from ..show.curves import curve_lines, text_curve

    loss, accuracy, rate = curve_lines(run)
    if not any(line.points for line in loss):
        msg = f"{run.path} has no curves yet: no step of it is done"
        raise ConfigError(msg)
    parts = [f"{run.path}: {run.state}"]
    for title, lines, write in (
        ("loss", loss, "{:.3f}".format),
        ("accuracy", accuracy, "{:.1%}".format),
        ("learning rate", rate, "{:.3g}".format),
    ):
        for line in lines:
            if not line.points:
                continue
            last = write(line.points[-1][1])
            name = title if line.name == title else f"{title}, {line.name}"
            parts.append(f"{name} (last {last})\n{text_curve(line.points, height=8, write=write)}")
    return "\n\n".join(parts)
