"""Upsampling by whole factors as the weighted sum that defines it."""

from __future__ import annotations

import itertools
from math import prod
from typing import Any

import numpy as np

from .loops import add, every

# Of each result along an axis: the pixels it is made of, with their weights.
_Axis = list[list[tuple[int, float]]]


def upsample_forward(x: Any, factor: tuple[int, ...], *, mode: str, align_corners: bool) -> np.ndarray:
    """y[n, c, p, q] = sum over pixels i, j of a(p, i) b(q, j) x[n, c, i, j], with the weights a, b of `_weight`."""
    axes = _axes(x.shape[2:], factor, mode, align_corners)
    y = np.zeros((*x.shape[:2], *map(len, axes)))
    for n, c, *place in every(*y.shape):
        total = 0.0
        for weight, pixel in _pixels(axes, place):
            total += weight * float(x[n, c, *pixel])
        y[n, c, *place] = total
    return y


def upsample_backward(dy: Any, factor: tuple[int, ...], *, mode: str, align_corners: bool) -> np.ndarray:
    """dx at every pixel that y[n, c, p, q] is made of += its weight there times dy[n, c, p, q]."""
    size = [n // f for n, f in zip(dy.shape[2:], factor, strict=True)]
    axes = _axes(size, factor, mode, align_corners)
    dx = np.zeros((*dy.shape[:2], *size))
    for n, c, *place in every(*dy.shape):
        for weight, pixel in _pixels(axes, place):
            add(dx, (n, c, *pixel), weight * float(dy[n, c, *place]))
    return dx


def _axes(size: Any, factor: tuple[int, ...], mode: str, align_corners: bool) -> list[_Axis]:
    """Return the pixels of each result along each axis: those whose weight is not 0."""
    return [
        [
            [(i, weight) for i in range(n) if (weight := _weight(p, i, n, f, mode, align_corners)) > 0]
            for p in range(n * f)
        ]
        for n, f in zip(size, factor, strict=True)
    ]


def _weight(p: int, i: int, n: int, f: int, mode: str, align_corners: bool) -> float:
    """nearest: 1 if p // f = i, else 0.   linear: max(0, 1 - |s - i|), where s is the place of p among the n pixels:
    (p + 1/2) / f - 1/2, but no further out than 0 and n - 1; align_corners: p (n - 1) / (f n - 1)."""
    if mode == "nearest":
        return float(p // f == i)
    # s = above / below in whole numbers
    above, below = (p * (n - 1), max(1, f * n - 1)) if align_corners else (2 * p + 1 - f, 2 * f)
    above = min(max(above, 0), (n - 1) * below)
    return max(0, below - abs(above - i * below)) / below


def _pixels(axes: list[_Axis], place: Any) -> Any:
    """Yield (weight, pixel) for all pixels that a result is made of."""
    for taps in itertools.product(*(axis[p] for axis, p in zip(axes, place, strict=True))):
        yield prod(weight for _, weight in taps), [pixel for pixel, _ in taps]
