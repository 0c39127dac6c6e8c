"""`gpuconv eval`: accuracy of a trained net, overall and by class."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from .. import tables
from ..data.sources import NAMES
from ..errors import ConfigError
from ..plural import counted
from ..runs.evaluation import TTA
from .parser import EXIT_CODES, named_path

_EXAMPLES = """\
examples:
  gpuconv eval runs/convnet-1
  gpuconv eval runs/convnet-1 --checkpoint last --test-images 1000
  gpuconv eval runs/convnet-1 --tta flip+shift     six views, six times the work
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "eval",
        help="accuracy of a trained net, overall and by class",
        description="Test the net of a run on the test images of its data set.",
        epilog=_EXAMPLES + "\n" + EXIT_CODES,
    )
    parser.add_argument("run_path", metavar="RUN", type=named_path, help="run folder, or a checkpoint file")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="which of the run's [best]")
    parser.add_argument("--data", metavar="NAME|DIR", help="another data set than the run's, or a folder of pictures")
    parser.add_argument("--data-dir", metavar="DIR", help="folder that the data set is in now")
    parser.add_argument(
        "--skip-broken", action="store_true", help="with --data: leave out pictures that cannot be read"
    )
    parser.add_argument("--test-images", metavar="N", type=int, default=0, help="only the first N [0: all]")
    parser.add_argument(
        "--tta", metavar="NAME", default="none", help=f"average the scores of views: {', '.join(TTA)} [none]"
    )
    parser.set_defaults(run=_eval)


def _image_size(name: str, input_shape: Sequence[int]) -> int:
    """Return the size to scale another folder's pictures to: what the net takes, if that is a square."""
    _, height, width = input_shape
    return height if height == width and name not in NAMES else 0


def _eval(arguments: argparse.Namespace) -> int:
    from ..runs import checkpoint
    from ..runs.classes import differences
    from ..runs.dataset import fingerprint, load_dataset
    from ..runs.evaluation import evaluate_on
    from ..runs.prediction import checkpoint_file

    if arguments.tta not in TTA:
        msg = f"tta must be one of {', '.join(TTA)}, got {arguments.tta!r}"
        raise ConfigError(msg)
    path = checkpoint_file(arguments.run_path, arguments.checkpoint)
    snapshot = checkpoint.load(path)
    net = checkpoint.net_of(snapshot)
    if arguments.data in (None, snapshot.config.data):
        known = snapshot.data_name, snapshot.data_fingerprint
        dataset = load_dataset(snapshot.config, data_dir=arguments.data_dir, trained_on=known)
    else:
        other = dataclasses.replace(
            snapshot.config, data=arguments.data, data_dir=arguments.data_dir or "", image_size=0
        )
        other = dataclasses.replace(other, image_size=_image_size(other.data, snapshot.net["input_shape"]))
        other = dataclasses.replace(other, skip_broken=other.skip_broken or arguments.skip_broken)
        dataset = load_dataset(other)
    own = fingerprint(dataset) == snapshot.data_fingerprint
    classes = dataset.classes if snapshot.classes is None else snapshot.classes
    evaluation = evaluate_on(net, snapshot.inputs.fitted(dataset), test_images=arguments.test_images, tta=arguments.tta)
    with_views = "" if arguments.tta == "none" else f", scores averaged over the views of tta {arguments.tta}"
    lines = [
        f"{path}, after epoch {len(snapshot.position.rows)}:",
        f"{counted(evaluation.count, 'test image')} of {dataset.name}{with_views}",
    ]
    if not own:
        which = snapshot.data_name if snapshot.data_name != dataset.name else "another version of it"
        lines.append(f"(the net was trained on {which})")
        if snapshot.classes is None:
            lines.append("(the names of the net's classes are not recorded: they are matched by number)")
    lines += [f"({note})" for note in differences(classes, dataset)]
    of_run = snapshot.config.test_images
    if own and of_run and not arguments.test_images and of_run < evaluation.count:
        lines.append(f"(the run's own test was of the first {of_run:,}: --test-images {of_run} does that one again)")
    lines.append("")
    width = max(map(tables.width, classes))
    for label, accuracy in zip(classes, evaluation.class_accuracy, strict=True):
        lines.append(f"{tables.padded(label, width)}  " + ("      -" if accuracy is None else f"{accuracy:>7.2%}"))
    lines += ["-" * (width + 9), f"{'all':<{width}}  {evaluation.accuracy:>7.2%}   loss {evaluation.loss:.4f}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
