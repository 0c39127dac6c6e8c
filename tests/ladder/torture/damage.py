"""A checkpoint with changed bits, cut off, or with another header: no byte of it may be taken."""

from __future__ import annotations

import copy
import functools
import json
import random
import shutil
from typing import Any

from train_helpers import again

from gpuconv import train
from gpuconv.errors import CheckpointCorruptError, GpuconvError
from gpuconv.runs import sealed

from .kind import Case, Kind
from .runs import RECIPES, undisturbed


@functools.cache
def _sound(recipe: str) -> bytes:
    return (undisturbed(recipe) / "last.safetensors").read_bytes()


def _read(case: Case, content: bytes) -> None:
    path = case.folder / "last.safetensors"
    path.write_bytes(content)
    sealed.read(path)


def _flips(case: Case) -> None:
    content = bytearray(_sound(case.draw.choice(list(RECIPES))))
    # One bit most often, and every other time in the header or near it, which is the smaller part.
    most = 8 * len(content) if case.draw.random() < 0.5 else 8 * 4096
    for bit in case.draw.sample(range(most), case.draw.choice((1, 1, 1, 2, 9))):
        content[bit // 8] ^= 1 << bit % 8
    _read(case, bytes(content))


def _truncation(case: Case) -> None:
    content = _sound(case.draw.choice(list(RECIPES)))
    _read(case, content[: case.draw.randrange(len(content))])


# Headers ------------------------------------------------------------------------------------------------------------

_VALUES = (None, True, -1, 0, 1, 2**63, 1.5, "", "F64", "x", [], [0], [-1, 2], {}, {"a": 1})


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, each in inner for found in _places(each, (*place, key)))]


def _edited(value: Any, draw: random.Random) -> Any:
    """Return a copy of a value with another one somewhere in it, or with something missing."""
    value = copy.deepcopy(value)
    *way, key = draw.choice(_places(value)[1:])
    holder = functools.reduce(lambda inner, step: inner[step], way, value)
    old = holder[key]
    if draw.random() < 0.2:
        del holder[key]
    else:
        holder[key] = draw.choice([other for other in _VALUES if other != old or type(other) is not type(old)])
    return value


def _header(case: Case) -> None:
    """Write another header of the right length before the same bytes."""
    content = _sound(case.draw.choice(list(RECIPES)))
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    if case.draw.random() < 0.5:
        header = _edited(header, case.draw)
    else:
        inner = _edited(json.loads(header["__metadata__"]["gpuconv"]), case.draw)
        header["__metadata__"]["gpuconv"] = json.dumps(inner, separators=(",", ":"))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    _read(case, len(text).to_bytes(8, "little") + text + content[8 + size :])


def _sealed_again(case: Case) -> str:
    """Change a value as somebody would who can seal a checkpoint: a net is loaded, a run goes on, or an error says why not."""
    folder = case.folder / "run"
    shutil.copytree(undisturbed(case.draw.choice(list(RECIPES))), folder)
    path = folder / "last.safetensors"
    arrays, values = sealed.read(path)
    if case.draw.random() < 0.3:
        name = case.draw.choice(list(arrays))
        array = arrays.pop(name)
        arrays |= case.draw.choice(({}, {name: array[..., None]}, {name: array[:0]}, {name: array.astype("float16")}))
    else:
        values = _edited(values, case.draw)
    sealed.write(path, arrays, values)
    if case.draw.random() < 0.5:
        train.load_net(path)
        return "loaded"
    again(folder)
    return "went on"


KINDS = (
    Kind("bit flips", 10_000, _flips, (CheckpointCorruptError,), always=True),
    Kind("truncations", 1_000, _truncation, (CheckpointCorruptError,), always=True),
    Kind("header edits", 200, _header, (CheckpointCorruptError,), always=True),
    Kind("edits sealed again", 200, _sealed_again, (GpuconvError,)),
)
