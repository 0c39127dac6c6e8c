"""Upsampling by whole factors: the passes over memory are in arrays/ and loops/.

They see any array as (outer, D, H, W, inner), as its memory lies: outer is N C and inner 1, or, channels last, N and C.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ..shapes import is_channels_last
from .compiled import passes
from .layout import accumulator, empty, stored
from .resampling import Taps, are_short, gathered, interpolated, summed


def upsample_forward(x: np.ndarray, factor: tuple[int, ...], *, mode: str, align_corners: bool) -> np.ndarray:
    size = x.shape[2:]
    larger = (n * f for n, f in zip(size, factor, strict=True))
    y = empty((*x.shape[:2], *larger), x.dtype, channels_last=is_channels_last(x))
    if mode == "nearest":
        passes("upsample", x.dtype).repeat(*_boxes(y, x, y))
        return y
    kind = accumulator(x.dtype)
    _weigh(x, y, tuple(interpolated(n, f, align_corners, kind) for n, f in zip(size, factor, strict=True)))
    return y


def upsample_backward(dy: np.ndarray, factor: tuple[int, ...], *, mode: str, align_corners: bool) -> np.ndarray:
    size, kind = tuple(n // f for n, f in zip(dy.shape[2:], factor, strict=True)), accumulator(dy.dtype)
    dx = empty((*dy.shape[:2], *size), dy.dtype, channels_last=is_channels_last(dy))
    if mode == "nearest":
        axes = tuple(summed(n, f, kind) for n, f in zip(size, factor, strict=True))
    else:
        axes = tuple(gathered(n, f, align_corners, kind) for n, f in zip(size, factor, strict=True))
    _weigh(dy, dx, axes)
    return dx


def _weigh(x: np.ndarray, y: np.ndarray, axes: tuple[Taps, ...]) -> None:
    """Fill y with sums of x, by what makes a result along each axis."""
    of_volumes = axes if len(axes) == 3 else (summed(1, 1, accumulator(x.dtype)), *axes)
    passes("upsample", x.dtype, served=are_short(of_volumes)).weigh(*_boxes(y, x, y), of_volumes)


def _boxes(like: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    """Return arrays as (outer, D, H, W, inner) in the memory format of one, without gaps; images have D = 1."""
    last = is_channels_last(like)
    boxes = []
    for array in stored(like, *arrays):
        outer, axes, inner = (
            (array.shape[0], array.shape[1:-1], array.shape[-1])
            if last
            else (prod(array.shape[:2]), array.shape[2:], 1)
        )
        boxes.append(array.reshape(outer, *(1,) * (3 - len(axes)), *axes, inner))
    return boxes
