"""Average pooling, over windows and over whole images: the passes over memory are in arrays/ and loops/."""

from __future__ import annotations

import numpy as np

from ..pool_shapes import PoolSizes, VolumePoolSizes
from ..shapes import is_channels_last
from .compiled import passes
from .layout import accumulator, empty
from .memory import empty_array
from .parallel import quiet
from .pool_volume import volume_average_pool_backward, volume_average_pool_forward
from .runs import FEW
from .taps import counts


def average_pool_forward(x: np.ndarray, sizes: PoolSizes | VolumePoolSizes, *, count_pad: bool) -> np.ndarray:
    if isinstance(sizes, VolumePoolSizes):
        return volume_average_pool_forward(x, sizes, count_pad=count_pad)
    z = sizes
    # Loops add up a window in one running sum, which must be short: see runs.py.
    run = passes("average_pool", x.dtype, served=z.places <= FEW and z.plain)
    y = empty((z.N, z.C, z.P, z.Q), x.dtype, channels_last=is_channels_last(x))
    share = _shares(z, count_pad=count_pad).astype(accumulator(x.dtype))
    run.forward(x, y, share, z)
    return y


def average_pool_backward(dy: np.ndarray, sizes: PoolSizes | VolumePoolSizes, *, count_pad: bool) -> np.ndarray:
    if isinstance(sizes, VolumePoolSizes):
        return volume_average_pool_backward(dy, sizes, count_pad=count_pad)
    z = sizes
    run = passes("average_pool", dy.dtype, served=z.places <= FEW and z.plain)
    dx = empty((z.N, z.C, z.H, z.W), dy.dtype, channels_last=is_channels_last(dy))
    share = _shares(z, count_pad=count_pad).astype(accumulator(dy.dtype))
    run.backward(dy, dx, share, z)
    return dx


@quiet
def global_average_pool_forward(x: np.ndarray) -> np.ndarray:
    y = empty_array(x.shape[:2], x.dtype)
    passes("average_pool", x.dtype).global_forward(x, y)
    return y


@quiet
def global_average_pool_backward(
    dy: np.ndarray, shape: tuple[int, int, int, int], *, channels_last: bool
) -> np.ndarray:
    dx = empty(shape, dy.dtype, channels_last=channels_last)
    passes("average_pool", dy.dtype).global_backward(dy, dx)
    return dx


def _shares(z: PoolSizes, *, count_pad: bool) -> np.ndarray:
    """Return 1 / (number of pixels averaged) for every window, float64 (P, Q)."""
    rows, columns = counts(z, count_pad=count_pad)
    return 1.0 / np.outer(rows, columns)
