"""Max and average pooling of volumes (N, C, D, H, W) as a search through, or a sum over, every window."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..pool_shapes import VolumePoolSizes
from .loops import add, every, floats


def volume_max_pool_forward(x: Any, z: VolumePoolSizes) -> tuple[np.ndarray, np.ndarray]:
    """y[n, c, o, p, q] = the first NaN of the window, or else its first maximum; argmax = its place (t R + r) S + s."""
    x = floats(x)
    y = np.zeros(z.out)
    argmax = np.zeros(y.shape, dtype=np.int64)
    for n, c, *output in every(*y.shape):
        best, winner = -math.inf, -1  # -1: nothing seen yet
        for place, d, i, j in _window(output, z):
            value = x[n][c][d][i][j]
            if winner < 0 or value > best or (math.isnan(value) and not math.isnan(best)):
                best, winner = value, place
        y[n, c, *output], argmax[n, c, *output] = best, winner
    return y, argmax


def volume_max_pool_backward(dy: Any, argmax: Any, z: VolumePoolSizes, *, ties: str, x: Any, y: Any) -> np.ndarray:
    """dx at the winner of every window += dy; "split", "every": at each pixel of x that equals its window's y."""
    dx = np.zeros(z.image)
    for n, c, *output in every(*z.out):
        window = list(_window(output, z))
        if ties == "first":
            winners = [pixel for place, *pixel in window if place == argmax[n, c, *output]]
        else:
            winners = [pixel for _, *pixel in window if x[n, c, *pixel] == y[n, c, *output]]
        for pixel in winners:
            add(dx, (n, c, *pixel), float(dy[n, c, *output]) / (len(winners) if ties == "split" else 1))
    return dx


def volume_average_pool_forward(x: Any, z: VolumePoolSizes, *, count_pad: bool) -> np.ndarray:
    """y[n, c, o, p, q] = sum of the real pixels under the window / their number (count_pad: that of taps in the padded volume)."""
    x = floats(x)
    y = np.zeros(z.out)
    for n, c, *output in every(*y.shape):
        pixels = [x[n][c][d][i][j] for _, d, i, j in _window(output, z)]
        total = 0.0
        for pixel in pixels:
            total += pixel
        y[n, c, *output] = total / (_padded_taps(output, z) if count_pad else len(pixels))
    return y


def volume_average_pool_backward(dy: Any, z: VolumePoolSizes, *, count_pad: bool) -> np.ndarray:
    """dx at every real pixel under a window += dy / what the window was divided by."""
    dx = np.zeros(z.image)
    for n, c, *output in every(*z.out):
        window = list(_window(output, z))
        for _, *pixel in window:
            share = float(dy[n, c, *output]) / (_padded_taps(output, z) if count_pad else len(window))
            add(dx, (n, c, *pixel), share)
    return dx


def _window(output: Any, z: VolumePoolSizes) -> Iterator[tuple[int, int, int, int]]:
    """Yield (place in the window, and pixel d, i, j of the volume) for all real pixels under the window of an output."""
    for t, r, s in every(z.T, z.R, z.S):
        d, i, j = _pixel(output, (t, r, s), z)
        if 0 <= d < z.D and 0 <= i < z.H and 0 <= j < z.W:
            yield (t * z.R + r) * z.S + s, d, i, j


def _padded_taps(output: Any, z: VolumePoolSizes) -> int:
    """Return how many taps of the window of an output lie in the padded volume."""
    ends = [size + behind for size, behind in zip(z.image[2:], z.behind, strict=True)]
    places = (_pixel(output, tap, z) for tap in every(*z.window))
    return sum(1 for place in places if all(at < end for at, end in zip(place, ends, strict=True)))


def _pixel(output: Any, tap: tuple[int, ...], z: VolumePoolSizes) -> tuple[int, ...]:
    """Return the pixel under a tap of the window of an output, which may lie outside the volume."""
    axes = zip(output, tap, z.stride, z.dilation, z.pad, strict=True)
    return tuple(o * step + t * apart - pad for o, t, step, apart, pad in axes)
