"""Adaptive average pooling of signals, images and volumes as the sums that define it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..pool_shapes import AdaptiveSizes
from .loops import every, flat_floats


def adaptive_average_pool_forward(x: Any, sizes: AdaptiveSizes) -> np.ndarray:
    """y[n, c, p, ...] = mean of x[n, c, i, ...] over floor(p H / P) <= i < ceil((p + 1) H / P), each axis likewise."""
    pixels = dict(zip(every(*sizes.image), flat_floats(x), strict=True))
    y = np.zeros(sizes.out)
    for n, c, *output in every(*sizes.out):
        window = list(_window(output, sizes))
        total = 0.0
        for place in window:
            total += pixels[n, c, *place]
        y[n, c, *output] = total / len(window)
    return y


def adaptive_average_pool_backward(dy: Any, sizes: AdaptiveSizes) -> np.ndarray:
    """dx at every pixel of a window += dy / the window's number of pixels."""
    gradients = dict(zip(every(*sizes.out), flat_floats(dy), strict=True))
    sums = dict.fromkeys(every(*sizes.image), 0.0)
    for n, c, *output in every(*sizes.out):
        window = list(_window(output, sizes))
        for place in window:
            sums[n, c, *place] += gradients[n, c, *output] / len(window)
    return np.reshape(list(sums.values()), sizes.image)


def _window(output: Any, sizes: AdaptiveSizes) -> Iterator[tuple[int, ...]]:
    """Yield the place of every pixel of the window of an output."""
    axes = zip(output, sizes.image[2:], sizes.out[2:], strict=True)
    return itertools.product(*(range(p * n // P, -(-(p + 1) * n // P)) for p, n, P in axes))
