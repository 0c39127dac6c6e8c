"""`gpuconv runs`: all runs in a folder, in a line each."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..nn import choice
from ..runs.overview import SORTED
from .parser import add_json, document, named_path

_WIDE = 1000  # columns of a file or a pipe


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "runs",
        help="all runs in a folder: state, net, data, accuracies, age",
        description=(
            "List the runs in a folder, the newest first: running, stopped, failed or done,\n"
            "how many epochs, the best validation and the test accuracy.  Runs that --seeds\n"
            "or --sweep made stand below a line with their means."
        ),
    )
    parser.add_argument(
        "folder", metavar="DIR", type=named_path, nargs="?", default=Path("runs"), help="folder of runs [runs]"
    )
    parser.add_argument("--sort", metavar="NAME", default="age", help=f"{', '.join(SORTED)} [age]")
    parser.add_argument("--index", action="store_true", help="write index.html there anew: all runs, for a browser")
    add_json(parser)
    parser.set_defaults(run=_runs)


def _runs(arguments: argparse.Namespace) -> int:
    from ..errors import ConfigError
    from ..runs.overview import in_sequence, overview
    from ..show import index, listing, screen

    if arguments.sort not in SORTED:
        raise ConfigError(choice.unknown("sort", arguments.sort, SORTED))
    folder = arguments.folder
    entries = in_sequence(overview(folder), arguments.sort)
    if arguments.index and index.page_of(folder / "run") != folder.resolve() / index.NAME:
        msg = f"--index is for a folder of runs: {folder} is one of several of one recipe"
        raise ConfigError(msg)
    if arguments.index and (folder / index.NAME).exists() and not index.is_ours(folder / index.NAME):
        msg = f"{folder / index.NAME} is not a page of gpuconv: move it away first"
        raise ConfigError(msg)
    if arguments.json:
        sys.stdout.write(document([entry.values() for entry in entries]) + "\n")
    else:
        columns = screen.size()[0] if sys.stdout.isatty() else _WIDE
        sys.stdout.write("\n".join(listing.listing(folder, entries, columns)) + "\n")
    if arguments.index:
        path = index.write(folder)
        if not arguments.json:
            sys.stdout.write(f"{path} is written\n")
    return 0
