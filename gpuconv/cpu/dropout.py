"""Inverted dropout: which elements stay is decided by counter-based random words, in row order of the shape."""

from __future__ import annotations

import numpy as np

from ..random import Stream, words
from .elementwise import elementwise
from .layout import empty_as


def dropout_forward(x: np.ndarray, *, rate: float, seed: int, step: int) -> tuple[np.ndarray, np.ndarray | None]:
    if rate == 0.0:
        return x.copy(order="K"), None
    draws = words(-(-x.size // 2), seed=seed, stream=Stream.DROPOUT, step=step).astype("<u8", copy=False)
    kept = (draws.view("<u4")[: x.size] >= round(rate * 2**32)).reshape(x.shape)
    return elementwise("dropout", "scale_kept", [x, kept], empty_as(x), 1.0 / (1.0 - rate)), kept


def dropout_backward(dy: np.ndarray, kept: np.ndarray | None, scale: float) -> np.ndarray:
    if kept is None:
        return dy.copy(order="K")
    return elementwise("dropout", "scale_kept", [dy, kept], empty_as(dy), scale)
