"""A net of one's own, from a file: a list of layers in TOML, or a Python function."""

from __future__ import annotations

import inspect
import re
import runpy
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy.typing as npt

from .. import bounded, checks
from ..checks import float_dtype
from ..errors import ConfigError, GpuconvError
from ..folders import path_of
from .choice import unknown
from .containers import Residual, Sequential, kinds
from .from_config import build
from .layer import KINDS, Layer
from .net import Net, sample_shape

Shape = tuple[int, ...]

NET_FILES = (".toml", ".py")

# Bounds of what a .toml file may ask for; the deepest nets there are have some thousand layers, two or three inside
# each other.
_MOST_LAYERS = 5_000
_DEEPEST = 32
_LONGEST = 80  # letters of a kind in a message


def from_file(
    path: str | Path,
    *,
    input_shape: Shape,
    classes: int | None = None,
    seed: int = 0,
    dtype: npt.DTypeLike = "float32",
) -> Net:
    """Return the net that a .toml or .py file describes, with its initial weights.

    A .toml file is a list of layers, in order; what follows from the shape that reaches a layer is left out:

        [[layer]]
        kind = "conv"       # one of nn.kinds(); settings are the arguments of the layer's class
        filters = 32
        pad = 1

        [[layer]]
        kind = "residual"   # body and, if wanted, shortcut are lists of layers; repeat = 3 puts three in a row
        [[layer.body]]
        kind = "conv"
        filters = 32
        pad = 1

        [[layer]]
        kind = "affine"     # units, bias, init; by default a unit for each class and Xavier's weights

    name = "..." names a layer; without it, kind and a number do.

    A .py file defines net(input_shape, classes), which returns a layer, or a Net (which keeps its own seed), made of
    gpuconv.nn's layers.  It is executed, as any Python file that is run: use only files that you trust.

    classes: how many scores the net of a classifier gives; None: it is none, and whatever comes out is right.

    The config of the net is complete: a checkpoint needs the file no more.  Raises ConfigError that names the file,
    and the layer with its line.

    >>> from pathlib import Path
    >>> written = Path("linear.toml").write_text('layer = [{kind = "flatten"}, {kind = "affine"}]')
    >>> nn.from_file("linear.toml", input_shape=(3, 8, 8), classes=10).body
    layer                                     parameters
    flatten1  Flatten()
    affine1   Affine(192, 10, init='xavier')       1,930
    total                                          1,930
    """
    path, input_shape, dtype = path_of(path, "the net"), sample_shape(input_shape), float_dtype(dtype)
    if classes is not None:
        classes = checks.integer("classes", classes, least=1)
    if path.suffix not in NET_FILES:
        msg = f"a net's file must end in .toml or .py, got {path}"
        raise ConfigError(msg)
    read = _from_toml if path.suffix == ".toml" else _from_python
    try:
        layers = read(path, input_shape, classes)
        net = layers if isinstance(layers, Net) else Net(layers, input_shape, seed=seed, dtype=dtype)
        if classes is not None and net.output_shape != (classes,):
            msg = f"gives one sample the shape {net.output_shape}, but {classes} classes need ({classes},)"
            raise ConfigError(msg)
        if net.input_shape != input_shape or net.dtype != dtype:
            msg = f"is a net for {net.input_shape} in {net.dtype}, but {input_shape} in {dtype} is wanted"
            raise ConfigError(msg)
        _check_config(net)
    except GpuconvError as error:
        msg = f"net {path}: {error}"
        raise ConfigError(msg) from error
    except (ValueError, OverflowError, RecursionError) as error:
        msg = f"net {path}: {error}"
        raise ConfigError(msg) from error
    except MemoryError as error:
        msg = f"net {path}: there is no memory for its parameters ({error})"
        raise ConfigError(msg) from error
    return net


def _check_config(net: Net) -> None:
    """Check that a checkpoint of this net can be read without its file."""
    try:
        rebuilt = build(net.config)
    except GpuconvError as error:
        msg = f"a checkpoint could not hold it: {error}"
        raise ConfigError(msg) from error
    shapes, rebuilt_shapes = (
        {name: tuple(w.shape) for name, w in (n.params | n.state).items()} for n in (net, rebuilt)
    )
    if shapes != rebuilt_shapes:
        msg = "a checkpoint could not hold it: its config makes another net"
        raise ConfigError(msg)


# Python -------------------------------------------------------------------------------------------------------------


def _from_python(path: Path, input_shape: Shape, classes: int | None) -> Layer | Net:
    if not path.is_file():
        msg = "it is not a file" if path.exists() else "there is no such file"
        raise ConfigError(msg)
    with _as_errors("when it is run"):
        make = runpy.run_path(str(path)).get("net")
    if not callable(make):
        msg = "it must define a function net(input_shape, classes)"
        raise ConfigError(msg)
    with _as_errors("in net(input_shape, classes)"):
        layers = make(input_shape, classes)
    if not isinstance(layers, (Layer, Net)):
        msg = f"net(input_shape, classes) must return a layer or a Net of gpuconv.nn, got {type(layers).__qualname__}"
        raise ConfigError(msg)
    return layers


@contextmanager
def _as_errors(when: str) -> Iterator[None]:
    """Turn whatever a user's file raises into a ConfigError, what ends Python with it; but let Ctrl-C through.

    A KeyboardInterrupt says not who raised it: for that, Ctrl-C is noted by a handler of its own.
    """
    own, pressed = signal.default_int_handler, []

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        own(number, frame)

    watched = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is own
    if watched:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    except GpuconvError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and (pressed or not watched):
            raise
        msg = f"{type(error).__name__} {when}: {error}"
        raise ConfigError(msg) from error
    finally:
        if watched and signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, own)


