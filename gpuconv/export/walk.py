"""What both formats need from a net: its layers by table, their arrays by name, the facts that go into a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .. import bounded, checks, durable, nn
from ..backend import asnumpy
from ..errors import ArgTypeError, CheckpointMismatchError, ConfigError, GpuconvError, ShapeError, UnsupportedError
from ..folders import path_of
from ..version import gpuconv_version

T = TypeVar("T")

RUNNING = ("running_mean", "running_var")  # the arrays that neither learn nor are frozen


@dataclass(frozen=True, slots=True)
class Facts:
    """What a user of the file must know beside the net: names of the classes, how pictures become inputs."""

    classes: tuple[str, ...] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    scaling: str | None

    def as_json(self) -> dict[str, str]:
        """Return those that are known, each as JSON."""
        known = {name: getattr(self, name) for name in ("classes", "mean", "std", "scaling")}
        return {name: json.dumps(fact, ensure_ascii=False) for name, fact in known.items() if fact is not None}


def facts(
    net: nn.Net,
    classes: Sequence[str] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    scaling: str | None,
) -> Facts:
    """Return the facts, each None or checked against the net."""
    if classes is not None:
        if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
            msg = f"classes must be a sequence of names, got {classes!r}"
            raise ArgTypeError(msg)
        if net.output_shape != (len(classes),):
            msg = f"classes must have one name per score: the net gives {net.output_shape}, got {len(classes)} names"
            raise ShapeError(msg)
    if (mean is None) != (std is None):
        msg = f"mean and std must be given together, got mean={mean!r}, std={std!r}"
        raise ArgTypeError(msg)
    channels = net.input_shape[0]
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != channels:
            msg = f"{name} must have one entry per channel ({channels}), got {len(values)}"
            raise ShapeError(msg)
    if scaling is not None and not (isinstance(scaling, str) and scaling.isprintable()):
        msg = f"scaling must be a text of printable characters, got {scaling!r}"
        raise ArgTypeError(msg)
    low = -float("inf")
    return Facts(
        None if classes is None else tuple(classes),
        None if mean is None else tuple(checks.real("mean", value, low=low) for value in mean),
        None if std is None else tuple(checks.real("std", value, low=0.0, open_low=True) for value in std),
        scaling,
    )


def check_net(net: Any) -> None:
    """Raise unless this is a Net whose forward is what its layers say."""
    if not isinstance(net, nn.Net):
        msg = f"net must be a gpuconv.nn.Net, got {type(net).__module__}.{type(net).__qualname__}"
        raise ArgTypeError(msg)
    if type(net).forward is not nn.Net.forward:
        msg = f"{type(net).__name__} has a forward of its own, which cannot be written to a file"
        raise UnsupportedError(msg)


def entry(table: Mapping[str, T], name: str, layer: nn.Layer, what: str) -> T:
    """Return a table's entry for a layer: that of its class, named as in gpuconv.nn, or of a class it inherits from.

    A subclass with a forward of its own is another function: it needs an entry of its own.
    """
    cls = type(layer)
    for parent in cls.__mro__:
        known = getattr(nn, parent.__name__, None) is parent and parent.__name__ in table
        if known and cls.forward is parent.forward and cls._forward is parent._forward:  # type: ignore[attr-defined]
            return table[parent.__name__]
    where = f"layer {name}" if name else "the net's layer"
    msg = f"{where} is a {cls.__name__}, which cannot be written as {what}; known: {', '.join(sorted(table))}"
    raise UnsupportedError(msg)


def arrays(layer: nn.Layer) -> dict[str, np.ndarray]:
    """Return the arrays of a layer on the host, by name: what learns, what is frozen, running statistics."""
    return {name: asnumpy(array) for name, array in (*layer.state.items(), *layer.params.items())}


def frozen(layer: nn.Layer) -> list[str]:
    """Return the names of a layer's arrays that are weights elsewhere, but do not learn here."""
    return [] if layer.children() else [name for name in layer.state if name not in RUNNING]


