"""Rectified linear unit of a block of elements."""

from __future__ import annotations

import numpy as np

from ..parallel import BLOCK_ELEMENTS
from .bits import keep_where

BLOCK = BLOCK_ELEMENTS


def forward(x: np.ndarray, y: np.ndarray) -> None:
    np.maximum(x, 0, out=y)


def backward(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    keep_where(y > 0, dy, dx)
