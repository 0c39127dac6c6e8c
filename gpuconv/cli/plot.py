"""`gpuconv plot`: the curves of a run, as a picture, as text, or in its report."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .parser import named_path


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "plot",
        help="curves of a run as a picture or as text; its report",
        description=(
            "Show the curves of a run, finished or not: in the terminal, or as a picture,\n"
            "which needs matplotlib (extra plots)."
        ),
    )
    parser.add_argument("run_path", metavar="RUN", type=named_path, help="run folder")
    parser.add_argument("--save", metavar="FILE", type=named_path, help="picture to write: .png, .svg or .pdf")
    parser.add_argument("--report", action="store_true", help="write report.html in the run folder anew")
    parser.add_argument("--text", action="store_true", help="in the terminal, also if something is written")
    parser.set_defaults(run=_plot)


def _plot(arguments: argparse.Namespace) -> int:
    from ..show import curves, plots
    from ..show.run import Run

    run = Run(arguments.run_path)
    if arguments.save is not None:
        plots.check(arguments.save)
        plots.save(run.plot(), arguments.save)
        sys.stdout.write(f"{arguments.save} is written\n")
    if arguments.report:
        sys.stdout.write(f"{run.report()} is written\n")
    if arguments.text or not (arguments.report or arguments.save):
        sys.stdout.write(curves.text(run) + "\n")
    return 0
