"""Crop, mirror and normalise pictures, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .loops import every


def augment(
    images: Any,
    draws: Any,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    pad: int,
    flip: bool,
    dtype: np.dtype,
    channels_last: bool,
) -> np.ndarray:
    """y[n, c, i, j] = (pixel / 255 - mean[c]) / std[c], the pixel shifted and mirrored, 0 from outside.

    Always float64 in C order: dtype and channels_last are how a backend stores the same numbers.
    """
    del dtype, channels_last
    N, C, H, W = images.shape
    images = images.tolist()
    y = np.zeros((N, C, H, W))
    for n, c, i, j in every(N, C, H, W):
        down = right = pad
        mirrored = False
        if draws is not None:
            word = int(draws[n])
            down = (word & 0xFFFF) * (2 * pad + 1) >> 16
            right = (word >> 16 & 0xFFFF) * (2 * pad + 1) >> 16
            mirrored = flip and bool(word >> 32 & 1)
        row, column = i + down - pad, (W - 1 - j if mirrored else j) + right - pad
        pixel = images[n][c][row][column] if 0 <= row < H and 0 <= column < W else 0
        y[n, c, i, j] = (pixel / 255 - mean[c]) / std[c]
    return y
