"""Average pooling, over windows and over whole images, as the sums that define it; over those of volumes: pool_volume.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pool_shapes import PoolSizes, VolumePoolSizes
from .loops import every, floats
from .max_pool import pixel, window
from .pool_volume import volume_average_pool_backward, volume_average_pool_forward


def average_pool_forward(x: Any, sizes: PoolSizes | VolumePoolSizes, *, count_pad: bool) -> np.ndarray:
    """y[n, c, p, q] = sum of the real pixels under the window / their number (count_pad: that of taps in the padded image)."""
    if isinstance(sizes, VolumePoolSizes):
        return volume_average_pool_forward(x, sizes, count_pad=count_pad)
    z = sizes
    x = floats(x)
    y = np.zeros((z.N, z.C, z.P, z.Q))
    for n, c, p, q in every(*y.shape):
        total = 0.0
        for _, _, i, j in window(p, q, z):
            total += x[n][c][i][j]
        y[n, c, p, q] = total / _divisor(p, q, z, count_pad)
    return y


def average_pool_backward(dy: Any, sizes: PoolSizes | VolumePoolSizes, *, count_pad: bool) -> np.ndarray:
    """dx at every real pixel under a window += dy / what the window was divided by."""
    if isinstance(sizes, VolumePoolSizes):
        return volume_average_pool_backward(dy, sizes, count_pad=count_pad)
    z = sizes
    dy = floats(dy)
    dx = np.zeros((z.N, z.C, z.H, z.W))
    sums = floats(dx)
    for n, c, p, q in every(z.N, z.C, z.P, z.Q):
        for _, _, i, j in window(p, q, z):
            sums[n][c][i][j] += dy[n][c][p][q] / _divisor(p, q, z, count_pad)
    dx[:] = np.reshape(sums, dx.shape)
    return dx


def global_average_pool_forward(x: Any) -> np.ndarray:
    """y[n, c] = sum over i, j of x[n, c, i, j] / (H W)."""
    N, C, H, W = x.shape
    x = floats(x)
    y = np.zeros((N, C))
    for n, c in every(N, C):
        total = 0.0
        for i, j in every(H, W):
            total += x[n][c][i][j]
        y[n, c] = total / (H * W)
    return y


def global_average_pool_backward(dy: Any, shape: tuple[int, int, int, int], *, channels_last: bool) -> np.ndarray:
    """dx[n, c, i, j] = dy[n, c] / (H W).  The memory format is a matter of speed, which the oracle leaves alone."""
    del channels_last
    N, C, H, W = shape
    dy = floats(dy)
    dx = np.zeros(shape)
    for n, c, i, j in every(N, C, H, W):
        dx[n, c, i, j] = dy[n][c] / (H * W)
    return dx


def _divisor(p: int, q: int, z: PoolSizes, count_pad: bool) -> int:
    if not count_pad:
        return sum(1 for _ in window(p, q, z))
    places = (pixel(p, q, r, s, z) for r, s in every(z.R, z.S))
    return sum(1 for i, j in places if i < z.H + z.behind[0] and j < z.W + z.behind[1])
