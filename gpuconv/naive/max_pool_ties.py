"""The gradient of max-pooling where every one of a window's equal maxima has a part in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..shapes import PoolSizes
from .loops import every, floats
from .max_pool import window


def max_pool_backward_ties(dy: Any, x: Any, y: Any, sizes: PoolSizes, *, split: bool) -> np.ndarray:
    """dx at every pixel that equals its window's maximum += dy, or with split an equal share of it."""
    z = sizes
    dy, x, y = floats(dy), floats(x), floats(y)
    dx = np.zeros((z.N, z.C, z.H, z.W))
    sums = floats(dx)
    for n, c, p, q in every(z.N, z.C, z.P, z.Q):
        winners = [(i, j) for _, _, i, j in window(p, q, z) if x[n][c][i][j] == y[n][c][p][q]]
        for i, j in winners:
            sums[n][c][i][j] += dy[n][c][p][q] / (len(winners) if split else 1)
    dx[:] = np.reshape(sums, dx.shape)
    return dx
