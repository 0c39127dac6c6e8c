"""Sigmoid linear unit, block by block: in float32, for half precision too, else in float64."""

from __future__ import annotations

import numpy as np

from ..layout import accumulator
from ..parallel import blocks, quiet

BLOCK = 128 * 1024  # several passes go over it, which want it in the cache


@quiet
def forward(x: np.ndarray, y: np.ndarray, block: int, counter: np.ndarray) -> None:
    for part in blocks(counter, len(y), block):
        wide = x[part].astype(accumulator(x.dtype), copy=False)
        share, _ = _shares(wide)
        np.multiply(wide, share, out=y[part], casting="same_kind")


@quiet
def backward(dy: np.ndarray, x: np.ndarray, dx: np.ndarray, block: int, counter: np.ndarray) -> None:
    for part in blocks(counter, len(dx), block):
        wide = x[part].astype(accumulator(x.dtype), copy=False)
        share, rest = _shares(wide)
        slope = share + wide * (share * rest)
        np.multiply(slope, dy[part], out=dx[part], casting="same_kind")


def _shares(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return s(x) and s(-x), each with all its digits."""
    small = np.exp(-np.abs(x))
    whole = 1 + small
    share, rest = 1 / whole, small / whole
    below = x < 0
    return np.where(below, rest, share), np.where(below, share, rest)
