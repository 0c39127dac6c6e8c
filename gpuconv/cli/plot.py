"""`gpuconv plot`: the curves of a run, as a picture, as text, or in its report."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .parser import named_path

_WAIT = 1.0  # seconds between two looks at a run that is followed

_EXAMPLES = """\
examples:
  gpuconv plot runs/convnet-1
  gpuconv plot runs/convnet-1 --follow     in another terminal, as it is trained
  gpuconv plot runs/convnet-sweep-1 --save sweep.png
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "plot",
        help="curves of a run in the terminal or as a picture; its report",
        description=(
            "Show the curves of a run, finished or not: in the terminal, or as a picture,\n"
            "which needs matplotlib (extra plots).  Of a folder that --seeds or --sweep made,\n"
            "those of its runs."
        ),
        epilog=_EXAMPLES,
    )
    parser.add_argument("run_path", metavar="RUN", type=named_path, help="run folder")
    parser.add_argument("--follow", action="store_true", help="draw anew while the run goes on; Ctrl-C ends it")
    parser.add_argument("--save", metavar="FILE", type=named_path, help="picture to write: .png, .svg or .pdf")
    parser.add_argument("--report", action="store_true", help="write report.html in the run folder anew")
    parser.add_argument("--text", action="store_true", help="in the terminal, also if something is written")
    parser.set_defaults(run=_plot)


def _plot(arguments: argparse.Namespace) -> int:
    from ..runs.folder import members
    from ..show import plots, screen
    from ..show.run import Run

    path = arguments.run_path
    if arguments.follow and (arguments.save or arguments.report):
        msg = "--follow shows a run as it goes on: leave out --save and --report, or give them when it is over"
        raise ConfigError(msg)
    inside = members(path)
    runs = [Run(path)] if inside is None else _begun(path, inside)
    if arguments.save is not None:
        plots.check(arguments.save)
        plots.save(plots.curves(runs), arguments.save)
        sys.stdout.write(f"{arguments.save} is written\n")
    if arguments.report:
        for run in runs:
            sys.stdout.write(f"{run.report()} is written\n")
    if arguments.follow:
        _follow(path)
    elif arguments.text or not (arguments.report or arguments.save):
        console = screen.console()
        for line in _page(path, console):
            console.print(line)
    return 0


def _begun(folder: Path, paths: Sequence[Path]) -> list[Any]:
    """Return those of several runs that have been begun."""
    from ..show.run import Run

    runs = [Run(path) for path in paths if (path / "config.toml").is_file()]
    if not runs:
        msg = f"{folder} has no curves yet: none of its runs has been begun"
        raise ConfigError(msg)
    return runs


def _page(path: Path, console: Any) -> list[Any]:
    """Return the charts of what is in a folder now, as they fit into the terminal."""
    from ..runs.folder import members
    from ..show import screen
    from ..show.run import Run

    inside, style = members(path), screen.style_of(console)
    if inside is None:
        return screen.of_run(Run(path), *screen.size(), style)
    return screen.of_runs(path, _begun(path, inside), *screen.size(), style)


def _follow(path: Path, wait: Callable[[float], None] = time.sleep) -> None:
    """Draw the charts of a run whenever it has written something, until nobody works on it any more, or Ctrl-C."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from ..runs.folder import held
    from ..show import screen

    console = screen.console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        try:
            before = None
            going = True
            while going:
                going = held(path)  # before it is read: of a run that ends now, the last look sees all
                now = _written(path), screen.size()
                if now != before:
                    try:
                        page = _page(path, console)
                    except ConfigError as error:
                        if not going:
                            raise
                        page = [Text(str(error))]
                    live.update(Group(*page), refresh=True)
                    before = now
                if going:
                    wait(_WAIT)
        except KeyboardInterrupt:
            pass
    if not console.is_terminal:  # to which a live display writes its last line without an end
        console.print()


def _written(path: Path) -> list[tuple[str, int, int]]:
    """Return what changes when a run, or one of several, goes on."""
    found = []
    for name in ("events.jsonl", "metrics.csv", "result.json"):
        for file in sorted((*path.glob(name), *path.glob(f"*/{name}"))):
            try:
                status = file.stat()
            except FileNotFoundError:
                continue
            found.append((str(file), status.st_size, status.st_mtime_ns))
    return found
