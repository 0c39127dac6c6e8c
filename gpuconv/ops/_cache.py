"""What a cache shows of itself: a line with the shapes of its arrays and the options of its forward."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

_HIDDEN = {"marks", "like", "dtype", "folded", "across"}  # how the backward does its work, not what it is of
_USUAL = {"stride": 1, "pad": 0, "dilation": 1, "groups": 1}


class Cache:
    """What a forward keeps for its backward: a dataclass, whose fields are shown in the order they stand in."""

    __slots__ = ()

    def __repr__(self) -> str:
        names = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        values = {name: getattr(self, name) for name in names if name not in _HIDDEN}
        axes = next((len(shape) - 2 for shape in map(_shape, values.values()) if shape), 0)
        shown: list[str] = []
        for name, value in values.items():
            if name == "sizes":
                shown += _options(value, axes)
            elif value is not None and value is not False:
                shown.append(_shown(name.removeprefix("has_").replace("_", " "), value))
        return f"{type(self).__name__}({', '.join(shown)})"


def _shown(name: str, value: Any) -> str:
    """Return a field in words: an array by its shape, True by the name alone."""
    if value is True:
        return name
    if isinstance(value, Cache):
        return repr(value)
    if shape := _shape(value):
        return f"{name} {'x'.join(map(str, shape))}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _shape(value: Any) -> tuple[int, ...] | None:
    """Return a shape, or that of an array; None of anything else."""
    return value if isinstance(value, tuple) else getattr(value, "shape", None)


def _options(sizes: Any, axes: int) -> Iterator[str]:
    """Yield the options of a window in the last so many directions, without those that have their usual value."""
    pools = hasattr(sizes, "R") and not hasattr(sizes, "K")
    window = tuple(getattr(sizes, name) for name in ("T", "R", "S") if hasattr(sizes, name))[-axes:]
    if pools:
        yield f"window {_each(window)}"
    for name, usual in _USUAL.items():
        values = getattr(sizes, name, usual)
        values = values[-axes:] if isinstance(values, tuple) else (values,)
        if set(values) != {usual} and not (pools and name == "stride" and values == window):
            yield f"{name} {_each(values)}"


def _each(values: tuple[int, ...]) -> str:
    """Return an option as one number where it is the same in every direction, else as "2x1"."""
    return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))
