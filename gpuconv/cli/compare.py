"""`gpuconv compare`: runs side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .parser import named_path


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare",
        help="runs side by side: settings, results, what can be chance",
        description=(
            "Hold runs against the first: settings that differ, accuracies, times, classes,\n"
            "and whether the difference can be chance (McNemar's test, on the same images)."
        ),
    )
    parser.add_argument(
        "run_paths", metavar="RUN", type=named_path, nargs="+", help="run folders, two or more, or one of --seeds"
    )
    parser.add_argument("--save", metavar="FILE", type=named_path, help="picture of all curves: .png, .svg or .pdf")
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from ..runs import folder
    from ..show import compare, plots
    from ..show.run import Run

    paths: list[Path] = []
    for path in arguments.run_paths:
        several = folder.members(path)
        paths += [path] if several is None else several
    if len(paths) < 2:
        msg = f"a comparison needs two runs or more, got {', '.join(map(str, paths or arguments.run_paths))} only"
        raise ConfigError(msg)
    runs = [Run(path) for path in paths]
    if arguments.save is not None:
        plots.check(arguments.save)
    sys.stdout.write(f"{compare.compare_runs(runs)}\n")
    if arguments.save is not None:
        plots.save(plots.curves(runs), arguments.save)
        sys.stdout.write(f"\n{arguments.save} is written\n")
    return 0
