"""`gpuconv compare`: runs side by side."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..errors import ConfigError
from .parser import add_json, document, named_path


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare",
        help="runs side by side: settings, results, what can be chance",
        description=(
            "Hold runs against the first: settings that differ, accuracies, times, classes,\n"
            "and whether the difference can be chance (McNemar's test, on the same images).\n"
            "A folder of --seeds stands for its mean (Welch's test), one of --sweep for each\n"
            "of its combinations; alone, for its runs."
        ),
    )
    parser.add_argument(
        "run_paths",
        metavar="RUN",
        type=named_path,
        nargs="+",
        help="run folders, two or more, or one of --seeds, --sweep",
    )
    parser.add_argument("--save", metavar="FILE", type=named_path, help="picture of all curves: .png, .svg or .pdf")
    add_json(parser)
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from ..show import index, plots, screen, sides
    from ..show.run import Run

    # What a shell makes of runs/* holds the page of them, too.
    paths = [path for path in arguments.run_paths if path.name != index.NAME or not index.is_ours(path)]
    found = sides.sides_of(paths, Run)
    if len(found) < 2:
        named = ", ".join([str(run.path) for side in found for run in side.runs] or map(str, arguments.run_paths))
        msg = f"a comparison needs two runs or more, got {named} only"
        raise ConfigError(msg)
    if arguments.save is not None:
        plots.check(arguments.save)
    if arguments.json:
        sys.stdout.write(document(sides.values(found)) + "\n")
    else:
        columns = screen.size()[0] if sys.stdout.isatty() else None
        screen.say([sides.compare_sides(found, columns)])
    if arguments.save is not None:
        plots.save(plots.curves([run for side in found for run in side.runs]), arguments.save)
        if not arguments.json:
            sys.stdout.write(f"\n{arguments.save} is written\n")
    return 0
