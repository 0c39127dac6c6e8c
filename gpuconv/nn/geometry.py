"""What layers of images do with sizes: ask what a call would have, and write pairs as a user would."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks
from ..shapes import out_size, plain_sides, sides_of
from .layer import Layer

Sides = tuple[tuple[int, int], tuple[int, int]]


def stand_in(*shape: int) -> np.ndarray:
    """Return an array of a shape, with room for one number: enough to ask what sizes a call would have."""
    return np.broadcast_to(np.float32(0), shape)


def plain(vertical: int, horizontal: int) -> int | list[int]:
    """Return a pair as the user would write it."""
    return vertical if vertical == horizontal else [vertical, horizontal]


def pair(setting: Any) -> tuple[int, int]:
    """Return (vertical, horizontal) of a layer's setting."""
    return checks.pair("setting", setting, least=0)


def plain_pad(pad: Any) -> Any:
    """Return padding as the user would write it: "same", an int, or a list with an int or a pair for each axis."""
    if isinstance(pad, str) and pad == "same":
        return pad
    sides = plain_sides(checks.each_side("pad", pad, 2))
    if sides[0] == sides[1] and isinstance(sides[0], int):
        return sides[0]
    return [side if isinstance(side, int) else list(side) for side in sides]


def sides(settings: dict[str, Any]) -> Sides:
    """Return the padding ((top, bottom), (left, right)) of a layer with such settings."""
    window = pair(settings["window"])
    stride = window if settings["stride"] is None else pair(settings["stride"])
    vertical, horizontal = sides_of(settings["pad"], window, stride, pair(settings.get("dilation", 1)))
    return vertical, horizontal


def around(settings: dict[str, Any]) -> tuple[int, int, int, int] | None:
    """Return the padding as (left, right, top, bottom), or None where it is the same on both sides."""
    (top, bottom), (left, right) = sides(settings)
    return None if (top, left) == (bottom, right) else (left, right, top, bottom)


def beyond(layer: Layer, shape: tuple[int, ...]) -> list[int]:
    """Return how far a pool's last windows stick out of the padding behind, by ceil, down and across: mostly 0."""
    settings, out = layer.settings, layer.output_shape(shape)[1:]
    window, dilation = pair(settings["window"]), pair(settings.get("dilation", 1))
    stride = window if settings["stride"] is None else pair(settings["stride"])
    axes = zip(shape[1:], out, window, stride, sides(settings), dilation, strict=True)
    return [max(0, (count - 1) * s + d * (r - 1) + 1 - n - sum(both)) for n, count, r, s, both, d in axes]


def framed_out(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size that a pool with ceil has of images which its padding is made a part of."""
    settings, window = layer.settings, pair(layer.settings["window"])
    stride = window if settings["stride"] is None else pair(settings["stride"])
    axes = zip(shape[1:], sides(settings), window, stride, strict=True)
    return tuple(out_size(n + sum(both), r, s, 0, ceil=True) for n, both, r, s in axes)
