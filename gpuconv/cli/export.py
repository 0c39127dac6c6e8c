"""`gpuconv export`: a trained net as a file for ONNX programs or for PyTorch, checked there before it is written."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, ExportCheckError, GpuconvError
from .parser import add_json, document, named_path

if TYPE_CHECKING:
    from ..runs.inputs import Inputs

_SEED = 0


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        help="write a trained net for ONNX or PyTorch",
        description=(
            "Write the net of a run for other programs: an ONNX file, or for PyTorch a\n"
            "safetensors file and a Python module beside it that builds the net.  The other\n"
            "program, where it is installed, first runs the net, and the scores are compared."
        ),
    )
    parser.add_argument("run_path", metavar="RUN", type=named_path, help="run folder, or a checkpoint file")
    parser.add_argument("--to", dest="target", choices=("onnx", "torch"), required=True, help="for which program")
    parser.add_argument(
        *("-o", "--output"),
        metavar="FILE",
        type=named_path,
        help="file to write [net.onnx, net_torch.safetensors in RUN]",
    )
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="which of the run's [best]")
    parser.add_argument(
        "--input",
        choices=("normalized", "unit", "uint8"),
        help="onnx: what the file takes: inputs of the net, pictures from 0 to 1, or bytes [normalized]",
    )
    parser.add_argument(
        "--dtype", choices=("float16", "float32", "float64"), help="onnx: type of weights and scores [the net's]"
    )
    parser.add_argument(
        "--check", action=argparse.BooleanOptionalAction, help="compare scores before writing [yes, if installed]"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder that the run's data set is in now")
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    add_json(parser)
    parser.set_defaults(run=_export)


@dataclass(frozen=True, slots=True, eq=False)
class _Data:
    """What an export needs of a run's data set: pictures to compare scores on."""

    inputs: Inputs  # the net's, made whole where the checkpoint is of an earlier version
    pictures: Any  # (N, C, H, W) uint8, from the test images
    name: str
    notes: list[str]  # on classes in another order


