"""Dropout, whose masks a seed determines."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of, zeros
from ..ops.dropout import dropout_forward


class DropoutStates:
    """Draws masks: those of one seed are the same, call by call; the numbers are not those of cuDNN."""

    def __init__(self, handle: Any, seed: int) -> None:
        del handle
        self._seed, self._calls, self._ratio = int(seed), 0, 0.0

    def set_dropout_ratio(self, ratio: float) -> None:
        """Keep a ratio; forward and backward are given their own."""
        self._ratio = float(ratio)

    def forward(self, handle: Any, x: Any, ratio: float) -> tuple[Any, Any]:
        """Return (reserve_space, y): y is x / (1 - ratio), or 0 with probability ratio; the first is for backward."""
        del handle
        self.set_dropout_ratio(ratio)
        y, cache = dropout_forward(x, rate=self._ratio, seed=self._seed, step=self._calls)
        self._calls += 1
        kept = zeros((0,), np.int8, beside=x) if cache.kept is None else cache.kept.view(np.int8)
        return kept, y

    def backward(self, handle: Any, dy: Any, ratio: float, reserve_space: Any) -> Any:
        """Return dx: dy by the mask of the forward that returned reserve_space."""
        del handle
        self.set_dropout_ratio(ratio)
        kept = reserve_space.view(np.bool_) if self._ratio else None
        backend = backend_of(dy=dy, reserve_space=reserve_space)
        return backend.dropout_backward(dy, kept, 1.0 / (1.0 - self._ratio))
