"""Crop, flip, normalise and cut out a block of images: one gather, one look-up, one square of zeros."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

BLOCK = 96 * 1024


def augment(
    images: np.ndarray,
    draws: np.ndarray | None,
    levels: np.ndarray,
    out: np.ndarray,
    pad: int,
    reflect: bool,
    flip: bool,
    cutout: int,
) -> None:
    """Fill out with the levels (C, 256) of images, moved as their random words say; none (None) move none."""
    channel = np.arange(images.shape[1])[:, None, None]
    if draws is None:
        out[...] = levels[channel, images]
        return
    out[...] = levels[channel, _moved(images, draws, pad, reflect=reflect, flip=flip)]
    if cutout:
        _cut_out(out, draws, cutout)


def _moved(pixels: np.ndarray, draws: np.ndarray, pad: int, *, reflect: bool, flip: bool) -> np.ndarray:
    """Return each picture shifted and mirrored as its random word says."""
    n, _, H, W = pixels.shape
    places = np.uint64(2 * pad + 1)
    low = np.uint64(0xFFFF)
    top = ((draws & low) * places) >> np.uint64(16)
    left = (((draws >> np.uint64(16)) & low) * places) >> np.uint64(16)
    border = ((0, 0), (0, 0), (pad, pad), (pad, pad))
    padded = np.pad(pixels, border, mode="reflect") if reflect else np.pad(pixels, border)
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
