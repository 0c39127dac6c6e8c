"""`gpuconv import`: weights from PyTorch or an exported ONNX file, as a checkpoint."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .parser import named_path


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "import",
        help="make a checkpoint of weights from PyTorch or ONNX",
        description=(
            "Make a checkpoint of a safetensors file with PyTorch's names, or of an ONNX file\n"
            "that gpuconv wrote.  It stands before the first epoch, for `gpuconv eval`, or as\n"
            "the start of a run."
        ),
    )
    parser.add_argument("file", metavar="FILE", type=named_path, help="FILE.safetensors or FILE.onnx")
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
    parser.add_argument("--data-dir", metavar="DIR", help="with CONFIG: folder of its data set")
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    parser.set_defaults(run=_import)


def _import(arguments: argparse.Namespace) -> int:
    from .. import nn
    from ..export import from_onnx, from_torch, walk
    from ..export.check import samples
    from ..nn.finite import check_scores
    from ..runs import checkpoint
    from ..train import recipe

    output = walk.target(arguments.output, ".safetensors")
    if not arguments.force:
        walk.refuse_existing(output)
    readers = {".onnx": from_onnx, ".safetensors": from_torch}
    if arguments.file.suffix not in readers:
        msg = (
            f"the file to read must end in .safetensors or .onnx, got {arguments.file}: "
            "save PyTorch's weights by safetensors.torch.save_file(model.state_dict(), FILE)"
        )
        raise ConfigError(msg)
    config, net, data = _net(arguments.net, arguments.data_dir)
    readers[arguments.file.suffix](arguments.file, net)
    check_scores(net, samples(net), str(arguments.file))
    checkpoint.save(
        output,
        config=config,
        net=net,
        optimiser=recipe.optimiser(config, net),
        data_name=data[0],
        data_fingerprint=data[1],
        position=checkpoint.Position(),
        average=nn.WeightAverage(net, config.ema) if config.ema else None,
    )
    sys.stdout.write(f"wrote {output}: {net.flat_params.size:,} parameters from {arguments.file}\n")
    return 0


def _net(path: Path, data_dir: str | None) -> tuple[Any, Any, tuple[str, str]]:
    """Return settings, a net, and name and fingerprint of the data set, of a run or as a config file asks for them."""
    from ..runs import checkpoint
    from ..runs.dataset import fingerprint, load_dataset
    from ..runs.settings import read
    from ..train import recipe

    if path.is_dir():
        checkpoints = [path / f"{name}.safetensors" for name in ("last", "best")]
        path = next((file for file in checkpoints if file.exists()), checkpoints[0])
    if path.suffix == ".safetensors":
        snapshot = checkpoint.load(path)
        return snapshot.config, checkpoint.net_of(snapshot), (snapshot.data_name, snapshot.data_fingerprint)
    config = read(path)
    dataset = load_dataset(config, data_dir=data_dir)
    net = recipe.net(config, tuple(dataset.x_train.shape[1:]), len(dataset.classes))
    return config, net, (dataset.name, fingerprint(dataset))
