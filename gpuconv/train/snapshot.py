"""Everything a run is made of at one moment, to and from a checkpoint.

Data order, augmentation and dropout are functions of (seed, epoch, step), so two counters bring all of them back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..backend import asnumpy
from ..errors import CheckpointMismatchError, GpuconvError
from . import checkpoint
from .config import Config, from_values, to_values
from .machine import gpuconv_version


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


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The content of a checkpoint."""

    path: Path
    config: Config
    net: Mapping[str, Any]
    data_name: str
    data_fingerprint: str
    position: Position
    arrays: Mapping[str, np.ndarray]
    optimiser_steps: int

    def part(self, kind: str) -> dict[str, np.ndarray]:
        """Return the arrays of one kind: "params", "state" or "optimizer"."""
        prefix = f"{kind}/"
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}

    def restore(self, net: nn.Net, optimiser: nn.Optimiser) -> None:
        """Put weights, running statistics and the optimiser's vectors back."""
        if checkpoint.same_values(net.config) != self.net:
            msg = f"{self.path} holds another net: {_difference(self.net, checkpoint.same_values(net.config))}"
            raise CheckpointMismatchError(msg)
        try:
            net.load(self.part("params"), self.part("state"))
            optimiser.load(self.part("optimizer"), self.optimiser_steps)
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
    position: Position,
) -> None:
    """Write a checkpoint of a run."""
    arrays: dict[str, np.ndarray] = {}
    for kind, part in (("params", net.params), ("state", net.state), ("optimizer", optimiser.state)):
        arrays |= {f"{kind}/{name}": asnumpy(array) for name, array in part.items()}
    values = {
        "gpuconv": gpuconv_version(),
        "config": to_values(config),
        "net": net.config,
        "data": {"name": data_name, "fingerprint": data_fingerprint},
        "optimizer": {"name": config.optimizer, "steps": optimiser.steps},
        "position": dataclasses.asdict(position),
    }
    checkpoint.save(path, arrays, values)


def load(path: Path) -> Snapshot:
    """Return the snapshot in a checkpoint; raise CheckpointMismatchError if it is the checkpoint of something else."""
    arrays, values = checkpoint.load(path)
    try:
        return Snapshot(
            path=path,
            config=from_values(values["config"]),
            net=values["net"],
            data_name=values["data"]["name"],
            data_fingerprint=values["data"]["fingerprint"],
            position=Position(**values["position"]),
            arrays=arrays,
            optimiser_steps=values["optimizer"]["steps"],
        )
    except (KeyError, TypeError, GpuconvError) as error:
        msg = f"{path} is not the checkpoint of a training run of this version: {error}"
        raise CheckpointMismatchError(msg) from error


def load_net(path: Path) -> nn.Net:
    """Return the net of a checkpoint, with its weights: ready for forward."""
    return net_of(load(path))


def net_of(snapshot: Snapshot) -> nn.Net:
    """Return the net of a snapshot, with its weights."""
    try:
        net = nn.build(snapshot.net)
        net.load(snapshot.part("params"), snapshot.part("state"))
    except GpuconvError as error:
        msg = f"{snapshot.path} does not hold a net that can be built: {error}"
        raise CheckpointMismatchError(msg) from error
    return net


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = [name for name in (*old, *(n for n in new if n not in old)) if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name)!r} there, {new.get(name)!r} here" for name in names)
