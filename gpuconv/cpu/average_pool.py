"""Average pooling, over windows and over whole images: a block of images at a time."""

from __future__ import annotations

import numpy as np

from ..shapes import PoolSizes, is_channels_last
from .compiled import passes
from .layout import accumulator, empty
from .memory import empty_array
from .parallel import for_each, quiet
from .runs import FEW
from .taps import image_ranges, taps


def average_pool_forward(x: np.ndarray, sizes: PoolSizes, *, count_pad: bool) -> np.ndarray:
    z = sizes
    # Loops add up a window in one running sum, which must be short: see runs.py.
    run = passes("average_pool", x.dtype, served=z.R * z.S <= FEW)
    y = empty((z.N, z.C, z.P, z.Q), x.dtype, channels_last=is_channels_last(x))
    share = _shares(z, count_pad=count_pad).astype(accumulator(x.dtype))

    def work(images: slice) -> None:
        run.forward(x[images], y[images], share, z)

    for_each(work, image_ranges(x, run.BLOCK))
    return y


def average_pool_backward(dy: np.ndarray, sizes: PoolSizes, *, count_pad: bool) -> np.ndarray:
    z = sizes
    run = passes("average_pool", dy.dtype, served=z.R * z.S <= FEW)
    dx = empty((z.N, z.C, z.H, z.W), dy.dtype, channels_last=is_channels_last(dy))
    share = _shares(z, count_pad=count_pad).astype(accumulator(dy.dtype))

    def work(images: slice) -> None:
        run.backward(dy[images], dx[images], share, z)

    for_each(work, image_ranges(dx, run.BLOCK))
    return dx


@quiet
def global_average_pool_forward(x: np.ndarray) -> np.ndarray:
    run = passes("average_pool", x.dtype)
    y = empty_array(x.shape[:2], x.dtype)

    def work(images: slice) -> None:
        run.global_forward(x[images], y[images])

    for_each(work, image_ranges(x, run.BLOCK))
    return y


@quiet
def global_average_pool_backward(
    dy: np.ndarray, shape: tuple[int, int, int, int], *, channels_last: bool
) -> np.ndarray:
    run = passes("average_pool", dy.dtype)
    dx = empty(shape, dy.dtype, channels_last=channels_last)

    def work(images: slice) -> None:
        run.global_backward(dy[images], dx[images])

    for_each(work, image_ranges(dx, run.BLOCK))
    return dx


def _shares(z: PoolSizes, *, count_pad: bool) -> np.ndarray:
    """Return 1 / (number of pixels averaged) for every window, float64 (P, Q)."""
    if count_pad:
        return np.full((z.P, z.Q), 1.0 / (z.R * z.S))
    counts = np.zeros((1, 1, z.P, z.Q))
    for _, _, target in taps(z):
        counts[target] += 1
    return 1.0 / counts[0, 0]
