"""Rectified linear unit, block by block."""

from __future__ import annotations

import numpy as np

from ..parallel import BLOCK_ELEMENTS, blocks, quiet
from .bits import keep_where

BLOCK = BLOCK_ELEMENTS


@quiet
def forward(x: np.ndarray, y: np.ndarray, block: int, counter: np.ndarray) -> None:
    for part in blocks(counter, len(y), block):
        np.maximum(x[part], 0, out=y[part])


@quiet
def backward(dy: np.ndarray, y: np.ndarray, dx: np.ndarray, block: int, counter: np.ndarray) -> None:
    for part in blocks(counter, len(dx), block):
        keep_where(y[part] > 0, dy[part], dx[part])
