"""Leaky rectified linear unit of a block of elements; products are of the factor's type."""

from __future__ import annotations

import numpy as np

from ..parallel import BLOCK_ELEMENTS

BLOCK = BLOCK_ELEMENTS


def forward(x: np.ndarray, y: np.ndarray, factor: np.floating) -> None:
    np.multiply(x, factor, out=y, dtype=factor.dtype, casting="same_kind")
    np.copyto(y, x, where=x > 0)


def backward(dy: np.ndarray, y: np.ndarray, dx: np.ndarray, factor: np.floating) -> None:
    np.multiply(dy, factor, out=dx, dtype=factor.dtype, casting="same_kind")
    np.copyto(dx, dy, where=y > 0)
