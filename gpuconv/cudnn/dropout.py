"""Dropout, whose masks a seed determines."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of, zeros
from ..ops.dropout import dropout_forward
from ..typing import Array
from .checks import floats, lines
from .errors import BAD_PARAM, CuDNNError


class DropoutStates:
    """Draws masks: those of one seed are the same, call by call; the numbers are not those of cuDNN.

    >>> states = cudnn.DropoutStates(None, seed=0)
    >>> kept, y = states.forward(None, np.ones(8), 0.5)
    >>> y
    array([2., 0., 2., 2., 0., 0., 0., 0.])
    >>> states.backward(None, np.full(8, 3.0), 0.5, kept)
    array([6., 0., 6., 6., 0., 0., 0., 0.])
    """

    def __init__(self, handle: Any, seed: int) -> None:
        del handle
        self._seed, self._calls = int(seed), 0

    def set_dropout_ratio(self, dropout_ratio: float) -> None:
        """Do nothing: forward and backward are given their own ratio."""

    def forward(self, handle: Any, x: Array, dropout_ratio: float) -> tuple[Any, Array]:
        """Return (reserve_space, y): y is x / (1 - ratio), or 0 with probability ratio; the first is for backward."""
        del handle
        floats(x=x)
        y, cache = dropout_forward(x, rate=float(dropout_ratio), seed=self._seed, step=self._calls)
        self._calls += 1
        kept = zeros((0,), np.int8, beside=x) if cache.kept is None else cache.kept.view(np.int8)
        return kept, y

    def backward(self, handle: Any, dy: Array, dropout_ratio: float, reserve_space: Any) -> Array:
        """Return dx: dy by the mask of the forward that returned reserve_space."""
        del handle
        floats(dy=dy)
        backend = backend_of(dy=dy, reserve_space=reserve_space)
        if tuple(reserve_space.shape) != (tuple(dy.shape) if dropout_ratio else (0,)) or not 0 <= dropout_ratio < 1:
            needed = "reserve_space must be what forward returned for an array of dy's shape and the same ratio"
            raise CuDNNError(
                BAD_PARAM, needed, *lines(dy=dy, reserve_space=reserve_space), f"dropout_ratio={dropout_ratio}"
            )
        kept = reserve_space.view(np.bool_) if dropout_ratio else None
        return backend.dropout_backward(dy, kept, 1.0 / (1.0 - float(dropout_ratio)))
