"""The format of a checkpoint: one safetensors file with named arrays, plain values, and a seal over every byte.

The seal is a SHA-256 of the whole file, computed with the place of its own 64 digits filled with zeros, so any
changed, missing or added byte is found before anything is parsed.  The file's one metadata entry "gpuconv" is JSON in
a canonical form that starts with the seal: equal contents make equal files, and the seal's place never moves.  Other
programs read the arrays as from any safetensors file; nothing in it can run code.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from .. import checks, contents, durable
from ..errors import (
    CheckpointCorruptError,
    CheckpointVersionError,
    CheckpointWriteError,
    ConfigError,
    NonFiniteLossError,
)

FORMAT = 2
_READ = (1, FORMAT)  # 1: without what the net takes, which is in inputs.py

_LARGEST_FILE = 1 << 36  # 64 GiB: more than any net here; a damaged file system must not make us allocate it
_LARGEST_HEADER = 100_000_000  # safetensors' own limit
_LENGTH = 8  # bytes of the little-endian header length that opens a safetensors file
_DIGITS = 64
_BEFORE_SEAL = rb'"gpuconv":"{\"sha256\":\"'
_DTYPES = (*checks.FLOATS, np.dtype(np.int64), np.dtype(np.uint64), np.dtype(np.uint8))


def write(path: Path, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
    """Write a checkpoint so that a crash at any moment leaves the old file or the new one.

    values: what JSON holds exactly (str, int, finite float, bool, None, lists, dicts with str keys).
    Raises NonFiniteLossError for an array with NaN or infinity, CheckpointWriteError if the disk is full or the like;
    the old file is untouched then.
    """
    durable.write(path, encode(arrays, values))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return (arrays, values) of the checkpoint at path, every byte as it was written.

    Raises CheckpointCorruptError if any is not, CheckpointVersionError for a sound file in a format of another
    version, ConfigError if there is no such file.
    """
    return decode(_content(path), str(path))


def encode(arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> bytes:
    """Return the bytes of a checkpoint; equal contents give equal bytes."""
    for name, array in arrays.items():
        if array.dtype not in _DTYPES:
            msg = f"{name} cannot be saved in a checkpoint: its dtype is {array.dtype}"
            raise CheckpointWriteError(msg)
        if not _finite(array):
            msg = f"{name} holds NaN or infinity"
            raise NonFiniteLossError(msg)
    text = json.dumps({"format": FORMAT, **values}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    sealed = f'{{"sha256":"{"0" * _DIGITS}",{text[1:]}'
    # safetensors writes the memory of an array as it lies, whatever its strides say: hand over contiguous ones only.
    whole = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    content = bytearray(safetensors.numpy.save(whole, metadata={"gpuconv": sealed}))
    place = content.index(_BEFORE_SEAL) + len(_BEFORE_SEAL)
    content[place : place + _DIGITS] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def decode(content: bytes, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return (arrays, values) of a checkpoint's bytes; name is what errors call it."""
    header = _header(content, name)
    place = content.find(_BEFORE_SEAL, _LENGTH, _LENGTH + len(header)) + len(_BEFORE_SEAL)
    if place < len(_BEFORE_SEAL) or place + _DIGITS > _LENGTH + len(header):
        raise _no_checkpoint(
            content,
            name,
            "it has no seal of gpuconv in its header; `gpuconv import` makes checkpoints of PyTorch's weights",
        )
    digest = hashlib.sha256(memoryview(content)[:place])
    digest.update(b"0" * _DIGITS)
    digest.update(memoryview(content)[place + _DIGITS :])
    if content[place : place + _DIGITS] != digest.hexdigest().encode():
        raise _corrupt(name, "its bytes do not match their SHA-256")
    # The bytes are now the ones somebody sealed.  That need not have been us: what follows trusts none of them.
    try:
        values = json.loads(json.loads(header)["__metadata__"]["gpuconv"])
        version = values["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _corrupt(name, "its header is not a gpuconv checkpoint's") from error
    if version not in _READ:
        formats = " and ".join(map(str, _READ))
        msg = f"{name} is in checkpoint format {version!r}; this version of gpuconv reads formats {formats}"
        raise CheckpointVersionError(msg)
    try:
        arrays = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _corrupt(name, "it is not a safetensors file") from error
    for key, array in arrays.items():
        if array.dtype not in _DTYPES or not _finite(array):
            raise _corrupt(name, f"{key} holds NaN, infinity or a type that is never saved")
    values.pop("sha256", None)
    del values["format"]
    return arrays, values


def _header(content: bytes, name: str) -> bytes:
    size = int.from_bytes(content[:_LENGTH], "little")
    if len(content) < _LENGTH or size > min(len(content) - _LENGTH, _LARGEST_HEADER):
        raise _no_checkpoint(content, name, f"its header does not fit into its {len(content)} bytes")
    return content[_LENGTH : _LENGTH + size]


def _content(path: Path) -> bytes:
    """Return a file's bytes, after a look at what it is and how long."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            msg = f"{path} is not a checkpoint file"
            raise ConfigError(msg)
        if status.st_size > _LARGEST_FILE:
            raise _corrupt(str(path), f"no checkpoint has {status.st_size} bytes")
        with path.open("rb") as file:
            return file.read(status.st_size + 1)  # one more shows that it grew
    except FileNotFoundError:
        msg = f"there is no checkpoint {path}"
        raise ConfigError(msg) from None
    except OSError as error:
        msg = f"{path} could not be read ({error.strerror or error})"
        raise ConfigError(msg) from error


def _finite(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _corrupt(name: str, why: str) -> CheckpointCorruptError:
    return CheckpointCorruptError(f"{name} is corrupt: {why}")


def _no_checkpoint(content: bytes, name: str, why: str) -> CheckpointCorruptError:
    """Return the error for bytes that were no checkpoint from the beginning, if it can be told what they are."""
    start = content[: contents.HEAD]
    if contents.is_onnx(start):
        way_out = f"`gpuconv import {name} --net RUN -o FILE.safetensors` makes one of it, where gpuconv exported it"
        return CheckpointCorruptError(f"{name} is an ONNX file and no checkpoint: {way_out}")
    if contents.kind(start):
        why = f"it {contents.in_words(start)}; `gpuconv import` takes PyTorch's weights, saved as safetensors"
    elif words := contents.stand_in(start):
        why = f"it {words}"
    return _corrupt(name, why)


def same_values(values: Any) -> Any:
    """Return values as they come back from a checkpoint: tuples as lists, keys as strings."""
    return json.loads(json.dumps(values, allow_nan=False))
