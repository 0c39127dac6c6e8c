"""Everything a run is made of at one moment, to and from a checkpoint.

Data order, augmentation and dropout are functions of (seed, epoch, step), so two counters bring all of them back.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from .. import nn
from ..backend import asnumpy
from ..checks import shown
from ..errors import CheckpointMismatchError, ConfigError, GpuconvError
from ..folders import path_of
from ..version import gpuconv_version
from . import journal, metrics, records, sealed
from .config import Config
from .folder import refuse_several
from .inputs import Inputs
from .origin import located
from .settings import from_values, read, shareable, to_values


@dataclass(slots=True)
class Position:
    """How far a run is: `step` steps of the epoch with index `epoch` are done, and what they summed up to."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seconds: float = 0.0  # of this epoch so far
    training_seconds: float = 0.0  # of the whole run, without validation
    best_epoch: int = 0  # counted from 1; 0: none yet
    best_accuracy: float | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)  # of metrics.csv
    steps: int = 0  # of the whole run
    ended_by: str = ""  # "max-minutes" or "patience", if that ended the run before its last epoch

    @property
    def run_seconds(self) -> float:
        """How long the run took until the last step, validations included, however often it was gone on with."""
        return sum(row["seconds"] for row in self.rows) + self.seconds


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The content of a checkpoint."""

    path: Path
    config: Config
    net: Mapping[str, Any]
    data_name: str
    data_fingerprint: str
    inputs: Inputs
    position: Position
    arrays: Mapping[str, np.ndarray]
    optimiser_steps: int
    loss_scale: Mapping[str, Any] | None = None

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the net's scores, in their order; None: not recorded."""
        return self.inputs.classes

    def part(self, kind: str) -> dict[str, np.ndarray]:
        """Return the arrays of one kind: "params", "state", "optimizer", "average"."""
        prefix = f"{kind}/"
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}

    def restore(
        self,
        net: nn.Net,
        optimiser: nn.Optimiser,
        average: nn.WeightAverage | None = None,
        scale: Any = None,
    ) -> None:
        """Put weights, running statistics, the optimiser's vectors, the average and the loss scale back."""
        if sealed.same_values(net.config) != self.net:
            msg = f"{self.path} holds another net: {_difference(self.net, sealed.same_values(net.config))}"
            raise CheckpointMismatchError(msg)
        try:
            own = "live_" if self.part("live_params") else ""  # of a checkpoint whose weights are the average
            net.load(self.part(f"{own}params"), self.part(f"{own}state"))
            optimiser.load(self.part("optimizer"), self.optimiser_steps)
            if average is not None:
                average.load(self.part("average"))
            if scale is not None and self.loss_scale is not None:
                records.check("loss_scale", self.loss_scale, type(scale))
                for name, value in dataclasses.asdict(type(scale)(**self.loss_scale)).items():
                    setattr(scale, name, value)
        except GpuconvError as error:
            msg = f"{self.path} does not fit this run: {error}"
            raise CheckpointMismatchError(msg) from error


def save(
    path: Path,
    *,
    config: Config,
    net: nn.Net,
    optimiser: nn.Optimiser,
    data_name: str,
    data_fingerprint: str,
    inputs: Inputs,
    position: Position,
    average: nn.WeightAverage | None = None,
    averaged: bool = False,
    scale: Any = None,
    to_share: bool = False,
) -> None:
    """Write a checkpoint of a run.

    inputs: what the net takes and what its scores mean.
    averaged=True: the weights in it are those of the average, and the net's own ones lie beside them to go on from.
    to_share=True: the settings in it hold no paths; `load` takes them from the config.toml beside it, if there is one.
    """
    arrays = _arrays(optimizer=optimiser.state, average={} if average is None else average.state)
    if average is not None and averaged:
        arrays |= {name: array.copy() for name, array in _arrays(live_params=net.params, live_state=net.state).items()}
        with average.applied():
            arrays |= {name: array.copy() for name, array in _arrays(params=net.params, state=net.state).items()}
    else:
        arrays |= _arrays(params=net.params, state=net.state)
    values = {
        "gpuconv": gpuconv_version(),
        "config": shareable(config) if to_share else to_values(config),
        "net": net.config,
        "data": {"name": data_name, "fingerprint": data_fingerprint},
        "inputs": inputs.to_values(),
        "optimizer": {"name": config.optimizer, "steps": optimiser.steps},
        "position": dataclasses.asdict(position),
        "loss_scale": None if scale is None else dataclasses.asdict(scale),
    }
    sealed.write(path, arrays, values)


def copy(source: Path, target: Path, config: Config) -> None:
    """Write the best checkpoint of a run again, as that of a run with other settings."""
    arrays, values = sealed.read(source)
    sealed.write(target, arrays, {**values, "config": shareable(config)})


