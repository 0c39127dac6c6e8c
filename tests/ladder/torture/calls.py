"""Random calls of every operator, held to the oracle, and random bad input, which must be refused by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from decimal import Decimal
from random import Random
from typing import Any

import numpy as np
from operators import OPERATORS, Operator
from places import LAYOUTS

import gpuconv
from gpuconv.errors import GpuconvError

from ..kernel_calls import Call, Inputs, Scaled, assert_as_expected, on_the_oracle, random_call
from .kind import Case, Kind


class _Anywhere:
    """A place whose arrays lie in memory as drawn, and whose inputs must stay as they are."""

    def __init__(self, draw: Random, *, written: bool) -> None:
        self.draw, self.written = draw, written
        self.inputs: list[tuple[np.ndarray, np.ndarray]] = []

    def array(self, a: np.ndarray) -> np.ndarray:
        chosen = self.draw.choice([name for name in LAYOUTS if not (self.written and name == "read_only")])
        if a.dtype.kind != "f":  # into whole ones the rows of operators.py write after they were drawn
            return a
        if a.ndim and a.size and self.draw.random() < 0.7:
            a = LAYOUTS[chosen](a)
        if not self.written:
            self.inputs.append((a, a.copy()))
        return a

    @staticmethod
    def numpy(a: np.ndarray) -> np.ndarray:
        return a


class _AsTheyAre:
    array = numpy = staticmethod(lambda a: a)


class _Rounded(Inputs):
    """Draws numbers whose sums are rounded in place of whole ones."""

    whole = Inputs.normal


class _Absolute(_Rounded):
    """Draws their absolute values."""

    def put(self, host: np.ndarray, layout: str | None = None) -> Any:
        return super().put(np.abs(host), layout)


def _on_the_oracle(call: Call, inputs: Inputs) -> list[Any]:
    with on_the_oracle():
        return call._host(inputs)


def _as_the_oracle(case: Case) -> str:
    draw = case.draw
    call, dtype, memory = random_call(draw.getrandbits(40))
    place = _Anywhere(draw, written=bool(OPERATORS[call.operator].writes))
    with np.errstate(over="ignore"):
        if OPERATORS[call.operator].sums and draw.random() < 0.5:  # of rounded numbers
            actual = call._host(_Rounded(place, dtype, memory))
            wanted = _on_the_oracle(call, _Rounded(_AsTheyAre, dtype, memory, wide=True))
            scale = _on_the_oracle(call, _Absolute(_AsTheyAre, dtype, memory, wide=True))
            wanted = [None if w is None else Scaled(w, s) for w, s in zip(wanted, scale, strict=True)]
        else:
            actual, wanted = call.on(place, dtype, memory), call.by_oracle(dtype, memory)
    assert_as_expected(actual, wanted)
    for array, before in place.inputs:
        np.testing.assert_array_equal(array, before, "an input was changed")
    return call.operator


# Bad input ----------------------------------------------------------------------------------------------------------

_NO_OPTION = (
    1j, object(), [], {}, (), b"x", "", "x", np.array("x"), np.zeros(7), math.nan, -1, -1.5, -math.inf, -(10**400),
    10**5000, Decimal("sNaN"), np.datetime64("NaT"), int, len, np.float32("nan"), np.ma.masked, ..., np.complex64(1),
    {1, 2, 3}, range(1000), slice(None), Exception("x"), np.float64(-1e-300), np.str_("x"), np.void(b"x"),
)  # fmt: skip

_NO_ARRAY: dict[str, Callable[[np.ndarray], Any]] = {
    "a list": np.ndarray.tolist,
    "of objects": lambda a: a.astype(object),
    "of complex numbers": lambda a: a.astype(np.complex64),
    "of flags": lambda a: a.astype(bool),
    "of text": lambda a: a.astype("U3"),
    "of times": lambda a: a.astype("int64").view("datetime64[s]"),
    "of records": lambda a: np.zeros(a.shape, [("a", "f4")]),
    "of the other byte order": lambda a: a.astype(a.dtype.newbyteorder()) if a.itemsize > 1 else a.astype(bool),
    "masked": np.ma.array,
    "a buffer": memoryview,
    "a number": lambda a: 1.0,
    "a text": lambda a: "x",
    "an iterator": iter,
}
_NO_CACHE = (None, (), 0, object(), "cache", np.zeros(3))


def _filled(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.zeros(shape, dtype) if np.dtype(dtype).kind in "iu" else np.full(shape, 0.5, dtype)


def _bad(case: Case) -> str:
    """Spoil one thing of a good call."""
    draw = case.draw
    row = draw.choice(list(OPERATORS.values()))
    arrays, options = row.good(make=_filled), row.options_of({})
    arrays = {name: array for name, array in arrays.items() if array is not None}
    kept = {name: array.copy() for name, array in arrays.items()}
    spoil = draw.choice([_spoil_option, _spoil_array, *([_spoil_backward] * row.has_backward)])
    with ExitStack() as after:
        after.callback(_assert_kept, arrays.copy(), kept)
        what = spoil(row, arrays, options, draw)
    return f"{row.name}: {what}"


def _assert_kept(arrays: dict[str, np.ndarray], kept: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        assert np.array_equal(array, kept[name]), f"{name} was written to before the refusal"


def _spoil_option(row: Operator, arrays: dict[str, Any], options: dict[str, Any], draw: Random) -> str:
    names = [name for name in inspect.signature(getattr(gpuconv, row.function)).parameters if name not in row.arrays]
    if not names:
        return _spoil_array(row, arrays, options, draw)
    name = draw.choice(names)
    value = draw.choice([value for value in _NO_OPTION if not (name == "dtype" and hasattr(value, "dtype"))])
    row.forward(arrays, {**options, name: value})
    return f"{name}={_shown(value)}"


def _spoil_array(row: Operator, arrays: dict[str, Any], options: dict[str, Any], draw: Random) -> str:
    name = draw.choice(list(arrays))
    how = draw.choice([*_NO_ARRAY, "of another size"])
    if how != "of another size":
        bad = _NO_ARRAY[how](arrays[name])
    elif callable(row.arrays[name].shape):
        bad = _filled(
            (arrays[name].shape[0] + draw.choice((-1, 1, 7)), *arrays[name].shape[1:]), row.arrays[name].dtype
        )
    else:
        how, bad = "missing", None
    row.forward({**arrays, name: bad}, options)
    return f"{name} {how}"


def _spoil_backward(row: Operator, arrays: dict[str, Any], options: dict[str, Any], draw: Random) -> str:
    """Spoil the gradient or the cache; what the forward may write is given to it as a copy."""
    y, cache = row.forward({name: array.copy() for name, array in arrays.items()}, options)
    if draw.random() < 0.3:
        others = [other for other in OPERATORS.values() if other.has_backward and other.name != row.name]
        other = draw.choice(others)
        family = {"batchnorm", "spatial_batchnorm"}, {"groupnorm", "layernorm"}
        foreign = draw.random() < 0.5 and not any({row.name, other.name} <= each for each in family)
        bad = other.forward(other.good(make=_filled), other.options_of({}))[1] if foreign else draw.choice(_NO_CACHE)
        row.backward(y.copy(), bad)
        return f"cache {_shown(bad)}"
    how = draw.choice([*_NO_ARRAY, "of another size"])
    dy = np.ones((*y.shape[:-1], y.shape[-1] + 1), y.dtype) if how == "of another size" else _NO_ARRAY[how](y)
    row.backward(dy, cache)
    return f"dy {how}"


def _shown(value: Any) -> str:
    return type(value).__name__ if isinstance(value, int) and abs(value) > 10**9 else repr(value)[:60]


KINDS: Sequence[Kind] = (
    Kind("random calls", 20_000, _as_the_oracle),
    Kind("bad input", 5_000, _bad, (GpuconvError,), always=True),
)
