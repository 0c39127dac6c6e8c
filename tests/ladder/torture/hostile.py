"""Files changed at random, some of them into programs that run code, for every loader of the package.

A loader may take a changed file, if what it says is still sound, or refuse it by name; it may not run code, write, start
a process, reach out, or take much memory.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import os
import pickle
import random
import resource
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tiny_cifar10 as tiny
from hostile_files import LOADERS, Payload, as_npy, as_npz, as_pickle, as_torch, written

from gpuconv import data, export, nn
from gpuconv.errors import GpuconvError
from gpuconv.runs import settings

from .kind import Case, Kind
from .runs import RECIPES, shapes, undisturbed

_TINY = tiny.ARCHIVES[tiny.PYTHON]
_BATCH = "cifar-10-batches-py/data_batch_1"


def _tiny_folder(path: Path) -> None:
    """Read CIFAR-10 where one of its batches is the file."""
    for name, content in tiny.python_files().items():
        if name != path.name:
            (path.parent / name).write_bytes(content)
    tiny.read(path.parent)


# As the test has them, and the readers of CIFAR's files by which small ones are the original.
_LOADERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    **LOADERS,
    "cifar.read": (_BATCH, _tiny_folder),
    "cifar.read, archive": (_TINY, lambda path: tiny.read(path.parent)),
}

_NET = b"""
[[layer]]
kind = "conv"
filters = 4
[[layer]]
kind = "residual"
[[layer.body]]
kind = "relu"
[[layer]]
kind = "max_pool"
window = 2
[[layer]]
kind = "affine"
"""


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, X=np.zeros((2, 3, 4, 4), np.float32), y=np.zeros(2, np.int64), class_names=np.array(["a", "b"]))
    return file.getvalue()


def _png() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.arange(3 * 64, dtype=np.uint8).reshape(8, 8, 3)).save(file, "PNG")
    return file.getvalue()


def _onnx() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.onnx"
        export.to_onnx(nn.Net(nn.Sequential(nn.Conv(3, 4, 3, pad=1), nn.Relu(), nn.Affine(256, 2)), (3, 8, 8)), path)
        return path.read_bytes()


@functools.cache
def _sound() -> dict[str, tuple[bytes, ...]]:
    """Return sound files, by the ending of their name."""
    run = undisturbed("ema")
    batches = tuple(tiny.python_files(protocol)["data_batch_1"] for protocol in (2, 4))
    return {
        "pkl": (*(pickle.dumps({"model": np.arange(4.0), b"data": [1, "x", None]}, protocol=p) for p in range(6)),),
        "data_batch_1": batches,
        "gz": (tiny.official_archive(tiny.PYTHON),),
        "npz": (_npz(),),
        "txt": (b"n01440764\nn01443537\n",),
        "png": (_png(),),
        "safetensors": ((run / "last.safetensors").read_bytes(),),
        "json": ((run / "result.json").read_bytes(),),
        "jsonl": ((run / "events.jsonl").read_bytes(),),
        "toml": (_NET, settings.to_toml(RECIPES["ema"]).encode()),
        "onnx": (_onnx(),),
    }


def _changed(content: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """Return a file with bytes replaced, cut out or put in, from others too, once or some times."""
    found = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        place, other = draw.randrange(len(found) + 1), draw.choice(others)
        if draw.random() < 0.7:
            place = min(place, draw.randrange(600))
        cut = draw.randrange(len(other) + 1)
        piece = draw.choice(
            (
                b"",
                draw.randbytes(1),
                draw.choice((b"\xff", b"\0", b"9", b"[", b"{", b'"')) * draw.choice((1, 8, 5000)),
                other[cut : cut + draw.randrange(60)],
                bytes(found[place : place + 512]) * draw.choice((1, 3)),
            )
        )
        found[place : place + draw.choice((0, 1, 1, 4, 512, len(found)))] = piece
    return bytes(found)


def _repacked(content: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """Return an archive that is whole, though one of its files, or what describes them, is changed."""
    if content[:2] == b"\x1f\x8b":
        return gzip.compress(_changed(gzip.decompress(content), others, draw), compresslevel=1)
    if content[:2] != b"PK":
        return _changed(content, others, draw)
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        broken = draw.choice(old.namelist())
        for name in old.namelist():
            inner = old.read(name)
            new.writestr(name, _changed(inner, others, draw) if name == broken else inner)
    return file.getvalue()


class _Watch:
    """Notes what this process must not do while it loads a file."""

    harmful = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "os.remove")

    def __init__(self) -> None:
        self.inside: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.inside is None:
            return
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not writes or str(path).startswith(str(self.inside)) or str(path) == os.devnull:
                return
            self.seen.append(f"open {path}")
        elif event in self.harmful and not str(arguments[0]).startswith(str(self.inside)):
            self.seen.append(f"{event} {arguments}")


@functools.cache
def _watch() -> _Watch:
    """Return what watches this process, after each loader was used once: their modules are imported then."""
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, loader) in enumerate(_LOADERS.values()):
            for content in _of(name)[:1]:
                _try(loader, written(Path(folder) / str(number) / "in" / name, content))
    return _Watch()


def _try(loader: Callable[[Path], Any], path: Path) -> GpuconvError | str:
    with contextlib.chdir(path.parent):
        try:
            loader(path)
        except GpuconvError as error:
            return error
        except FileNotFoundError:  # the system's own word
            return "names a file that is missing"
    return "taken"


def _of(name: str) -> tuple[bytes, ...]:
    """Return the sound files that a loader of files of a name is for."""
    sound = _sound()
    return sound[next(ending for ending in sound if name.endswith(ending))]


def _peak() -> int:
    """Return the most memory this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _load(case: Case) -> str:
    draw = case.draw
    name, loader = _LOADERS[draw.choice(list(_LOADERS))]
    sentinel = case.folder / "sentinel"
    harm = [make(Payload(sentinel)) for make in (as_pickle, as_npz, as_npy, as_torch)]
    others = [*harm, *(each for files in _sound().values() for each in files)]
    content = draw.choice(_of(name)) if draw.random() < 0.9 else draw.choice(others)
    content = draw.choice((_changed, _repacked))(content, others, draw)
    path = written(case.folder / "in" / name, content)
    watch, before = _watch(), _peak()
    watch.inside, watch.seen = case.folder, []
    try:
        with mock.patch.object(data, "load", data.load if "data.load" in name else lambda *_, **__: shapes()):
            result = _try(loader, path)
    finally:
        watch.inside = None
    grown = _peak() - before
    assert not sentinel.exists(), "code was run"
    assert not watch.seen, watch.seen
    assert grown < (64 << 20) + 4 * len(content), f"{grown >> 20} MiB more memory for {len(content):,} bytes"
    if isinstance(result, GpuconvError):
        raise result
    return result


KINDS = (Kind("hostile files", 5_000, _load, (GpuconvError,)),)
