"""The end of a run: the best epoch's weights are tested, and what the run came to is written and said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..backend import asarray
from ..runs import checkpoint
from ..runs.evaluation import Evaluation
from ..runs.result import Result, record
from ..show import html, words

if TYPE_CHECKING:
    from .loop import Training


def conclude(training: Training) -> Result:
    """Test the best epoch's weights, as they lie on the disk, and write result.json.

    Validation and the first test look at each image once; config.tta asks for a second test with more views.
    """
    position, split, team, tta = training.position, training.split, training.team, training.config.tta
    net = checkpoint.net_of(team.first(lambda: checkpoint.load(training.folder.best)))
    x_test = asarray(split.x_test)
    test = training.evaluate(net, x_test, split.y_test)
    assert test is not None
    with_views = None if tta == "none" else training.evaluate(net, x_test, split.y_test, tta=tta)
    images = training.steps_done * training.config.batch_size
    result = Result(
        folder=training.folder.path,
        data=training.dataset.name,
        metrics=position.rows,
        best_epoch=position.best_epoch,
        validation_accuracy=position.best_accuracy,
        test_accuracy=test.accuracy,
        test_loss=test.loss,
        steps=training.steps_done,
        seconds=round(sum(row["seconds"] for row in position.rows), 3),
        images_per_second=round(images / max(position.training_seconds, 1e-9), 1),
        test_accuracy_tta=None if with_views is None else with_views.accuracy,
        ended_by=training.ended_by,
    )
    team.first(lambda: _write(training, result, test))
    return result


def _write(training: Training, result: Result, test: Evaluation) -> None:
    about, skipped = training.about(), training.stepper.skipped
    written = record(result, test, training.config, about, skipped)
    training.journal.end(written)  # before result.json, with which the run is over
    training.folder.write_result(written)
    lines = words.summary(training.config, about, result, skipped)
    training.display.end([*lines, *html.after_run(training.folder.path, training.dataset)])
