"""The weights that a new run starts from: those of a run or a checkpoint, put into its net by name.

The run is a new one all the same: its settings, data, first step, schedule and optimiser are its own, and nothing of it
is written if the weights do not fit.  Parameters, running statistics and filters that do not learn are taken.  The head,
which is the last affine layer or convolution and what follows it, goes by the names of the classes: what it knows of a
class that is there and here is taken, whatever the order; scores of other classes are drawn anew, and so is a head for
pictures of another size.  Pictures are normalised as those that the weights were trained on.  Once the run has a checkpoint, it needs the weights' file no more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..backend import asnumpy
from ..data.dataset import Dataset
from ..errors import CheckpointMismatchError, ConfigError, GpuconvError
from ..folders import path_of
from ..nn.store import put
from ..runs import checkpoint
from ..runs.checkpoint import Snapshot
from ..runs.classes import listed, same_name
from ..runs.config import OF_WEIGHTS, Config
from ..runs.folder import refuse_several
from ..runs.settings import PRESETS

Arrays = Mapping[str, Any]  # by name


def recipe_of(named: str) -> Config:
    """Return the settings of a run that starts from weights and asks for nothing else: their net, its preset's recipe."""
    there = checkpoint.load(_file(named)).config
    return dataclasses.replace(PRESETS[there.preset], weights=named, net=OF_WEIGHTS)


def read_weights(config: Config) -> Weights | None:
    """Return the weights that the settings of a new run name; None if they name none.

    Of a run that tests an average of weights (ema) they are the average.
    Raises ConfigError if there is no such file or folder, and what `checkpoint.load` and `net_of` raise.
    """
    if not config.weights:
        return None
    snapshot = checkpoint.load(_file(config.weights))
    net = checkpoint.net_of(snapshot)
    average = snapshot.part("average")
    if average and not snapshot.part("live_params"):  # beside which it is the net itself
        try:
            weight_average = nn.WeightAverage(net, snapshot.config.ema)
            weight_average.load(average)
        except GpuconvError as error:
            msg = f"{snapshot.path} does not hold the average of its weights: {error}"
            raise CheckpointMismatchError(msg) from error
        for name, array in weight_average.state.items():
            put(net.flat_params if name == "params" else net.state[name], array)
    return Weights(snapshot, net)


