"""Inverted dropout, block by block."""

from __future__ import annotations

import numpy as np

from ..layout import accumulator
from ..parallel import BLOCK_ELEMENTS, blocks, quiet
from .bits import keep_where

BLOCK = BLOCK_ELEMENTS


@quiet
def scale_kept(
    values: np.ndarray, kept: np.ndarray, out: np.ndarray, scale: float, block: int, counter: np.ndarray
) -> None:
    kind = accumulator(values.dtype)
    for part in blocks(counter, len(out), block):
        scaled = np.multiply(values[part], kind.type(scale), dtype=kind).astype(out.dtype, copy=False)
        keep_where(kept[part], scaled, out[part])
