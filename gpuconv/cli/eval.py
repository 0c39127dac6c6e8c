"""`gpuconv eval`: accuracy of a trained net, overall and by class; of several runs of one recipe, mean and deviation."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import tables
from ..backend import using
from ..data.sources import NAMES
from ..errors import ConfigError
from ..folders import quoted
from ..plural import counted
from .parser import EXIT_CODES, add_device, add_json, add_views, check_views, document, named_path

_MOST_PAIRS = 3  # of classes that are said to be confused

_EXAMPLES = """\
examples:
  gpuconv eval runs/convnet-1
  gpuconv eval runs/convnet-1 --checkpoint last --test-images 1000
  gpuconv eval runs/convnet-1 --tta flip+shift     six views, six times the work
  gpuconv eval runs/convnet-1 --save confusion.png
  gpuconv eval runs/convnet-seeds-1 --json
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "eval",
        help="accuracy of a trained net, overall and by class",
        description=(
            "Test the net of a run on the test images of its data set; of a folder that\n"
            "--seeds or --sweep made, the nets of all its runs."
        ),
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
        "--save", metavar="FILE", type=named_path, help="confusion matrix as a picture: .png, .svg, .pdf"
    )
    add_views(parser)
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=_eval)


def _eval(arguments: argparse.Namespace) -> int:
    from ..runs.folder import members
    from ..show import plots, screen

    check_views(arguments)
    paths = members(arguments.run_path)
    if arguments.save is not None:
        plots.check(arguments.save)
        if paths is not None:
            msg = f"--save draws the confusion matrix of one run: name one of those in {arguments.run_path}"
            raise ConfigError(msg)
    with using(arguments.device):
        if paths is None:
            one = _evaluated(arguments.run_path, arguments)
            text = document(one.values()) if arguments.json else "\n".join(one.lines(arguments.tta))
            if arguments.save is not None:
                plots.save(plots.confusion(one.classes, one.evaluation.confusion), arguments.save)
                text += "" if arguments.json else f"\n{arguments.save} is written"
        else:
            several = _all(arguments.run_path, paths, arguments)
            text = document(_values_of_all(several)) if arguments.json else "\n".join(_table(arguments, several))
    if arguments.json:
        sys.stdout.write(text + "\n")
    else:
        screen.say([text])
    return 0


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    """The evaluation of one checkpoint, and what belongs to it."""

    path: Path
    epoch: int
    data: str
    classes: Sequence[str]
    evaluation: Any
    notes: list[str]
    dataset: Any

    def lines(self, tta: str) -> list[str]:
        """Return what is said of it."""
        evaluation, classes = self.evaluation, self.classes
        lines = [f"{self.path}, after epoch {self.epoch}:", _on_what(self, tta), *(f"({note})" for note in self.notes)]
        lines.append("")
        width = max(map(tables.width, classes))
        for label, accuracy in zip(classes, evaluation.class_accuracy, strict=True):
            lines.append(f"{tables.padded(label, width)}  " + ("      -" if accuracy is None else f"{accuracy:>7.2%}"))
        total = f"{'all':<{width}}  {evaluation.accuracy:>7.2%}   loss {evaluation.loss:.4f}"
        return [*lines, "-" * (width + 9), total, *self._mistaken()]

    def _mistaken(self) -> list[str]:
        """Return a line on what is taken for another most often; none where nothing is, or two classes leave no choice."""
        from ..show.html import confused_pairs

        names, counts = self.classes, self.evaluation.confusion
        pairs = confused_pairs(counts)[:_MOST_PAIRS] if len(names) > 2 else []
        shares = [f"{names[true]} for {names[taken]} {count / counts[true].sum():.1%}" for true, taken, count in pairs]
        return ["", f"most often taken for another: {', '.join(shares)}"] if shares else []

    def values(self) -> dict[str, Any]:
        """Return the same as plain values."""
        evaluation = self.evaluation
        counts, right = evaluation.class_counts.tolist(), evaluation.class_correct.tolist()
        return {
            "checkpoint": str(self.path),
            "epoch": self.epoch,
            "data": self.data,
            "images": evaluation.count,
            "accuracy": evaluation.accuracy,
            "loss": evaluation.loss,
            "classes": [
                {"class": name, "images": count, "recognised": hits, "accuracy": share}
                for name, count, hits, share in zip(self.classes, counts, right, evaluation.class_accuracy, strict=True)
            ],
            "confusion": evaluation.confusion.tolist(),
            "notes": self.notes,
        }


def _evaluated(run_path: Path, arguments: argparse.Namespace, before: _Outcome | None = None) -> _Outcome:
    """Return how the net of a run does.   before: that of another run of the same recipe, whose data are at hand."""
    from ..runs import checkpoint
    from ..runs.classes import differences
    from ..runs.dataset import check_same, fingerprint
    from ..runs.evaluation import evaluate_on
    from ..runs.prediction import checkpoint_file

    path = checkpoint_file(run_path, arguments.checkpoint)
    snapshot = checkpoint.load(path)
    net = checkpoint.net_of(snapshot)
    if before is None:
        dataset = _dataset(snapshot, arguments)
    else:
        dataset = before.dataset
        if arguments.data in (None, snapshot.config.data):
            check_same(dataset, snapshot.data_name, snapshot.data_fingerprint)
    own = fingerprint(dataset) == snapshot.data_fingerprint
    classes = dataset.classes if snapshot.classes is None else snapshot.classes
    evaluation = evaluate_on(net, snapshot.inputs.fitted(dataset), test_images=arguments.test_images, tta=arguments.tta)
    notes = []
    if not own:
        which = snapshot.data_name if snapshot.data_name != dataset.name else "another version of it"
        notes.append(f"the net was trained on {which}")
        if snapshot.classes is None:
            notes.append("the names of the net's classes are not recorded: they are matched by number")
    notes += differences(classes, dataset)
    of_run = snapshot.config.test_images
    if own and of_run and not arguments.test_images and of_run < evaluation.count:
        notes.append(f"the run's own test was of the first {of_run:,}: --test-images {of_run} does that one again")
    return _Outcome(path, len(snapshot.position.rows), dataset.name, classes, evaluation, notes, dataset)


