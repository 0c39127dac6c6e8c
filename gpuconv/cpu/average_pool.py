"""Average pooling, over windows and over whole images: the passes over memory are in arrays/ and loops/."""

from __future__ import annotations

import functools

import numpy as np

from ..shapes import is_channels_last
from .compiled import passes
from .layout import accumulator, empty
from .memory import empty_array
from .parallel import quiet
from .taps import Sizes, counts


@quiet
def average_pool_forward(x: np.ndarray, sizes: Sizes, *, count_pad: bool) -> np.ndarray:
    y = empty(sizes.out, x.dtype, channels_last=is_channels_last(x))
    passes("average_pool", x.dtype).forward(x, y, _shares(x.dtype, sizes, count_pad=count_pad), sizes)
    return y


@quiet
def average_pool_backward(dy: np.ndarray, sizes: Sizes, *, count_pad: bool) -> np.ndarray:
    dx = empty(sizes.image, dy.dtype, channels_last=is_channels_last(dy))
    passes("average_pool", dy.dtype).backward(dy, dx, _shares(dy.dtype, sizes, count_pad=count_pad), sizes)
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


def _shares(dtype: np.dtype, z: Sizes, *, count_pad: bool) -> np.ndarray:
    """Return 1 / (number of pixels averaged) for every window, (P, Q) or (Z, P, Q), in the type of sums."""
    averaged = functools.reduce(np.multiply.outer, counts(z, count_pad=count_pad))
    return (1.0 / averaged).astype(accumulator(dtype))
