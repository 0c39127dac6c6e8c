"""The net of an ONNX file that gpuconv wrote: the graph must be the one that onnx_file.py makes of it, node for node."""

from __future__ import annotations

import json
import os
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .. import bounded, contents, nn
from ..errors import CheckpointCorruptError, CheckpointMismatchError, ConfigError, UnsupportedError
from ..folders import path_of
from . import walk
from .onnx_file import onnx_model
from .onnx_graph import library


def from_onnx(path: str | os.PathLike[str], net: nn.Net | None = None) -> nn.Net:
    """Return the net of an ONNX file that gpuconv wrote: `net` with the file's weights, or a new one.

    The graph must be, node for node, the one that this version writes for the net; weights are taken by name, bit for
    bit.  Not supported: files of other programs, or changed by one (an optimiser or converter renames and fuses).
    Raises ConfigError for a missing file, CheckpointCorruptError for one that is no ONNX file, CheckpointMismatchError
    if the graph is another net's; the net is untouched then.

    >>> net = nn.ConvNet(4, input_shape=(3, 8, 8), seed=1)
    >>> export.to_onnx(net, "net.onnx")
    >>> np.array_equal(export.from_onnx("net.onnx").params["conv1.w"], net.params["conv1.w"])
    True
    """
    path = path_of(path, "the file")
    if net is not None:
        walk.check_net(net)
    onnx, model, values = _read(path)
    if net is None:
        net = walk.rebuilt(values["gpuconv"], path)
    arrays = {tensor.name: _array(onnx, tensor, path) for tensor in model.graph.initializer}
    weights = {name: arrays[name] for name in (*net.params, *net.state) if name in arrays}
    dtypes = {array.dtype for array in weights.values()}
    try:
        facts = {name: json.loads(values[name]) if name in values else None for name in ("classes", "mean", "std")}
        expected = onnx_model(net, **facts, input=values.get("input", ""), dtype=dtypes.pop() if dtypes else None)
    except (ValueError, TypeError, RecursionError) as error:
        msg = f"{path} does not fit the net: {error}"
        raise CheckpointMismatchError(msg) from error
    _compare(model.graph, expected.graph, path)
    constants = {tensor.name: tensor for tensor in expected.graph.initializer}
    if missing := [name for name in constants if name not in arrays]:
        msg = f"{path} does not fit the net: missing: {', '.join(missing)}"
        raise CheckpointMismatchError(msg)
    for name, array in arrays.items():
        if name not in constants:
            msg = f"{path} does not fit the net: unexpected: {name}"
            raise CheckpointMismatchError(msg)
        if name not in weights and array.tobytes() != _array(onnx, constants[name], path).tobytes():
            msg = f"{path} does not fit the net: its constant {name} is another"
            raise CheckpointMismatchError(msg)
    walk.fill(net, weights, path)
    return net


def classes_in(path: Path) -> tuple[str, ...] | None:
    """Return the names of the scores that an ONNX file of gpuconv's holds; None if it names none."""
    return walk.named_classes(_read(path)[2].get("classes"), path)


def statistics_in(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and std of the pictures, as the file holds them; None if it does not."""
    values = _read(path)[2]
    mean, std = (walk.numbers(values.get(name), name, path) for name in ("mean", "std"))
    return None if mean is None or std is None else (mean, std)


def _read(path: Path) -> tuple[Any, Any, dict[str, str]]:
    """Return the package onnx, the model in a file, and the metadata that gpuconv wrote into it."""
    onnx = library()
    try:
        content = bounded.read(path, bounded.WEIGHTS)
    except OSError as error:
        msg = f"{path} could not be read ({error.strerror or error})"
        raise ConfigError(msg) from error
    if words := contents.stand_in(content[: contents.HEAD]):
        msg = f"{path} is not a sound ONNX file: it {words}"
        raise CheckpointCorruptError(msg)
    try:
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's own, which differ between its versions, and the checker's
        msg = f"{path} is not a sound ONNX file: {_first_line(error)}"
        raise CheckpointCorruptError(msg) from error
    values = {prop.key: prop.value for prop in model.metadata_props}
    if model.producer_name != "gpuconv" or "gpuconv" not in values:
        msg = f"{path} was not written by gpuconv: only such files can be read back"
        raise UnsupportedError(msg)
    return onnx, model, values


def _array(onnx: Any, tensor: Any, path: Path) -> np.ndarray:
    """Return the values of an initialiser that lies in the file itself."""
    if tensor.data_location != onnx.TensorProto.DEFAULT:
        msg = f"{path}: the values of {tensor.name} lie in another file, which gpuconv does not write or read"
        raise UnsupportedError(msg)
    if len(tensor.raw_data) > prod(tensor.dims) * 8:
        msg = f"{path}: {tensor.name} has more bytes than its shape {tuple(tensor.dims)} holds"
        raise CheckpointCorruptError(msg)
    return onnx.numpy_helper.to_array(tensor)


def _compare(graph: Any, expected: Any, path: Path) -> None:
    """Raise CheckpointMismatchError, with the first node that differs, unless the graphs are one."""
    for place in range(max(len(graph.node), len(expected.node))):
        of_file, of_net = (g.node[place] if place < len(g.node) else None for g in (graph, expected))
        if of_file is None or of_net is None or of_file != of_net:
            shown = [f"{n.op_type} {n.name}" if n is not None else "none" for n in (of_file, of_net)]
            detail = "with other settings or inputs" if shown[0] == shown[1] else f"the net's is {shown[1]}"
            msg = f"{path} does not fit the net: its node {place + 1} is {shown[0]}, {detail}"
            raise CheckpointMismatchError(msg)
    for what, of_file, of_net in (
        ("input", graph.input, expected.input),
        ("output", graph.output, expected.output),
    ):
        if list(of_file) != list(of_net):
            msg = f"{path} does not fit the net: its {what} has another name, shape or type"
            raise CheckpointMismatchError(msg)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
