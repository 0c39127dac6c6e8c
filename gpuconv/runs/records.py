"""Records: what files of a run hold, checked against the types that they are written with.

A seal or sound JSON says that somebody wrote a file so; what stands in it may still be of another kind, or beyond what
anything can be counted with.  Types are written as annotations: a dataclass, a TypedDict, int, float, str, bool, unions,
list, dict, tuple, Any.  No number in a record of ours is below 0: ints are counts, floats are losses, shares and times.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from ..checks import shown
from ..errors import ConfigError

_LARGEST_COUNT = 2**63 - 1
_LARGEST_NUMBER = 1e300  # sums of some million such numbers are still finite


def check(name: str, value: Any, kind: Any) -> None:
    """Raise ConfigError, which names the entry, unless a value is of the kind that an annotation says.

    name: of the value in its file, "" for the whole.  Entries that a dataclass has a default for, or that a TypedDict does not
    require, may be left out; entries beyond those of a dataclass are refused, beyond those of a TypedDict they are not looked at.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return
    if dataclasses.is_dataclass(kind) or is_typeddict(kind):
        _check_entries(name, value, kind)
    elif origin is types.UnionType:
        if value is None and types.NoneType in arguments:
            return
        (other,) = (argument for argument in arguments if argument is not types.NoneType)
        check(name, value, other)
    elif origin is list:
        _must_be(name, "a list", value, fits=isinstance(value, list))
        for number, entry in enumerate(value):
            check(f"{name}[{number}]", entry, *arguments)
    elif origin is tuple:
        _must_be(name, f"{len(arguments)} values in a list", value, fits=_is_row(value, len(arguments)))
        for number, (entry, argument) in enumerate(zip(value, arguments, strict=True)):
            check(f"{name}[{number}]", entry, argument)
    elif origin is dict:
        _must_be(name, "entries by name", value, fits=isinstance(value, dict))
        for key, entry in value.items():
            check(_inside(name, key), entry, arguments[1])
    else:
        words, fits = _SIMPLE[kind]
        _must_be(name, words, value, fits=fits(value))


def _check_entries(name: str, value: Any, kind: Any) -> None:
    _must_be(name, "entries by name", value, fits=isinstance(value, Mapping))
    if is_typeddict(kind):
        required = kind.__required_keys__
    else:
        fields = dataclasses.fields(kind)
        required = {
            field.name
            for field in fields
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
        for key in value.keys() - {field.name for field in fields}:
            msg = f"{_inside(name, key)} is not known"
            raise ConfigError(msg)
    hints = _hints(kind)
    for key in hints:
        if key in value:
            check(_inside(name, key), value[key], hints[key])
        elif key in required:
            msg = f"{name or 'it'} has no {key}"
            raise ConfigError(msg)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _must_be(name: str, words: str, value: Any, *, fits: bool) -> None:
    if not fits:
        msg = f"{name or 'it'} must be {words}, got {shown(value)}"
        raise ConfigError(msg)


def _inside(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def _is_row(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST_COUNT


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= _LARGEST_NUMBER and math.isfinite(value)


_SIMPLE = {
    int: ("an int from 0 to 2^63 - 1", _is_count),
    float: (f"a number from 0 to {_LARGEST_NUMBER:g}", _is_number),
    str: ("a text", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
}