def dotted(prefix: str, name: str) -> str:
    """Return the name of what lies inside: "stage1" and "conv1" give "stage1.conv1"."""
    return f"{prefix}.{name}" if prefix else name


def record(net: nn.Net, dtype: np.dtype) -> str:
    """Return, as JSON, from what to build the net again, in the dtype of the file."""
    return json.dumps({"gpuconv": gpuconv_version(), "net": {**net.config, "dtype": dtype.name}}, sort_keys=True)


def rebuilt(text: str | None, path: Path) -> nn.Net:
    """Return a new net from what `record` wrote."""
    if text is None:
        msg = f"{path} does not say which net it holds: give the net to load it into"
        raise CheckpointMismatchError(msg)
    try:
        return nn.build(bounded.from_json(text)["net"])
    except (ValueError, KeyError, TypeError, RecursionError, GpuconvError) as error:
        msg = f"{path} does not describe a net that this version can build: {error}"
        raise CheckpointMismatchError(msg) from error


def named_classes(text: str | None, path: Path) -> tuple[str, ...] | None:
    """Return the names of classes in the metadata of a file, where they are JSON; None if there are none."""
    if text is None:
        return None
    try:
        names = bounded.from_json(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        msg = f"{path} names its classes by something other than a list of names: {text[:80]}"
        raise CheckpointMismatchError(msg)
    return tuple(names)


def numbers(text: str | None, name: str, path: Path) -> tuple[float, ...] | None:
    """Return the numbers under a name in the metadata of a file, where they are JSON; None if there are none."""
    if text is None:
        return None
    try:
        values = bounded.from_json(text)
        if isinstance(values, list):
            return tuple(checks.real(name, value, low=-float("inf")) for value in values)
    except (ValueError, TypeError):  # what JSON and checks raise
        pass
    msg = f"{path}: {name} must be a list of numbers, got {text[:80]}"
    raise CheckpointMismatchError(msg)


def fill(net: nn.Net, weights: Mapping[str, np.ndarray], path: Path) -> None:
    """Copy weights by the net's names into it, all or none.

    weights must hold each of them in its shape, finite, in the net's dtype or a narrower one, so that no bit is lost.
    """
    targets = {**net.params, **net.state}
    ready: dict[str, np.ndarray] = {}
    for name, array in weights.items():
        target = targets[name]
        if array.dtype.kind != "f" or not np.can_cast(array.dtype, target.dtype, "safe"):
            msg = f"{path}: {name} is {array.dtype}, which a net of {target.dtype} cannot take without loss"
            raise CheckpointMismatchError(msg)
        if not np.isfinite(array).all():
            msg = f"{path}: {name} holds NaN or infinity"
            raise CheckpointMismatchError(msg)
        ready[name] = array.astype(target.dtype, copy=False)
    try:
        net.load({name: ready[name] for name in net.params}, {name: ready[name] for name in net.state})
    except GpuconvError as error:
        msg = f"{path} does not fit the net: {error}"
        raise CheckpointMismatchError(msg) from error


def target(path: str | os.PathLike[str], suffix: str) -> Path:
    """Return the path of a file to write; raise ConfigError for another ending, or a folder that is not there."""
    path = path_of(path, "the file to write")
    if path.suffix != suffix:
        msg = f"the file to write must end in {suffix}, got {path}"
        raise ConfigError(msg)
    if not path.parent.is_dir():
        msg = f"there is no folder {path.parent} to write {path.name} into"
        raise ConfigError(msg)
    return path


def refuse_existing(*paths: Path) -> None:
    """Raise ConfigError if one of the files is there already."""
    for path in paths:
        if path.exists():
            msg = f"{path} is there already: overwrite it with --force (overwrite=True), or choose another name"
            raise ConfigError(msg)


def write(contents: Mapping[Path, bytes], *, overwrite: bool) -> None:
    """Write files, each whole or not at all, after a look that none is there unless they may be overwritten."""
    if not overwrite:
        refuse_existing(*contents)
    for path, content in contents.items():
        durable.write(path, content)
