"""Crop, mirror, normalise and cut out, pixel by pixel."""

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
    pad_mode: str,
    flip: bool,
    cutout: int,
    dtype: np.dtype,
    channels_last: bool,
) -> np.ndarray:
    """y[n, c, i, j] = (pixel / 255 - mean[c]) / std[c], the pixel shifted and mirrored; 0 in the square cut out.

    A pixel from outside is 0, or the one that the border mirrors.

    Always float64 in C order: dtype and channels_last are how a backend stores the same numbers.
    """
    del dtype, channels_last
    N, C, H, W = images.shape
    images = images.tolist()
    y = np.zeros((N, C, H, W))
    for n, c, i, j in every(N, C, H, W):
        down = right = pad
        mirrored = hidden = False
        if draws is not None:
            word = int(draws[n])
            down = (word & 0xFFFF) * (2 * pad + 1) >> 16
            right = (word >> 16 & 0xFFFF) * (2 * pad + 1) >> 16
            mirrored = flip and bool(word >> 32 & 1)
            top = ((word >> 33 & 0x7FFF) * H >> 15) - cutout // 2
            left = ((word >> 48 & 0x7FFF) * W >> 15) - cutout // 2
            hidden = top <= i < top + cutout and left <= j < left + cutout
        if hidden:
            continue
        row, column = i + down - pad, (W - 1 - j if mirrored else j) + right - pad
        if pad_mode == "reflect":
            row, column = _reflected(row, H), _reflected(column, W)
        pixel = images[n][c][row][column] if 0 <= row < H and 0 <= column < W else 0
        y[n, c, i, j] = (pixel / 255 - mean[c]) / std[c]
    return y


def _reflected(place: int, size: int) -> int:
    """Return the place in [0, size) that a place at most size - 1 outside is the mirror image of."""
    if place < 0:
        return -place
    return 2 * (size - 1) - place if place >= size else place
