"""max_pool_forward and max_pool_backward as a search through every window; those of volumes are in pool_volume.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..pool_shapes import PoolSizes, VolumePoolSizes
from .loops import every, floats
from .pool_volume import volume_max_pool_backward, volume_max_pool_forward


def max_pool_forward(x: Any, sizes: PoolSizes | VolumePoolSizes) -> tuple[np.ndarray, np.ndarray]:
    """y[n, c, p, q] = the first NaN of the window, or else its first maximum; argmax = its place r S + s."""
    if isinstance(sizes, VolumePoolSizes):
        return volume_max_pool_forward(x, sizes)
    z = sizes
    x = floats(x)
    y = np.zeros((z.N, z.C, z.P, z.Q))
    argmax = np.zeros(y.shape, dtype=np.int64)
    for n, c, p, q in every(*y.shape):
        best, place = -math.inf, -1  # -1: nothing seen yet
        for r, s, i, j in window(p, q, z):
            value = x[n][c][i][j]
            if place < 0 or value > best or (math.isnan(value) and not math.isnan(best)):
                best, place = value, r * z.S + s
        y[n, c, p, q], argmax[n, c, p, q] = best, place
    return y, argmax


def max_pool_backward(
    dy: Any, argmax: Any, sizes: PoolSizes | VolumePoolSizes, *, ties: str = "first", x: Any = None, y: Any = None
) -> np.ndarray:
    """dx at the winner of every window += dy; "split", "every": at each pixel of x that equals its window's y."""
    if isinstance(sizes, VolumePoolSizes):
        return volume_max_pool_backward(dy, argmax, sizes, ties=ties, x=x, y=y)
    z = sizes
    dy = floats(dy)
    if ties == "first":
        argmax = argmax.tolist()
    else:
        x, y = floats(x), floats(y)
    dx = np.zeros((z.N, z.C, z.H, z.W))
    sums = floats(dx)
    for n, c, p, q in every(z.N, z.C, z.P, z.Q):
        if ties == "first":
            r, s = divmod(argmax[n][c][p][q], z.S)
            winners = [pixel(p, q, r, s, z)]
        else:
            winners = [(i, j) for _, _, i, j in window(p, q, z) if x[n][c][i][j] == y[n][c][p][q]]
        for i, j in winners:
            sums[n][c][i][j] += dy[n][c][p][q] / (len(winners) if ties == "split" else 1)
    dx[:] = np.reshape(sums, dx.shape)
    return dx


def window(p: int, q: int, z: PoolSizes) -> Iterator[tuple[int, int, int, int]]:
    """Yield (r, s, i, j), place in the window and pixel of the image, for all real pixels under window (p, q)."""
    for r, s in every(z.R, z.S):
        i, j = pixel(p, q, r, s, z)
        if 0 <= i < z.H and 0 <= j < z.W:
            yield r, s, i, j


def pixel(p: int, q: int, r: int, s: int, z: PoolSizes) -> tuple[int, int]:
    """Return the pixel under tap (r, s) of window (p, q), which may lie outside the image."""
    return p * z.stride[0] + r * z.dilation[0] - z.pad[0], q * z.stride[1] + s * z.dilation[1] - z.pad[1]
