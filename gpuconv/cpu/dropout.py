"""Inverted dropout: which elements stay is decided by counter-based random words, in row order of the shape."""

from __future__ import annotations

import numpy as np

from ..random import Stream, words
from .elementwise import elementwise, keep_where
from .layout import accumulator, empty_as


def dropout_forward(x: np.ndarray, *, rate: float, seed: int, step: int) -> tuple[np.ndarray, np.ndarray | None]:
    if rate == 0.0:
        return x.copy(order="K"), None
    draws = words(-(-x.size // 2), seed=seed, stream=Stream.DROPOUT, step=step).astype("<u8", copy=False)
    kept = (draws.view("<u4")[: x.size] >= round(rate * 2**32)).reshape(x.shape)
    return _scaled(x, kept, 1.0 / (1.0 - rate)), kept


def dropout_backward(dy: np.ndarray, kept: np.ndarray | None, scale: float) -> np.ndarray:
    return dy.copy(order="K") if kept is None else _scaled(dy, kept, scale)


def _scaled(values: np.ndarray, kept: np.ndarray, scale: float) -> np.ndarray:
    kind = accumulator(values.dtype)

    def function(values: np.ndarray, kept: np.ndarray, out: np.ndarray) -> None:
        scaled = np.multiply(values, kind.type(scale), dtype=kind).astype(out.dtype, copy=False)
        keep_where(kept, scaled, out)

    return elementwise(function, [values, kept], empty_as(values))
