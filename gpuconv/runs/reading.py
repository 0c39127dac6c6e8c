"""A run folder, read: settings, metrics, events, result and nets; also of a run that goes on or was broken off."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from .. import bounded, data, nn
from ..data.check import check_dataset
from ..errors import ConfigError
from ..folders import path_of
from ..plural import counted
from . import journal, metrics, settings
from .checkpoint import load, load_net, net_of
from .config import Config
from .dataset import fingerprint, load_dataset
from .evaluation import BATCH_SIZE, Evaluation, evaluate_on
from .folder import refuse_several
from .machine import read_environment
from .prediction import Predictions, checkpoint_file, classifier
from .result import check_record


class Reading:
    """What lies in a run folder.  Nothing is locked or changed: a run in progress can be looked at.

    Each file is read when it is first asked for, and once; another reading sees what is new.
    Raises ConfigError if the folder is not there, is not a run's or holds several.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path_of(path, "the run")
        refuse_several(self.path)
        if not (self.path / "config.toml").is_file():
            msg = (
                f"{self.path} is not a run folder: it has no config.toml; name another, or start one with gpuconv train"
            )
            raise ConfigError(msg)

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.resolve().name

    @cached_property
    def config(self) -> Config:
        """The settings."""
        return settings.read(self.path / "config.toml")

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """One dict per epoch that is done: the lines of metrics.csv as numbers, None where there is none."""
        try:
            content = bounded.read(self.path / "metrics.csv", bounded.LOG)
        except OSError:
            return []
        try:
            return metrics.read(content)
        except ValueError as error:
            msg = f"{self.path / 'metrics.csv'} is damaged: {error}"
            raise ConfigError(msg) from None

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The lines of events.jsonl."""
        return journal.read(self.path)

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """What result.json holds; None if the run is not finished."""
        path = self.path / "result.json"
        values = bounded.json_object(path, bounded.LOG)
        if values is None:
            if path.exists():
                msg = f"{path} is damaged: it is not JSON"
                raise ConfigError(msg)
            return None
        try:
            check_record(values)
        except ConfigError as error:
            msg = f"{path} is damaged, or of another version: {error}"
            raise ConfigError(msg) from None
        return values

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What env.json holds; {} if it is not there."""
        return read_environment(self.path)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What is known of the run whether it is finished or not: data, classes, epochs, steps, numbers of images."""
        started = [event for event in self.events if event["event"] == "start"]
        return {**(started[-1] if started else {}), **(self.result or {})}

    @property
    def finished(self) -> bool:
        """Whether the run has a result."""
        return self.result is not None

    def net(self, checkpoint: str = "best") -> nn.Net:
        """Return the net of the run's "best" or "last" checkpoint."""
        return load_net(self._checkpoint(checkpoint))

    def dataset(self, data_dir: str | Path | None = None) -> data.Dataset:
        """Return the data set of the run, from this machine; nothing is downloaded.

        data_dir: the folder it lies in now, if that is another than it was.
        Raises DatasetMissingError if it is not here, ConfigError if what is here is not what the run was trained on.
        """
        return load_dataset(
            self.config,
            data_dir=None if data_dir is None else str(data_dir),
            download=False,
            notice=lambda text: None,
            trained_on=self.trained_on,
        )

    def evaluate(
        self, dataset: data.Dataset | None = None, *, checkpoint: str = "best", tta: str = "none"
    ) -> Evaluation:
        """Return how well a net of the run does on the test images of its data set, or on all of another one.

        Classes are matched by name and counted in the net's order; pictures are normalised as those it was trained on.  Raises CheckpointMismatchError for a data set with
        classes that the net does not know.
        tta: as of `evaluate`.
        """
        if dataset is None:
            dataset = self.dataset()
        check_dataset(dataset)
        known = self.trained_on
        own = known is None or fingerprint(dataset) == known[1]
        count = self.config.test_images if own else 0
        snapshot = load(self._checkpoint(checkpoint))
        return evaluate_on(net_of(snapshot), snapshot.inputs.fitted(dataset), test_images=count, tta=tta)

    def predict(
        self,
        pictures: Any,
        *,
        checkpoint: str = "best",
        batch_size: int = BATCH_SIZE,
        skip_broken: bool = False,
        tta: str = "none",
    ) -> Predictions:
        """Return what the net of a checkpoint takes each picture for; see `Classifier.predict`."""
        net = classifier(load(self._checkpoint(checkpoint)))
        return net.predict(pictures, batch_size=batch_size, skip_broken=skip_broken, tta=tta)

    @property
    def trained_on(self) -> tuple[str, str] | None:
        """Name and fingerprint of the data set; None of a run that has not come to its first step."""
        facts = self.facts
        return (facts["data"], facts["data_fingerprint"]) if "data_fingerprint" in facts else None

    def _checkpoint(self, name: str) -> Path:
        return checkpoint_file(self.path, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}): {self.state}"

    def _repr_html_(self) -> str:
        return metrics.html(self.name, self.state, self.metrics)

    @property
    def state(self) -> str:
        """How far the run is, in words."""
        if self.result is not None:
            return f"finished, test accuracy {self.result['test_accuracy']:.2%}"
        planned = self.facts.get("epochs") or self.config.epochs
        return f"not finished, {len(self.metrics)} of {counted(planned, 'epoch')} done"
