"""Leaky rectified linear unit, block by block; products are of the factor's type."""

from __future__ import annotations

import numpy as np

from ..parallel import BLOCK_ELEMENTS, blocks, quiet

BLOCK = BLOCK_ELEMENTS


@quiet
def forward(x: np.ndarray, y: np.ndarray, factor: np.floating, block: int, counter: np.ndarray) -> None:
    for part in blocks(counter, len(y), block):
        _scale_unless(x[part] > 0, x[part], factor, y[part])


@quiet
def backward(
    dy: np.ndarray, y: np.ndarray, dx: np.ndarray, factor: np.floating, block: int, counter: np.ndarray
) -> None:
    for part in blocks(counter, len(dx), block):
        _scale_unless(y[part] > 0, dy[part], factor, dx[part])


def _scale_unless(kept: np.ndarray, values: np.ndarray, factor: np.floating, out: np.ndarray) -> None:
    np.multiply(values, factor, out=out, dtype=factor.dtype, casting="same_kind")
    np.copyto(out, values, where=kept)
