"""Crop, flip, normalise and cut out: one gather, one look-up of 256 values per channel, one square of zeros."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .layout import empty
from .parallel import for_each, ranges

_BLOCK_IMAGES = 32


def augment(
    images: np.ndarray,
    draws: np.ndarray | None,
    *,
    mean: list[float],
    std: list[float],
    pad: int,
    pad_mode: str,
    flip: bool,
    cutout: int,
    dtype: np.dtype,
    channels_last: bool,
) -> np.ndarray:
    N, C, H, W = images.shape
    levels = (np.arange(256) / 255.0 - np.array(mean)[:, None]) / np.array(std)[:, None]  # (C, 256)
    levels = levels.astype(dtype)
    channel = np.arange(C)[:, None, None]
    out = empty((N, C, H, W), dtype, channels_last=channels_last)

    def work(block: tuple[int, int]) -> None:
        part = slice(*block)
        pixels = images[part]
        if draws is not None:
            pixels = _moved(pixels, draws[part], pad, pad_mode, flip=flip)
        out[part] = levels[channel, pixels]
        if draws is not None and cutout:
            _cut_out(out[part], draws[part], cutout)

    for_each(work, ranges(N, _BLOCK_IMAGES))
    return out


def _moved(pixels: np.ndarray, draws: np.ndarray, pad: int, pad_mode: str, *, flip: bool) -> np.ndarray:
    """Return each picture shifted and mirrored as its random word says."""
    n, _, H, W = pixels.shape
    places = np.uint64(2 * pad + 1)
    low = np.uint64(0xFFFF)
    top = ((draws & low) * places) >> np.uint64(16)
    left = (((draws >> np.uint64(16)) & low) * places) >> np.uint64(16)
    border = ((0, 0), (0, 0), (pad, pad), (pad, pad))
    padded = np.pad(pixels, border, mode="reflect") if pad_mode == "reflect" else np.pad(pixels, border)
    crops = sliding_window_view(padded, (H, W), axis=(2, 3))  # (n, C, 2 pad + 1, 2 pad + 1, H, W)
    moved = crops[np.arange(n), :, top.astype(np.intp), left.astype(np.intp)]
    if flip:
        mirrored = (draws >> np.uint64(32)) & np.uint64(1) == 1
        moved[mirrored] = moved[mirrored, :, :, ::-1]
    return moved


def _cut_out(images: np.ndarray, draws: np.ndarray, size: int) -> None:
    """Set the square that each picture's random word chooses to 0."""
    _, _, H, W = images.shape
    low = np.uint64(0x7FFF)
    rows = (((draws >> np.uint64(33)) & low) * np.uint64(H)) >> np.uint64(15)
    columns = (((draws >> np.uint64(48)) & low) * np.uint64(W)) >> np.uint64(15)
    for image, row, column in zip(images, rows.tolist(), columns.tolist(), strict=True):
        top, left = row - size // 2, column - size // 2
        image[:, max(top, 0) : top + size, max(left, 0) : left + size] = 0