def _dataset(snapshot: Any, arguments: argparse.Namespace) -> Any:
    """Return the data set of a run, or the other one that is asked for."""
    from ..runs.dataset import load_dataset

    if arguments.data in (None, snapshot.config.data):
        known = snapshot.data_name, snapshot.data_fingerprint
        return load_dataset(snapshot.config, data_dir=arguments.data_dir, trained_on=known)
    other = dataclasses.replace(snapshot.config, data=arguments.data, data_dir=arguments.data_dir or "", image_size=0)
    other = dataclasses.replace(other, image_size=_image_size(other.data, snapshot.net["input_shape"]))
    return load_dataset(dataclasses.replace(other, skip_broken=other.skip_broken or arguments.skip_broken))


def _image_size(name: str, input_shape: Sequence[int]) -> int:
    """Return the size to scale another folder's pictures to: what the net takes, if that is a square."""
    _, height, width = input_shape
    return height if height == width and name not in NAMES else 0


# Several runs ---------------------------------------------------------------------------------------------------------


def _all(folder: Path, paths: Sequence[Path], arguments: argparse.Namespace) -> list[_Outcome]:
    """Return how the nets of a folder's runs do, of those that have a checkpoint."""
    begun = [path for path in paths if (path / f"{arguments.checkpoint}.safetensors").exists()]
    if not begun:
        msg = f"no run in {folder} has a {arguments.checkpoint} checkpoint yet: gpuconv train --resume {quoted(folder)} goes on"
        raise ConfigError(msg)
    outcomes: list[_Outcome] = []
    for path in begun:
        outcomes.append(_evaluated(path, arguments, outcomes[0] if outcomes else None))
    return outcomes


def _spread(values: Sequence[float]) -> float | None:
    """Return the standard deviation; None of a single value."""
    return statistics.stdev(values) if len(values) > 1 else None


def _table(arguments: argparse.Namespace, outcomes: Sequence[_Outcome]) -> list[str]:
    """Return a line for each run, the mean and the standard deviation, and the mean of each class."""
    accuracies, losses = ([getattr(each.evaluation, name) for each in outcomes] for name in ("accuracy", "loss"))
    rows = [["run", "accuracy", "loss"]]
    rows += [
        [each.path.parent.name, f"{each.evaluation.accuracy:.2%}", f"{each.evaluation.loss:.4f}"] for each in outcomes
    ]
    rows.append(["mean", f"{statistics.fmean(accuracies):.2%}", f"{statistics.fmean(losses):.4f}"])
    spreads = _spread(accuracies), _spread(losses)
    rows.append(
        [
            "deviation",
            *(
                "-" if value is None else pattern.format(value)
                for value, pattern in zip(spreads, ("{:.2%}", "{:.4f}"), strict=True)
            ),
        ]
    )
    lines = tables.columns(rows, numbers=2)
    lines.insert(-2, "-" * max(map(tables.width, lines)))
    notes = dict.fromkeys(note for each in outcomes for note in each.notes)
    head = f"{arguments.run_path}, {counted(len(outcomes), 'run')}, the {arguments.checkpoint} checkpoint of each:"
    return [
        head,
        _on_what(outcomes[0], arguments.tta),
        *(f"({note})" for note in notes),
        "",
        *lines,
        "",
        *_by_class(outcomes),
    ]


def _by_class(outcomes: Sequence[_Outcome]) -> list[str]:
    """Return the mean accuracy of each class over the runs, and its deviation."""
    rows = [["class", "mean", "deviation"]]
    for number, name in enumerate(outcomes[0].classes):
        shares = [share for each in outcomes if (share := each.evaluation.class_accuracy[number]) is not None]
        spread = _spread(shares)
        mean = f"{statistics.fmean(shares):.2%}" if shares else "-"
        rows.append([name, mean, "-" if spread is None else f"{spread:.2%}"])
    return tables.columns(rows, numbers=2)


def _values_of_all(outcomes: Sequence[_Outcome]) -> dict[str, Any]:
    numbers = {name: [getattr(each.evaluation, name) for each in outcomes] for name in ("accuracy", "loss")}
    return {
        "runs": [each.values() for each in outcomes],
        "statistics": {
            name: {"mean": statistics.fmean(values), "standard_deviation": _spread(values)}
            for name, values in numbers.items()
        },
    }


def _on_what(outcome: _Outcome, tta: str) -> str:
    with_views = "" if tta == "none" else f", scores averaged over the views of tta {tta}"
    return f"{counted(outcome.evaluation.count, 'test image')} of {outcome.data}{with_views}"