# TOML ---------------------------------------------------------------------------------------------------------------


def _from_toml(path: Path, input_shape: Shape, classes: int | None) -> Layer:
    text, spec = bounded.toml_file(path, "it")
    for name in spec:
        if name != "layer":
            msg = f'"{name}" is not known: a net is a list of [[layer]]'
            raise ConfigError(msg)
    return _Reader(text, classes).sequence(spec.get("layer"), "layer", input_shape)[0]


class _Reader:
    """Turns tables into layers, with the shape that each is given."""

    def __init__(self, text: str, classes: int | None) -> None:
        self.classes = classes
        self.layer_count = 0
        # Line of each [[header]], in order; the tables of one header come in the order of the file.
        self.lines: dict[str, list[int]] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if header := re.match(r"\s*\[\[\s*([\w.\s]+?)\s*\]\]", line):
                self.lines.setdefault(re.sub(r"\s", "", header[1]), []).append(number)
        self.seen: dict[str, int] = {}

    def sequence(self, tables: Any, path: str, shape: Shape) -> tuple[Sequential, Shape]:
        """Return the layers of a list of tables, one after the other, and the shape that comes out."""
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            msg = f"{path} must be a list of layers, [[{path}]], with one at least"
            raise ConfigError(msg)
        if path.count(".") >= _DEEPEST:
            msg = f"layers lie more than {_DEEPEST} deep inside each other"
            raise _Placed(msg)
        named: dict[str, Layer] = {}
        count: dict[str, int] = {}
        for number, table in enumerate(tables, 1):
            where = self._where(path, number, table)
            settings = dict(table)
            name, repeat = settings.pop("name", None), settings.pop("repeat", 1)
            if not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 1:
                msg = f"{where}: repeat must be an int above 0, got {checks.shown(repeat)}"
                raise _Placed(msg)
            if repeat > _MOST_LAYERS:
                msg = f"{where}: repeat must be at most {_MOST_LAYERS}, got {checks.digits(repeat)}"
                raise _Placed(msg)
            if name is not None and (not isinstance(name, str) or not name or "." in name):
                msg = f"{where}: name must be a text without a dot, got {checks.shown(name)}"
                raise _Placed(msg)
            for round_ in range(1, repeat + 1):
                try:
                    layer = self._layer(settings, path, shape, first=round_ == 1)
                    shape = layer.output_shape(shape)
                except _Placed:
                    raise
                except GpuconvError as error:
                    msg = f"{where}, given {shape}: {error}"
                    raise _Placed(msg) from error
                if name is None:
                    count[layer.kind] = count.get(layer.kind, 0) + 1
                    key = f"{layer.kind}{count[layer.kind]}"
                else:
                    key = name if repeat == 1 else f"{name}{round_}"
                if key in named:
                    msg = f"{where}: there are two layers of the name {key!r}"
                    raise _Placed(msg)
                named[key] = layer
        return Sequential(**named), shape

    def _where(self, path: str, number: int, table: Mapping[str, Any]) -> str:
        seen = self.seen[path] = self.seen.get(path, 0) + 1
        lines = self.lines.get(path, [])
        line = f"line {lines[seen - 1]}, " if seen <= len(lines) else ""
        kind = table.get("kind", "no kind")
        return f"{line}{path} {number} ({kind[:_LONGEST] if isinstance(kind, str) else checks.shown(kind)})"

    def _layer(self, settings: Mapping[str, Any], path: str, shape: Shape, *, first: bool) -> Layer:
        self.layer_count += 1
        if self.layer_count > _MOST_LAYERS:
            msg = f"the net has more than {_MOST_LAYERS} layers"
            raise ConfigError(msg)
        if "kind" not in settings:
            msg = f"kind is missing; known: {', '.join(kinds())}"
            raise ConfigError(msg)
        kind, given = settings["kind"], {name: value for name, value in settings.items() if name != "kind"}
        if not isinstance(kind, str) or kind not in KINDS:
            raise ConfigError(unknown("kind", kind, list(kinds())))
        if kind not in ("residual", "sequential"):
            return _call(KINDS[kind].from_toml, given, KINDS[kind].cls.inferred(shape, self.classes))
        known = ["body", "shortcut"] if kind == "residual" else ["body"]
        for name in given:
            if name not in known:
                raise ConfigError(unknown("setting", name, known))
        if not first:  # the tables inside are read again: so are their lines
            self._forget(given, path)
        body, _ = self.sequence(given.get("body"), f"{path}.body", shape)
        if kind == "sequential":
            return body
        if "shortcut" not in given:
            return Residual(body)
        return Residual(body, self.sequence(given["shortcut"], f"{path}.shortcut", shape)[0])

    def _forget(self, given: Mapping[str, Any], path: str) -> None:
        """Step back over the headers of the tables inside a layer."""
        for name, tables in given.items():
            self.seen[f"{path}.{name}"] -= len(tables)
            for table in tables:
                inside = {key: value for key, value in table.items() if key in ("body", "shortcut")}
                self._forget(inside, f"{path}.{name}")


class _Placed(ConfigError):
    """An error that says already which layer it is about."""


def _call(make: Callable[..., Layer], given: Mapping[str, Any], inferred: Mapping[str, Any]) -> Layer:
    """Return make(**inferred, **given) after a look at the names; what is given wins."""
    parameters = inspect.signature(make).parameters
    for name in given:
        if name not in parameters:
            raise ConfigError(unknown("setting", name, list(parameters) or ["none"]))
    settings = {**inferred, **given}
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in settings:
            msg = f"{name} is missing"
            raise ConfigError(msg)
    return make(**settings)
