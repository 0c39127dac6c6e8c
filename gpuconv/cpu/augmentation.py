"""From stored pictures to a batch: what each of 256 values becomes in each channel, looked up block by block."""

from __future__ import annotations

import numpy as np

from .compiled import passes
from .layout import empty
from .parallel import for_each
from .taps import image_ranges


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
    run = passes("augmentation", dtype)
    levels = (np.arange(256) / 255.0 - np.array(mean)[:, None]) / np.array(std)[:, None]  # (C, 256)
    levels = levels.astype(dtype)
    N, C, H, W = images.shape
    out = empty((N, C, H, W), dtype, channels_last=channels_last)

    def work(part: slice) -> None:
        words = None if draws is None else draws[part]
        run.augment(images[part], words, levels, out[part], pad, pad_mode == "reflect", flip, cutout)

    for_each(work, image_ranges(images, run.BLOCK))
    return out
