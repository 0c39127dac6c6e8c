"""Launch of kernels/augmentation.cu."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..placed import Count, placed_count
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
    out, target = empty_images(device, tuple(images.shape), dtype, channels_last=channels_last)
    moves = pad, pad_mode == "reflect", flip, cutout
    _launch(device, images, draws, (None, *placed_count(0), None), target, None, channels_last, mean, std, moves)
    return out


def augment_batch(
    images: Any,
    labels: Any,
    order: Any,
    draws: Any,
    *,
    place: int | Count,
    count: int,
    out: tuple[Any, Any] | None,
    mean: list[float],
    std: list[float],
    pad: int,
    pad_mode: str,
    flip: bool,
    cutout: int,
    dtype: np.dtype,
    channels_last: bool,
) -> tuple[Any, Any]:
    device: Any = device_of(images)
    if out is None:
        shape = (count, *images.shape[1:])
        out = (
            empty_images(device, shape, dtype, channels_last=channels_last)[0],
            device.empty((count,), labels.dtype),
        )
    target = out[0].transpose(0, 2, 3, 1) if channels_last else out[0]
    moves = pad, pad_mode == "reflect", flip, cutout
    chosen = order, *placed_count(place), labels
    _launch(device, images, draws, chosen, target, out[1], channels_last, mean, std, moves)
    return out


def _launch(
    device: Any,
    images: Any,
    draws: Any,
    chosen: tuple[Any, ...],
    target: Any,
    labels: Any,
    channels_last: bool,
    mean: list[float],
    std: list[float],
    moves: tuple[Any, ...],
) -> None:
    """Fill the C-contiguous form of a batch, and its labels where there are any."""
    _, C, H, W = images.shape
    shape = len(target), C, H, W
    steps = dict(zip(("image", "channel", "row", "column"), images.strides, strict=True))  # one byte an element
    steps["draw"] = 0 if draws is None else draws.strides[0] // draws.dtype.itemsize
    count = elements(shape)
    templates = target.dtype, channels_last, index_type(count)
    levels = _levels(device, tuple(mean), tuple(std), target.dtype)
    arrays = images, draws, levels, *chosen, target, labels
    _AUGMENT(device, templates, cover(device, count), *arrays, steps, *shape, *moves)


@functools.lru_cache(maxsize=16)
def _levels(device: Any, mean: tuple[float, ...], std: tuple[float, ...], dtype: np.dtype) -> Any:
    """Return the normalised value of every pixel value, (C, 256), copied to the device once and kept there."""
    levels = (np.arange(256) / 255.0 - np.array(mean)[:, None]) / np.array(std)[:, None]
    array = device.asarray(levels.astype(dtype))
    device.synchronize()  # later calls may run on other streams, which would not wait for this copy
    return array
