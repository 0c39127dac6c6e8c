"""Inverted dropout: which elements stay is decided by counter-based random words, in row order of the shape."""

from __future__ import annotations

import numpy as np

from ..random import Stream, words
from .elementwise import elementwise
from .layout import empty_as


def dropout_forward(
    x: np.ndarray, *, rate: float, seed: int, step: int, offset: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    if rate == 0.0:
        return x.copy(order="K"), None
    first, before = divmod(offset, 2)
    draws = words(-(-(before + x.size) // 2), seed=seed, stream=Stream.DROPOUT, step=step, first=first)
    halves = draws.astype("<u8", copy=False).view("<u4")[before : before + x.size]
    kept = (halves >= round(rate * 2**32)).reshape(x.shape)
    return elementwise("dropout", "scale_kept", [x, kept], empty_as(x), 1.0 / (1.0 - rate)), kept


def dropout_backward(dy: np.ndarray, kept: np.ndarray | None, scale: float) -> np.ndarray:
    if kept is None:
        return dy.copy(order="K")
    return elementwise("dropout", "scale_kept", [dy, kept], empty_as(dy), scale)
