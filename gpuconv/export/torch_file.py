"""A net for PyTorch, and back: weights in safetensors under torch's names, and a Python module that builds the net.

What differs from gpuconv: Linear holds its weight transposed; the momentum of batch norm weighs the new value,
1 - ours; and training in PyTorch updates running_var by the unbiased variance, where ours is the biased one.  In use
(eval) both normalise by what is stored, so it is copied as it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from .. import bounded, contents, nn
from ..errors import CheckpointCorruptError, CheckpointMismatchError, ConfigError, UnsupportedError
from ..folders import path_of
from . import walk
from .torch_source import module_source

_COUNT = "num_batches_tracked"
_WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before every name


def to_torch(
    net: nn.Net,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scaling: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a net for PyTorch: path, which must end in .safetensors, and a module of the same name in .py beside it.

    The module needs torch and safetensors, not gpuconv.  Its `load()` returns the net with these weights; another
    torch.nn.Module with the same names takes them by load_state_dict(safetensors.torch.load_file(path)).
    Inputs are normalised as for net.forward; classes, mean, std and scaling, which says how pictures of other sizes are
    scaled, become constants of the module; with mean and std it has `normalize`.
    Raises ConfigError, before anything is written, for a path that cannot be used and, without overwrite=True, if one
    of the files is there; UnsupportedError for a layer that has no counterpart.

    >>> from pathlib import Path
    >>> export.to_torch(nn.ConvNet(4, input_shape=(3, 8, 8)), "net.safetensors")
    >>> sorted(path.name for path in Path().glob("net.*"))
    ['net.py', 'net.safetensors']
    """
    path = walk.target(path, ".safetensors")
    weights, source = encode(net, path.name, classes=classes, mean=mean, std=std, scaling=scaling)
    walk.write({path: weights, path.with_suffix(".py"): source}, overwrite=overwrite)


def from_torch(path: str | os.PathLike[str], net: nn.Net | None = None) -> nn.Net:
    """Return `net` with the weights of a safetensors file under PyTorch's names, bit for bit.

    net=None: a new net, as the file describes it; to_torch has written how.  The file may come from PyTorch, too:
    safetensors.torch.save_file(model.state_dict(), path) of a model with the names that to_torch gives.
    Raises ConfigError for a missing file or one that is no safetensors, CheckpointMismatchError for names, shapes or
    dtypes that are not the net's, and for NaN or infinity; the net is untouched then.

    >>> net = nn.ConvNet(4, input_shape=(3, 8, 8), seed=1)
    >>> export.to_torch(net, "net.safetensors")
    >>> np.array_equal(export.from_torch("net.safetensors").params["conv1.w"], net.params["conv1.w"])
    True
    """
    path = path_of(path, "the file")
    if net is not None:
        walk.check_net(net)
    arrays, metadata = _read(path)
    if net is None:
        net = walk.rebuilt(metadata.get("gpuconv"), path)
    arrays = _unwrapped(arrays)
    named = {array.name: array for array in _named(net)}
    problems = []
    if missing := [name for name in named if name not in arrays]:
        problems.append(f"missing: {', '.join(missing)}")
    counts = {walk.dotted(name, _COUNT) for name, layer in net.body.leaves() if isinstance(layer, nn.BatchNorm)}
    if unexpected := [name for name in arrays if name not in named and name not in counts]:
        problems.append(f"unexpected: {', '.join(unexpected)}")
    for name, array in named.items():
        if name in arrays and arrays[name].shape != array.shape:
            problems.append(f"{name} must be {array.shape}, got {arrays[name].shape}")
    if problems:
        msg = f"{path} does not fit the net: {'; '.join(problems)}"
        raise CheckpointMismatchError(msg)
    walk.fill(net, {array.own_name: _turned(arrays[name], array) for name, array in named.items()}, path)
    return net


def classes_in(path: Path) -> tuple[str, ...] | None:
    """Return the names of the scores that a safetensors file holds; None if it names none."""
    return walk.named_classes(_read(path)[1].get("classes"), path)