def _arrays(**kinds: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return arrays by kind and name, on the host."""
    return {f"{kind}/{name}": asnumpy(array) for kind, part in kinds.items() for name, array in part.items()}


def load(path: Path) -> Snapshot:
    """Return the snapshot in a checkpoint; raise CheckpointMismatchError if it is the checkpoint of something else."""
    if not os.path.exists(path):  # noqa: PTH110 - True or False, also of a folder that must not be looked into
        refuse_several(path.parent)
    arrays, values = sealed.read(path)
    try:
        _check(values)
        return Snapshot(
            path=path,
            config=_settings(values["config"], path.parent),
            net=values["net"],
            data_name=values["data"]["name"],
            data_fingerprint=values["data"]["fingerprint"],
            inputs=_inputs(values, path.parent),
            # A run of an earlier version counted no steps of its own; each of its steps was one of the optimiser.
            position=Position(**{"steps": values["optimizer"]["steps"], **values["position"]}),
            arrays=arrays,
            optimiser_steps=values["optimizer"]["steps"],
            loss_scale=values.get("loss_scale"),
        )
    except (KeyError, TypeError, GpuconvError) as error:
        msg = f"{path} is not the checkpoint of a training run of this version: {error}"
        raise CheckpointMismatchError(msg) from error


def _inputs(values: Mapping[str, Any], folder: Path) -> Inputs:
    """Return what the net takes; format 1 recorded the names of its scores at most."""
    if "inputs" in values:
        return Inputs.from_values(values["inputs"])
    return Inputs(values["net"]["input_shape"], _classes(values["data"], folder), None, None)


class _Data(TypedDict):
    name: str
    fingerprint: str


class _DataWithClasses(_Data, total=False):
    classes: list[str] | None


class _Optimizer(TypedDict):
    name: str
    steps: int


class _Required(TypedDict):
    config: dict[str, Any]
    net: dict[str, Any]
    data: _DataWithClasses
    optimizer: _Optimizer
    position: Position


class _Values(_Required, total=False):
    gpuconv: str
    inputs: dict[str, Any]
    loss_scale: dict[str, Any] | None


def _check(values: Mapping[str, Any]) -> None:
    """Raise ConfigError, which names the entry, for values of a kind that no checkpoint holds, or that contradict each other.

    Each setting, and the net, is checked where it is made of its values; the loss scale where there is one to restore.
    """
    records.check("", values, _Values)
    position = Position(**values["position"])
    for number, row in enumerate(position.rows):
        records.check(f"position.rows[{number}]", row, metrics.Row)
    # A run with a later end may be in its best epoch once more.
    begun, wrong = position.epoch + (position.step > 0), ""
    if position.epoch != len(position.rows):
        wrong = f"position.epoch must be the number of its rows, {len(position.rows)}, got {position.epoch}"
    elif position.best_epoch > begun:
        wrong = f"position.best_epoch must be at most {begun}, got {position.best_epoch}"
    elif values["optimizer"]["steps"] > values["position"].get("steps", math.inf):
        wrong = f"optimizer.steps must be at most position.steps, {position.steps}, got {values['optimizer']['steps']}"
    elif values["optimizer"]["name"] != values["config"].get("optimizer", values["optimizer"]["name"]):
        wrong = f"optimizer.name must be that of its settings, got {shown(values['optimizer']['name'])}"
    if wrong:
        raise ConfigError(wrong)


def _classes(data: Mapping[str, Any], folder: Path) -> tuple[str, ...] | None:
    """Return the names of the net's scores; where an earlier version did not record them, those of the run around it."""
    names = data.get("classes")
    if names is None:
        for event in journal.read(folder):
            if event["event"] == "start" and event.get("data_fingerprint") == data["fingerprint"]:
                names = event.get("classes")
    return None if names is None else tuple(names)


def _settings(values: Mapping[str, Any], folder: Path) -> Config:
    """Return the settings of a checkpoint, with the paths that it does not hold from config.toml in its folder."""
    config = from_values(values)
    if "data_dir" in values:
        return located(config, folder)
    try:
        beside = read(folder / "config.toml", find_files=False)
    except ConfigError:
        return located(config, folder)
    short = shareable(beside)
    names = ("data", "net", "weights")
    places = {name: getattr(beside, name) for name in names if short[name] == values.get(name)}
    if "data" in places:
        places["data_dir"] = beside.data_dir
    return located(dataclasses.replace(config, **places), folder)


def load_net(path: str | Path) -> nn.Net:
    """Return the net of a checkpoint, with its weights: ready for forward.

    >>> net = train.load_net("runs/first/best.safetensors")
    >>> net.forward(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """
    return net_of(load(path_of(path)))


def net_of(snapshot: Snapshot) -> nn.Net:
    """Return the net of a snapshot, with its weights."""
    try:
        net = nn.build(snapshot.net)
        snapshot.inputs.check_net(net)
        net.load(snapshot.part("params"), snapshot.part("state"))
    except GpuconvError as error:
        msg = f"{snapshot.path} does not hold a net that can be built: {error}"
        raise CheckpointMismatchError(msg) from error
    return net


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = [name for name in (*old, *(n for n in new if n not in old)) if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name)!r} there, {new.get(name)!r} here" for name in names)
