"""Inverted dropout of a block of elements."""

from __future__ import annotations

import numpy as np

from ..layout import accumulator
from ..parallel import BLOCK_ELEMENTS
from .bits import keep_where

BLOCK = BLOCK_ELEMENTS


def scale_kept(values: np.ndarray, kept: np.ndarray, out: np.ndarray, scale: float) -> None:
    kind = accumulator(values.dtype)
    scaled = np.multiply(values, kind.type(scale), dtype=kind).astype(out.dtype, copy=False)
    keep_where(kept, scaled, out)
