"""Inverted dropout: which elements stay is decided one by one, from the 32-bit number at their place in row order."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..random import Stream, words
from .loops import flat_floats


def dropout_forward(
    x: Any, *, rate: float, seed: int, step: int, offset: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """y[i] = x[i] / (1 - rate) where number offset + i >= rate 2^32, else 0; returns (y, kept), kept None if rate is 0."""
    values = flat_floats(x)
    if rate == 0:
        return np.reshape(np.array(values, dtype=np.float64), x.shape), None
    drawn = words((offset + len(values) + 1) // 2, seed=seed, stream=Stream.DROPOUT, step=step).tolist()
    threshold = round(rate * 2**32)
    y, kept = np.zeros(len(values)), np.zeros(len(values), dtype=bool)
    for i, value in enumerate(values):
        place = offset + i
        number = (drawn[place // 2] >> 32 * (place % 2)) & 0xFFFFFFFF
        if number >= threshold:
            y[i], kept[i] = value / (1 - rate), True
    return y.reshape(x.shape), kept.reshape(x.shape)


def dropout_backward(dy: Any, kept: Any, scale: float) -> np.ndarray:
    """dx = dy scale where kept (None: everywhere), else 0."""
    grads = flat_floats(dy)
    stays = [True] * len(grads) if kept is None else kept.reshape(-1).tolist()
    dx = [grad * scale if stay else 0.0 for grad, stay in zip(grads, stays, strict=True)]
    return np.reshape(np.array(dx, dtype=np.float64), dy.shape)
