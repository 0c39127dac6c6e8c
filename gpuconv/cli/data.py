"""`gpuconv data`: fetch, check or look at a data set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .. import extras, tables
from ..data.dataset import class_counts
from ..data.sources import NAMES
from ..errors import ConfigError, UnsupportedError
from ..plural import counted
from .parser import Parser, named_path

_FILES = ("cifar10", "cifar100")
_PICTURE_COLUMNS = 12
_MOST_ROWS = 40


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "data", help="fetch, check or look at a data set", description="Fetch, check or look at a data set."
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for name, run, text in (
        ("get", _data_get, "fetch CIFAR, resume where a try broke off, check its SHA-256"),
        ("verify", _data_verify, "check every file of the CIFAR that training would use"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument(
            "name", metavar="NAME", nargs="?", choices=_FILES, default=_FILES[0], help="cifar10, cifar100 [cifar10]"
        )
        action.add_argument("--data-dir", metavar="DIR", help="folder of the data set [the usual place]")
        action.set_defaults(run=run)
    text = "size, classes and statistics of a data set or folder of pictures"
    show = actions.add_parser("show", help=text, description=f"{text[0].upper()}{text[1:]}.")
    show.add_argument("name", metavar="NAME|DIR", help=f"{', '.join(NAMES)}, or a folder")
    show.add_argument("--data-dir", metavar="DIR", help="folder of CIFAR's files [the usual place]")
    show.add_argument("--image-size", metavar="N", type=int, default=0, help="scale a folder's pictures to N x N")
    show.add_argument("--skip-broken", action="store_true", help="leave out a folder's pictures that cannot be read")
    show.add_argument(
        "--save", metavar="FILE", type=named_path, help="draw pictures of every class into a .png, .svg, .pdf"
    )
    show.set_defaults(run=_data_show)


def _data_get(arguments: argparse.Namespace) -> int:
    from ..data import sources
    from ..show.terminal import progress

    download = {"cifar10": sources.download_cifar10, "cifar100": sources.download_cifar100}[arguments.name]
    with progress("auto") as display:
        path = download(arguments.data_dir, progress=display.download)
    sys.stdout.write(f"{path} is complete and its SHA-256 is right\n")
    return 0


def _data_verify(arguments: argparse.Namespace) -> int:
    from .. import data

    rows = data.verify(arguments.data_dir, name=arguments.name)
    width = max(len(row.name) for row in rows)
    title = arguments.name.upper().replace("CIFAR", "CIFAR-")
    for row in rows:
        verdict = row.problem or ("original" if row.official else f"sound, but not known to be the original {title}")
        sys.stdout.write(f"{row.name:<{width}}  {row.size:>12,} bytes  {verdict}\n")
    return 0 if all(row.ok for row in rows) else 1


def _data_show(arguments: argparse.Namespace) -> int:
    from .. import data

    if arguments.image_size < 0:
        msg = f"--image-size must be 0 or more, got {arguments.image_size}"
        raise ConfigError(msg)
    dataset = data.load(
        arguments.name,
        folder=arguments.data_dir,
        image_size=arguments.image_size,
        skip_broken=arguments.skip_broken,
    )
    sys.stdout.write("\n".join(_facts(dataset)) + "\n")
    if arguments.save is not None:
        _draw(dataset, arguments.save)
        sys.stdout.write(f"pictures are in {arguments.save}\n")
    return 0


def _facts(dataset: Any) -> list[str]:
    """Return the lines of `gpuconv data show`."""
    _, channels, height, width = dataset.x_train.shape
    parts = class_counts(dataset)
    widths = [max(8, len(part)) for part in parts]
    column = max(map(tables.width, [*dataset.classes, "all"]))

    def row(name: str, cells: Iterable[str]) -> str:
        return "  ".join(
            [tables.padded(name, column), *(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))]
        )

    lines = [
        dataset.name,
        f"source  {dataset.source}",
        f"size    {width} x {height} pixels (width x height), {counted(channels, 'channel')}",
        "mean    " + ", ".join(f"{value:.4f}" for value in dataset.mean),
        "std     " + ", ".join(f"{value:.4f}" for value in dataset.std),
        "",
        row("class", parts),
    ]
    for label, name in enumerate(dataset.classes):
        lines.append(row(name, (f"{counts[label]:,}" for counts in parts.values())))
    totals = row("all", (f"{counts.sum():,}" for counts in parts.values()))
    return [*lines, "-" * len(totals), totals]


def _draw(dataset: Any, path: Path) -> None:
    """Save a grid: a row per class, with its first training pictures."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        msg = f"--save draws with matplotlib, which is not installed: {extras.install('plots')}"
        raise UnsupportedError(msg) from None
    shown = min(len(dataset.classes), _MOST_ROWS)
    figure = Figure(figsize=(1.5 + 0.6 * _PICTURE_COLUMNS, 0.6 * shown), layout="constrained")
    grid = figure.subplots(shown, _PICTURE_COLUMNS, squeeze=False)
    for row, name in zip(grid, dataset.classes, strict=False):
        label = dataset.classes.index(name)
        pictures = dataset.x_train[np.flatnonzero(dataset.y_train == label)[:_PICTURE_COLUMNS]]
        for axes in row:
            axes.set_axis_off()
        for axes, picture in zip(row, pictures, strict=False):
            axes.imshow(picture.transpose(1, 2, 0))
        row[0].text(-0.2, 0.5, name, ha="right", va="center", transform=row[0].transAxes, parse_math=False)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        msg = f"--save {path} cannot be written: {error}"
        raise ConfigError(msg) from None
