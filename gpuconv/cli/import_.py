"""`gpuconv import`: weights from PyTorch or an exported ONNX file, as a checkpoint."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import contents
from ..errors import ArgTypeError, CheckpointMismatchError, ConfigError, ParamError, ShapeError
from ..plural import counted
from .parser import named_path

if TYPE_CHECKING:
    from ..runs.inputs import Inputs

_EXAMPLES = """\
examples:
  gpuconv import model.safetensors --net runs/convnet-1 -o mine.safetensors

torchvision sorts folders as texts (1, 10, 2), gpuconv by number (1, 2, 10).
Say in which order the scores of a model that was trained there stand:
  gpuconv import model.safetensors --net runs/convnet-1 -o mine.safetensors \\
    --classes 1,10,2,3,4,5,6,7,8,9
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "import",
        help="make a checkpoint of weights from PyTorch or ONNX",
        description=(
            "Make a checkpoint of a safetensors file with PyTorch's names, or of an ONNX file\n"
            "that gpuconv wrote.  `gpuconv eval` tests it, and a new run starts from it:\n"
            "gpuconv train --weights FILE."
        ),
        epilog=_EXAMPLES,
    )
    parser.add_argument("file", metavar="FILE", type=named_path, help="safetensors or ONNX, whatever its ending")
    parser.add_argument(
        "--net",
        metavar="CONFIG|RUN",
        type=named_path,
        required=True,
        help="which net: a run, its config.toml, a checkpoint",
    )
    parser.add_argument(
        *("-o", "--output"),
        metavar="FILE",
        type=named_path,
        required=True,
        help="checkpoint to write: NAME.safetensors",
    )
    parser.add_argument(
        "--classes",
        metavar="NAME,...",
        type=_names,
        help="names of the scores, in the file's order [what the file says, else --net's]",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="with CONFIG: folder of its data set")
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    parser.set_defaults(run=_import)


def _names(text: str) -> tuple[str, ...]:
    """Return names between commas, those with commas in quotation marks, as one line of a CSV file."""
    try:
        return tuple(next(csv.reader([text], skipinitialspace=True), []))
    except csv.Error as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _import(arguments: argparse.Namespace) -> int:
    from .. import nn
    from ..export import from_onnx, from_torch, onnx_reading, torch_file, walk
    from ..export.check import samples
    from ..nn.finite import check_scores
    from ..runs import checkpoint
    from ..runs.inputs import Inputs
    from ..train import recipe

    output = walk.target(arguments.output, ".safetensors")
    if not arguments.force:
        walk.refuse_existing(output)
    config, net, data, known = _net(arguments.net, arguments.data_dir)
    onnx = _is_onnx(arguments.file)
    read = from_onnx if onnx else from_torch
    metadata: Any = onnx_reading if onnx else torch_file
    read(arguments.file, net)
    classes, note = _classes(arguments, net, known.classes, metadata.classes_in(arguments.file))
    mean, std = metadata.statistics_in(arguments.file) or (known.mean, known.std)
    try:
        inputs = Inputs(known.shape, None if classes is None else tuple(classes), mean, std)
        inputs.check_net(net)
    except (ArgTypeError, ParamError, ShapeError) as error:
        msg = f"{arguments.file} does not fit the net: {error}"
        raise CheckpointMismatchError(msg) from error
    check_scores(net, samples(net), str(arguments.file))
    checkpoint.save(
        output,
        config=config,
        net=net,
        optimiser=recipe.optimiser(config, net),
        data_name=data[0],
        data_fingerprint=data[1],
        inputs=inputs,
        position=checkpoint.Position(),
        average=nn.WeightAverage(net, config.ema) if config.ema else None,
    )
    sys.stdout.write(f"wrote {output}: {counted(net.flat_params.size, 'parameter')} from {arguments.file}\n{note}")
    return 0


def _is_onnx(path: Path) -> bool:
    """Return whether a file is to be read as ONNX, as its content says, or its ending where that says neither."""
    try:
        start = contents.head(path)
    except OSError:  # which its reader says
        start = b""
    if contents.is_safetensors(start):
        return False
    return contents.is_onnx(start) or path.suffix == ".onnx"


def _classes(
    arguments: argparse.Namespace, net: Any, known: Sequence[str] | None, written: Sequence[str] | None
) -> tuple[Sequence[str] | None, str]:
    """Return the names of the file's scores, in their order, and a line on an order that may be or is another.

    known: those of --net.   written: those that the file itself names.
    """
    from ..runs.classes import listed, same_name

    file, named = arguments.file, arguments.classes
    if named is not None:
        if net.output_shape != (len(named),) or len({same_name(name) for name in named}) < len(named) or "" in named:
            msg = (
                f"--classes must name each of the net's {net.output_shape[0]} scores once, between commas, "
                f"got {len(named)}: {listed(named)}"
            )
            raise ConfigError(msg)
        if written is not None and [*map(same_name, written)] != [*map(same_name, named)]:
            msg = f"{file} says that its classes are {listed(written)}, --classes {listed(named)}: leave out --classes"
            raise ConfigError(msg)
    names = named or written
    if written is not None and net.output_shape != (len(written),):
        msg = f"{file} names {len(written)} classes for {net.output_shape[0]} scores, {listed(written)}: its metadata are damaged"
        raise CheckpointMismatchError(msg)
    if names is None:
        if known is None or sorted(known) == list(known):
            return known, ""
        return known, (
            f"(it names no classes and is taken to have them in the order of {arguments.net}: {listed(known)}; "
            f"if they are in that of torchvision, which sorts them, add --classes "
            f"{','.join(sorted(known)[:4])}{',...' if len(known) > 4 else ''})\n"
        )
    if known is None:
        return names, ""
    spelled = {same_name(name): name for name in known}
    if unknown := [name for name in names if same_name(name) not in spelled]:
        where, way_out = "--classes", "write them as they are there, in the file's order"
        if named is None:
            where, way_out = file, "take the run or config of the data that it was trained on"
        msg = (
            f"{where} has {'classes' if len(unknown) > 1 else 'a class'} that {arguments.net} does not know: "
            f"{listed(unknown)}; known are {listed(known)}: {way_out}"
        )
        raise CheckpointMismatchError(msg)
    ordered = [spelled[same_name(name)] for name in names]
    note = f"(its classes stand in another order than in {arguments.net}, {listed(ordered)}: they are matched by name)"
    return ordered, "" if ordered == list(known) else f"{note}\n"


def _net(path: Path, data_dir: str | None) -> tuple[Any, Any, tuple[str, str], Inputs]:
    """Return settings, a net, name and fingerprint of the data set, and what the net takes.

    Of a run, or as a config file asks.
    """
    from ..runs import checkpoint
    from ..runs.dataset import fingerprint, load_dataset
    from ..runs.folder import checkpoint_in
    from ..runs.inputs import Inputs
    from ..runs.settings import read
    from ..train import recipe
    from ..train.weights import read_weights

    if path.is_dir():
        path = checkpoint_in(path, "last", "best")
    if path.suffix == ".safetensors":
        snapshot = checkpoint.load(path)
        return (
            snapshot.config,
            checkpoint.net_of(snapshot),
            (snapshot.data_name, snapshot.data_fingerprint),
            snapshot.inputs,
        )
    config = read(path)
    dataset = load_dataset(config, data_dir=data_dir)
    weights = read_weights(config)
    of_weights = None if weights is None else weights.net.config
    net = recipe.net(config, tuple(dataset.x_train.shape[1:]), len(dataset.classes), of_weights=of_weights)
    return config, net, (dataset.name, fingerprint(dataset)), Inputs.of(dataset)