def statistics_in(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and std of the pictures, as the file holds them; None if it does not."""
    values = _read(path)[1]
    mean, std = (walk.numbers(values.get(name), name, path) for name in ("mean", "std"))
    return None if mean is None or std is None else (mean, std)


def encode(
    net: nn.Net,
    weights_name: str,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scaling: str | None = None,
) -> tuple[bytes, bytes]:
    """Return the bytes of the weights and of the module that loads them from a file of this name."""
    walk.check_net(net)
    facts = walk.facts(net, classes, mean, std, scaling)
    source = module_source(net, facts, weights_name).encode()
    # safetensors writes the memory of an array as it lies, whatever its strides say: hand over contiguous ones only.
    tensors = {array.name: np.ascontiguousarray(_turned(array.values, array)) for array in _named(net)}
    for name, layer in net.body.leaves():
        if isinstance(layer, nn.BatchNorm):  # only torch's momentum=None would read it
            tensors[walk.dotted(name, _COUNT)] = np.zeros((), np.int64)
    values = {"format": "pt", "gpuconv": walk.record(net, net.dtype)}
    values |= facts.as_json()
    # The header is written in the order of a hash table with a random seed: equal nets must give equal bytes.
    return _ordered(safetensors.numpy.save(tensors, metadata=values)), source


# Names and layouts --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Named:
    """An array of a net and what PyTorch calls it."""

    own_name: str
    name: str
    values: np.ndarray
    transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in PyTorch."""
        return self.values.shape[::-1] if self.transposed else self.values.shape


_NAMES = {
    "w": "weight",
    "b": "bias",
    "gamma": "weight",
    "beta": "bias",
    "running_mean": "running_mean",
    "running_var": "running_var",
}


def _named(net: nn.Net) -> Iterator[_Named]:
    """Yield every array of a net, with its name in PyTorch."""
    for prefix, layer in net.body.leaves():
        transposed = isinstance(layer, nn.Affine)
        for name, values in walk.arrays(layer).items():
            yield _Named(
                walk.dotted(prefix, name),
                walk.dotted(prefix, _NAMES[name]),
                values,
                transposed and name == "w",
            )


def _turned(values: np.ndarray, array: _Named) -> np.ndarray:
    return values.T if array.transposed else values


def _unwrapped(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays without a prefix that all names share and that stands for a wrapper of the model."""
    for wrapper in _WRAPPERS:
        if arrays and all(name.startswith(wrapper) for name in arrays):
            return _unwrapped({name.removeprefix(wrapper): array for name, array in arrays.items()})
    return arrays


# Files --------------------------------------------------------------------------------------------------------------


def _ordered(content: bytes) -> bytes:
    """Return a safetensors file with the entries of its header sorted, in the header's own length."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(dict(sorted(header.items())), separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the arrays stay aligned
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata of a safetensors file."""
    try:
        content = bounded.read(path, bounded.WEIGHTS)
    except OSError as error:
        msg = f"{path} could not be read ({error.strerror or error})"
        raise ConfigError(msg) from error
    try:
        arrays = safetensors.numpy.load(content)
    except (KeyError, AttributeError, TypeError) as error:  # bfloat16 and what else NumPy does not have
        msg = f"{path} holds a type that NumPy does not have ({error}): convert it to float32 first"
        raise UnsupportedError(msg) from error
    except (safetensors.SafetensorError, ValueError) as error:
        if content[:2] == b"PK" or content[:1] == b"\x80":
            msg = (
                f"{path} is a pickle of PyTorch, which can run code when it is read: "
                "save it as safetensors.torch.save_file(model.state_dict(), FILE)"
            )
            raise UnsupportedError(msg) from error
        words = contents.in_words(content[: contents.HEAD])
        msg = f"{path} is not a safetensors file: {f'it {words}' if words else error}"
        raise CheckpointCorruptError(msg) from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    if any(name.startswith("params/") for name in arrays):
        msg = f"{path} is a checkpoint of gpuconv, not weights under PyTorch's names"
        raise CheckpointMismatchError(msg)
    return arrays, header.get("__metadata__", {})
