"""Average pooling tap by tap, and over whole images."""

from __future__ import annotations

from math import prod

import numpy as np

from ..shapes import PoolSizes, is_channels_last
from .layout import accumulator, empty
from .parallel import for_each, quiet
from .taps import image_ranges, taps


def average_pool_forward(x: np.ndarray, sizes: PoolSizes, *, count_pad: bool) -> np.ndarray:
    z = sizes
    kind = accumulator(x.dtype)
    y = empty((z.N, z.C, z.P, z.Q), x.dtype, channels_last=is_channels_last(x))
    share = _shares(z, count_pad=count_pad).astype(kind)

    def work(images: tuple[int, int]) -> None:
        part = slice(*images)
        total = np.zeros_like(y[part], dtype=kind)
        for _, source, target in taps(z):
            total[target] += x[part][source]
        np.multiply(total, share, out=total)
        np.copyto(y[part], total, casting="same_kind")

    for_each(work, image_ranges(x))
    return y


def average_pool_backward(dy: np.ndarray, sizes: PoolSizes, *, count_pad: bool) -> np.ndarray:
    z = sizes
    kind = accumulator(dy.dtype)
    dx = empty((z.N, z.C, z.H, z.W), dy.dtype, channels_last=is_channels_last(dy))
    share = _shares(z, count_pad=count_pad).astype(kind)

    def work(images: tuple[int, int]) -> None:
        part = slice(*images)
        gradient = dy[part] * share
        total = np.zeros_like(dx[part], dtype=kind)
        for _, source, target in taps(z):
            total[source] += gradient[target]
        np.copyto(dx[part], total, casting="same_kind")

    for_each(work, image_ranges(dx))
    return dx


@quiet
def global_average_pool_forward(x: np.ndarray) -> np.ndarray:
    mean = x.sum(axis=(2, 3), dtype=np.float64) / prod(x.shape[2:])
    return mean.astype(x.dtype)


@quiet
def global_average_pool_backward(
    dy: np.ndarray, shape: tuple[int, int, int, int], *, channels_last: bool
) -> np.ndarray:
    dx = empty(shape, dy.dtype, channels_last=channels_last)
    dx[...] = (dy.astype(accumulator(dy.dtype)) / prod(shape[2:]))[:, :, None, None]
    return dx


def _shares(z: PoolSizes, *, count_pad: bool) -> np.ndarray:
    """Return 1 / (number of pixels averaged) for every window, float64: (1, 1) or (P, Q)."""
    if count_pad:
        return np.full((1, 1), 1.0 / (z.R * z.S))
    counts = np.zeros((1, 1, z.P, z.Q))
    for _, _, target in taps(z):
        counts[target] += 1
    return 1.0 / counts[0, 0]