def _export(arguments: argparse.Namespace) -> int:
    from .. import export
    from ..export import check, onnx_file, torch_file, walk
    from ..nn.finite import check_scores
    from ..runs import checkpoint
    from ..runs.prediction import checkpoint_file
    from ..show import screen

    to_onnx = arguments.target == "onnx"
    if not to_onnx and (arguments.input or arguments.dtype):
        msg = "--input and --dtype are for --to onnx: a module of PyTorch is the net alone, and changes its own dtype"
        raise ConfigError(msg)
    path = checkpoint_file(arguments.run_path, arguments.checkpoint)
    snapshot = checkpoint.load(path)
    net = checkpoint.net_of(snapshot)
    check_scores(net, check.samples(net), str(path))
    output = arguments.output or path.with_name("net.onnx" if to_onnx else "net_torch.safetensors")
    output = walk.target(output, ".onnx" if to_onnx else ".safetensors")
    if output.resolve() == path.resolve():
        msg = f"{output} is the checkpoint itself: choose another name"
        raise ConfigError(msg)
    outputs = [output] if to_onnx else [output, output.with_suffix(".py")]
    if not arguments.force:
        walk.refuse_existing(*outputs)
    checked = check.available(arguments.target)
    if arguments.check and not checked:
        msg = f"--check needs {'the package onnx' if to_onnx else 'PyTorch'}, which is not installed"
        raise ConfigError(msg)
    checked = checked and arguments.check is not False

    wanted = arguments.input or "normalized"
    data, missing = _data(snapshot, arguments.data_dir)
    inputs = snapshot.inputs if data is None else data.inputs
    if inputs.mean is None and wanted != "normalized":
        msg = f"pictures can be normalised in the file only with the run's data set at hand: {missing}"
        raise ConfigError(msg)
    statistics: dict[str, Any] = {"mean": inputs.mean, "std": inputs.std}
    facts = {"classes": inputs.classes, **statistics, "scaling": inputs.scaling if inputs.mean is not None else None}
    written: Any
    if to_onnx:
        model = export.onnx_model(net, **facts, input=wanted, dtype=arguments.dtype)
        contents = [onnx_file.encode(model)]
        written = (model,)
    else:
        contents = list(torch_file.encode(net, output.name, **facts))
        written = tuple(contents)
    left_out = {"names of classes": inputs.classes, "mean and std": inputs.mean, "test pictures": data or not checked}
    unknown = [what for what, value in left_out.items() if not value]
    checks = []
    if checked:
        compare = export.check_onnx if to_onnx else export.check_torch
        if wanted == "normalized":
            checks.append(_agreed("random inputs", compare(net, *written, normalized=check.samples(net))))
        else:
            noise = np.random.default_rng(_SEED).integers(0, 256, (check.SAMPLES, *inputs.shape), dtype=np.uint8)
            checks.append(_agreed("random pictures", compare(net, *written, pictures=noise, **statistics)))
        if data is not None:
            agreement = compare(net, *written, pictures=data.pictures, **statistics)
            checks.append(_agreed(f"test pictures of {data.name}", agreement))
    walk.write(dict(zip(outputs, contents, strict=True)), overwrite=arguments.force)
    epoch, notes = len(snapshot.position.rows), [] if data is None else data.notes
    files = {str(name): len(content) for name, content in zip(outputs, contents, strict=True)}
    if arguments.json:
        agreements = [{"inputs": what, **dataclasses.asdict(agreement)} for what, agreement in checks]
        values = {"checkpoint": str(path), "epoch": epoch, "files": files, "checks": agreements}
        sys.stdout.write(document({**values, "without": unknown, "notes": notes}) + "\n")
        return 0
    lines = [f"{path}, after epoch {epoch}"]
    if unknown:
        lines.append(f"without {', '.join(unknown)}: {snapshot.data_name} is not here")
    lines += [f"({note})" for note in notes]
    lines += [_verdict(what, agreement) for what, agreement in checks]
    if not checked:
        lines.append("not checked" if arguments.check is False else "not checked: PyTorch is not installed")
    lines += [f"wrote {name}, {size:,} bytes" for name, size in files.items()]
    screen.say(lines)
    return 0


def _agreed(what: str, agreement: Any) -> tuple[str, Any]:
    """Return what an agreement is on, and the agreement; raise ExportCheckError if it is none."""
    if not agreement.within:
        worst = f"rounding explains {agreement.allowed:.2g} where it is worst"
        msg = f"{_verdict(what, agreement)}; {worst}: nothing was written"
        raise ExportCheckError(msg)
    return what, agreement


def _verdict(what: str, agreement: Any) -> str:
    """Return one line on an agreement."""
    classes = (
        "the same class for all"
        if agreement.same_class == agreement.count
        else f"the same class for {agreement.same_class} of them"
    )
    return f"{agreement.program}, {agreement.count} {what}: scores differ by at most {agreement.largest:.2g}, {classes}"


def _data(snapshot: Any, folder: str | None) -> tuple[_Data | None, str]:
    """Return what a run's data set gives, or None and why if it is not on this machine and no folder is named."""
    from ..export.check import SAMPLES
    from ..runs.classes import differences
    from ..runs.dataset import load_dataset
    from ..runs.inputs import Inputs

    known = snapshot.data_name, snapshot.data_fingerprint
    try:
        dataset = load_dataset(
            snapshot.config, data_dir=folder, download=False, notice=lambda text: None, trained_on=known
        )
    except GpuconvError as error:
        if folder is not None:
            raise
        return None, str(error)
    notes = differences(dataset.classes if snapshot.classes is None else snapshot.classes, dataset)
    fitted = snapshot.inputs.fitted(dataset)
    return _Data(Inputs.of(fitted), fitted.x_test[:SAMPLES], dataset.name, notes), ""