def _file(named: str) -> Path:
    """Return the checkpoint that a path names: itself, or the best one of a run."""
    path = path_of(named, "weights")
    refuse_several(path)
    if not path.is_dir():
        return path
    best, last = path / "best.safetensors", path / "last.safetensors"
    if not best.exists():
        way_out = f"name {last} for its weights as they are" if last.exists() else "name a run, or a checkpoint"
        msg = f"weights {path} has no best.safetensors, for no epoch of a run has ended there: {way_out}"
        raise ConfigError(msg)
    return best


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A net with the weights that a run starts from, and the checkpoint that they are from."""

    snapshot: Snapshot
    net: nn.Net

    @property
    def path(self) -> Path:
        return self.snapshot.path

    @property
    def image_size(self) -> int | None:
        """The height and width of the pictures that the net takes, if that is a square."""
        _, height, width = self.net.input_shape
        return height if height == width else None

    def normalised(self, dataset: Dataset) -> Dataset:
        """Return a data set with its pictures normalised as those that the weights were trained on, if that is recorded."""
        mean, std = self.snapshot.inputs.mean, self.snapshot.inputs.std
        if mean is None or std is None or len(mean) != len(dataset.mean):
            return dataset
        return dataclasses.replace(dataset, mean=mean, std=std)

    def fill(self, net: nn.Net, classes: Sequence[str]) -> list[str]:
        """Put the weights into the net of a run on these classes; return what was done, in sentences.

        Raises CheckpointMismatchError, with the first difference, for weights of another net; nothing is changed then.
        """
        sources, targets = ({**each.params, **each.state} for each in (self.net, net))
        head = _head(net)
        self._check(net, sources, targets, head)
        for name, target in targets.items():
            if name not in head:
                put(target, sources[name])
        return [self._origin(), *self._fill_head(net, sources, targets, head, classes)]

    def _origin(self) -> str:
        file, epoch = self.path, len(self.snapshot.position.rows)
        name = f"{file.resolve().parent.name}/{file.name}" if file.stem in ("best", "last") else file.name
        when = f" after epoch {epoch}" if epoch else ""
        return f"starting from {name}{when}: {_in_words(self.net.config)}"

    def _check(self, net: nn.Net, sources: Arrays, targets: Arrays, head: Mapping[str, int]) -> None:
        """Raise CheckpointMismatchError for the first array that is not there and here alike.

        Those of the head may differ by their classes, and by their inputs where pictures are of another size.
        """
        apart = [name for name in (*sources, *targets) if (name in sources) != (name in targets)]
        for name in (*apart, *sources):
            there, here = (None if name not in arrays else arrays[name].shape for arrays in (sources, targets))
            if there == here:
                continue
            if name in head and there is not None and here is not None:
                other_size = self.net.input_shape[1:] != net.input_shape[1:]
                if other_size or _without(there, head[name]) == _without(here, head[name]):
                    continue
            shapes = [f"has no {name}" if shape is None else f"has {name} {shape}" for shape in (there, here)]
            msg = (
                f"{self.path} is of another net than this run's: that one {shapes[0]}, this one {shapes[1]}; "
                f"{self._way_out(net)}"
            )
            raise CheckpointMismatchError(msg)

    def _way_out(self, net: nn.Net) -> str:
        """Return what to do about a net that does not fit."""
        there, here = self.net.input_shape, net.input_shape
        if there[0] != here[0]:
            return f"it was trained on pictures of {there[0]} channels, these have {here[0]}"
        if self.net.config["net"] == net.config["net"] and there != here:
            scaled = f": --image-size {there[1]} scales a folder's to that" if self.image_size else ""
            return f"it was trained on pictures of {_size(there)} pixels, these have {_size(here)}{scaled}"
        return f'its own net, {_in_words(self.net.config)}, is taken by --net weights (net="weights")'

    def _fill_head(
        self, net: nn.Net, sources: Arrays, targets: Arrays, head: Mapping[str, int], classes: Sequence[str]
    ) -> list[str]:
        """Put in what the head knows of the classes; return what is to be said of it."""
        names, (count,), own = " and ".join(head), self.net.output_shape, self.snapshot.classes
        for name, axis in head.items():
            there, here = sources[name].shape, targets[name].shape
            if _without(there, axis) != _without(here, axis):
                pixels = f"pictures of {_size(self.net.input_shape)} pixels there, {_size(net.input_shape)} here"
                return [f"{names} are drawn anew: {pixels}"]
            if (there[axis], here[axis]) != (count, len(classes)) and there != here:
                return [f"{names} are drawn anew: {count} classes there, {len(classes)} here"]
        places = self._places(classes)
        known = [label for label, place in enumerate(places) if place is not None]
        if places == list(range(count)):
            for name in head:
                put(targets[name], sources[name])
            return [] if own is not None else ["the classes there have no names: they are matched by number"]
        if not known or any(targets[name].shape[axis] != len(classes) for name, axis in head.items()):
            why = f"{count} classes there, {len(classes)} here"
            if count == len(classes) and own is not None:
                why = f"the classes there are {listed(own)}"
            return [f"{names} are drawn anew: {why}"]
        for name, axis in head.items():
            array = np.moveaxis(asnumpy(targets[name]).copy(), axis, 0)
            array[known] = np.moveaxis(asnumpy(sources[name]), axis, 0)[[places[label] for label in known]]
            put(targets[name], np.moveaxis(array, 0, axis))
        assert own is not None
        if len(known) == len(classes) == count:
            return [f"the classes stand in another order there, {listed(own)}: they are matched by name"]
        taken = f"of {names}, what belongs to {listed([classes[label] for label in known])} is taken over"
        anew = [name for label, name in enumerate(classes) if label not in known]
        return [taken + (f", and drawn anew for {listed(anew)}" if anew else "")]

    def _places(self, classes: Sequence[str]) -> list[int | None]:
        """Return for each class the number of the same one there, None where there is none.

        Where names are not recorded, as many classes are taken for the same ones.
        """
        if self.snapshot.classes is None:
            same = self.net.output_shape == (len(classes),)
            return [number if same else None for number in range(len(classes))]
        numbers = {same_name(name): number for number, name in enumerate(self.snapshot.classes)}
        return [numbers.get(same_name(name)) for name in classes]


def _head(net: nn.Net) -> dict[str, int]:
    """Return the arrays of the head, by name, with the axis along which each has one entry for each class."""
    axes: dict[str, int] = {}
    for prefix, leaf in reversed([*net.body.leaves()]):
        for key in (*leaf.declared, *leaf.declared_state):
            axes[f"{prefix}.{key}" if prefix else key] = 1 if isinstance(leaf, nn.Affine) and key == "w" else 0
        if isinstance(leaf, nn.Affine | nn.Conv):
            break
    return axes


def _in_words(config: Mapping[str, Any]) -> str:
    """Return a net's config as people name it: "ConvNet with widths 32, 64, 128"."""
    if "body" in config:
        return "a net of layers of its own"
    widths = ", ".join(map(str, config.get("widths", ())))
    return str(config["net"]) + (f" with widths {widths}" if widths else "")


def _size(shape: Sequence[int]) -> str:
    """Return the size of pictures (C, H, W) in words, the width first."""
    return f"{shape[2]} x {shape[1]}"


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
