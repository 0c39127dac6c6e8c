"""Launches of kernels/dropout.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..placed import Count, placed_count
from ..shapes import is_channels_last
from .device import device_of
from .elementwise import copy, outputs, pointwise
from .kernel import Kernel, cover
from .layout import same_storage

_FORWARD = Kernel("dropout.cu", "dropout_forward")
_FORWARD_LAST = Kernel("dropout.cu", "dropout_forward_channels_last")
_BACKWARD = Kernel("dropout.cu", "dropout_backward")

_RUN = 8  # DROPOUT_RUN of kernels/dropout.cu


def dropout_forward(x: Any, *, rate: float, seed: int, step: int | Count, offset: int = 0) -> tuple[Any, Any]:
    device = device_of(x)
    if rate == 0.0:
        return copy(device, x), None
    (y, target), (kept, mask) = outputs(device, x, x.dtype, np.bool_)
    (values,) = same_storage(x, like=x)
    draw = 1.0 / (1.0 - rate), round(rate * 2**32), offset, seed, *placed_count(step)
    if x.ndim == 4 and is_channels_last(x):
        N, C, H, W = x.shape
        runs = N * C * -(-H * W // _RUN)
        _FORWARD_LAST(device, (x.dtype,), cover(device, runs), values, target, mask, N, C, H * W, *draw)
    else:
        _FORWARD(
            device,
            (x.dtype, bool(offset % _RUN)),
            cover(device, -(-x.size // _RUN)),
            values,
            target,
            mask,
            x.size,
            *draw,
        )
    return y, kept


def dropout_backward(dy: Any, kept: Any, scale: float) -> Any:
    if kept is None:
        return copy(device_of(dy), dy)
    return pointwise(_BACKWARD, dy, kept, like=dy, settings=(scale,))
