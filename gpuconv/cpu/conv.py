"""Convolution of images, and of volumes where the sizes are theirs: the memory of results, and what is computed at all."""

from __future__ import annotations

from math import prod

import numpy as np

from ..shapes import ConvSizes, VolumeConvSizes, is_channels_last
from .conv_volume import volume_conv_forward, volume_input_gradient, volume_weight_gradient
from .correlation import correlate, input_gradient, weight_gradient
from .layout import empty
from .parallel import quiet
from .reduce import channel_sums
from .windows import forward_windows


def conv_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, sizes: ConvSizes | VolumeConvSizes) -> np.ndarray:
    y = empty(sizes.out, x.dtype, channels_last=is_channels_last(x))
    if isinstance(sizes, VolumeConvSizes):
        volume_conv_forward(x, w, b, sizes, y)
    else:
        correlate(x, w, b, y, forward_windows(sizes), sizes.groups)
    return y


@quiet
def conv_backward(
    dy: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
    sizes: ConvSizes | VolumeConvSizes,
    *,
    input_grad: bool,
    weight_grad: bool = True,
    bias_grad: bool,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    dx = dw = db = None
    if weight_grad:
        if isinstance(sizes, VolumeConvSizes):
            sums = volume_weight_gradient(dy, x, w, sizes)
        else:
            sums = weight_gradient(dy, x, w, sizes)
        dw = np.ascontiguousarray(sums, dtype=w.dtype)
    if bias_grad:
        db = channel_sums(dy.reshape(*dy.shape[:2], prod(dy.shape[2:-1]), dy.shape[-1])).astype(w.dtype)
    if input_grad:
        dx = empty(x.shape, x.dtype, channels_last=is_channels_last(x))
        if isinstance(sizes, VolumeConvSizes):
            volume_input_gradient(dy, w, sizes, dx)
        else:
            input_gradient(dy, w, sizes, dx)
    return dx, dw, db
