"""`gpuconv predict`: what a trained net takes pictures for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import tables
from ..backend import using
from ..data.sources import to_stderr
from ..errors import ConfigError
from .parser import EXIT_CODES, Parser, add_device, add_json, add_views, check_views, document, named_path

_EXAMPLES = """\
examples:
  gpuconv predict runs/pets-1 cat.jpg
  gpuconv predict runs/pets-1 holiday/ --top 5 --save holiday.png
  gpuconv predict best.safetensors holiday/ --json
"""

_COLUMNS = 80
_LEAST_OF_NAME, _MOST_OF_CLASS = 20, 24


def add(commands: Any) -> None:
    """Add the command."""
    parser: Parser = commands.add_parser(
        "predict",
        help="what a trained net takes pictures for",
        description=(
            "Tell what the net of a run takes pictures for.  Neither the run's folder nor\n"
            "its data set is needed: the checkpoint alone is enough."
        ),
        epilog=_EXAMPLES + "\n" + EXIT_CODES,
    )
    parser.add_argument("run_path", metavar="RUN|FILE", type=named_path, help="run folder, or a checkpoint file")
    parser.add_argument(
        "pictures",
        metavar="PICTURE|DIR",
        type=named_path,
        nargs="+",
        help="pictures, and folders that are searched for them",
    )
    parser.add_argument("--top", metavar="N", type=int, default=3, help="classes to name for each picture [3]")
    add_json(parser)
    parser.add_argument(
        "--save", metavar="FILE", type=named_path, help="draw the pictures with their classes: .png, .svg, .pdf"
    )
    parser.add_argument("--force", action="store_true", help="with --save: overwrite what is there")
    parser.add_argument("--skip-broken", action="store_true", help="leave out pictures that cannot be read")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="which of the run's [best]")
    add_views(parser)
    add_device(parser)
    parser.add_argument("--data-dir", metavar="DIR", help="of a run of an earlier version: its data set's folder")
    parser.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    from ..runs import checkpoint, prediction

    if arguments.top < 1:
        msg = f"--top must be 1 or more, got {arguments.top}"
        raise ConfigError(msg)
    check_views(arguments)
    if arguments.save is not None:
        _check_target(arguments.save, overwrite=arguments.force)
    with using(arguments.device):
        snapshot = checkpoint.load(prediction.checkpoint_file(arguments.run_path, arguments.checkpoint))
        net = prediction.classifier(snapshot, data_dir=arguments.data_dir)
        pictures = prediction.read(
            arguments.pictures, net.input_shape, skip_broken=arguments.skip_broken, notice=to_stderr
        )
        predictions = net.predictions(pictures, tta=arguments.tta)
    if arguments.save is not None:
        from ..show import grid

        grid.save(pictures, predictions, arguments.save)
    if arguments.json:
        sys.stdout.write(_document(net, pictures, predictions, arguments.top, arguments.tta) + "\n")
        return 0
    lines = _lines(predictions, arguments.top)
    if arguments.save is not None:
        of_all = f", the first {grid.MOST} of {len(predictions):,}" if len(predictions) > grid.MOST else ""
        lines += ["", f"wrote {arguments.save}{of_all}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _check_target(path: Path, *, overwrite: bool) -> None:
    """Raise ConfigError if a picture cannot be drawn into a file of that name, or one is there."""
    from ..export import walk
    from ..show import plots

    plots.check(path)
    if not path.parent.is_dir():
        msg = f"there is no folder {path.parent} to write {path.name} into"
        raise ConfigError(msg)
    if not overwrite:
        walk.refuse_existing(path)


def _document(net: Any, pictures: Any, predictions: Any, top: int, tta: str) -> str:
    """Return the predictions as JSON."""
    values = {
        "checkpoint": str(net.path),
        "classes": list(net.classes),
        "tta": tta,
        "predictions": [
            {
                "picture": one.name,
                "classes": list(one.classes[:top]),
                "probabilities": list(one.probabilities[:top]),
            }
            for one in predictions
        ],
        "left_out": {str(path): reason for path, reason in pictures.left_out.items()},
    }
    return document(values)


def _lines(predictions: Sequence[Any], top: int) -> list[str]:
    """Return a line as wide as a narrow terminal, or 80 columns, for each picture; more where classes do not fit into one."""
    from ..show import screen

    columns = min(_COLUMNS, screen.size()[0]) if sys.stdout.isatty() else _COLUMNS
    names = [tables.printable(one.name) for one in predictions]
    rows = [
        [
            (tables.shortened(label, _MOST_OF_CLASS), share)
            for label, share in zip(one.classes[:top], one.probabilities[:top], strict=True)
        ]
        for one in predictions
    ]
    class_width = max(tables.width(name) for row in rows for name, _ in row)
    cell_width = class_width + len("  100.0%  ")
    longest = max(map(tables.width, names))
    name_width = min(longest, max(_LEAST_OF_NAME, columns - cell_width * len(rows[0])))
    per_line = max(1, (columns - name_width) // cell_width)
    lines = []
    for name, row in zip(names, rows, strict=True):
        cells = [f"  {tables.padded(label, class_width)}  {share:>6.1%}" for label, share in row]
        for start in range(0, len(cells), per_line):
            head = "" if start else tables.shortened(name, name_width, end=False)
            lines.append(tables.padded(head, name_width) + "".join(cells[start : start + per_line]))
    return lines
