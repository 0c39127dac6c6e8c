"""Launch of kernels/augmentation.cu."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .device import device_of
from .kernel import Kernel, cover
from .layout import elements, empty_images, index_type

_AUGMENT = Kernel("augmentation.cu", "augment", strided=("images", "draws"))


def augment(
    images: Any,
    draws: Any,
    *,
    mean: list[float],
    std: list[float],
    pad: int,
    pad_mode: str,
    flip: bool,
    cutout: int,
    dtype: np.dtype,
    channels_last: bool,
) -> Any:
    device: Any = device_of(images)
    shape = tuple(images.shape)
    N, C, H, W = shape
    out, target = empty_images(device, (N, C, H, W), dtype, channels_last=channels_last)
    steps = dict(zip(("image", "channel", "row", "column"), images.strides, strict=True))  # one byte an element
    steps["draw"] = 0 if draws is None else draws.strides[0] // draws.dtype.itemsize
    count = elements(shape)
    templates = dtype, channels_last, index_type(count)
    levels = _levels(device, tuple(mean), tuple(std), dtype)
    moves = pad, pad_mode == "reflect", flip, cutout
    _AUGMENT(device, templates, cover(device, count), images, draws, levels, target, steps, *shape, *moves)
    return out


@functools.lru_cache(maxsize=16)
def _levels(device: Any, mean: tuple[float, ...], std: tuple[float, ...], dtype: np.dtype) -> Any:
    """Return the normalised value of every pixel value, (C, 256), copied to the device once and kept there."""
    levels = (np.arange(256) / 255.0 - np.array(mean)[:, None]) / np.array(std)[:, None]
    array = device.asarray(levels.astype(dtype))
    device.synchronize()  # later calls may run on other streams, which would not wait for this copy
    return array
