"""Transposed convolution: what a convolution's backward does forward, and the other way round."""

from __future__ import annotations

from math import prod

import numpy as np

from ..shapes import ConvSizes, VolumeConvSizes, is_channels_last
from .conv import conv_backward
from .conv_volume import volume_conv_forward, volume_input_gradient
from .correlation import correlate, input_gradient
from .layout import accumulator, empty
from .parallel import quiet
from .reduce import channel_sums
from .windows import forward_windows

Sizes = ConvSizes | VolumeConvSizes


@quiet
def conv_transpose_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, sizes: Sizes) -> np.ndarray:
    """Return y; sizes: of the convolution of y to x."""
    dtype = x.dtype
    kind = dtype if b is None else accumulator(dtype)  # in which b is added before anything is rounded
    y = empty(sizes.image, kind, channels_last=is_channels_last(x))
    x, w, bias = (
        x.astype(kind, copy=False),
        w.astype(kind, copy=False),
        None if b is None else b.astype(kind, copy=False),
    )
    if isinstance(sizes, VolumeConvSizes):
        volume_input_gradient(x, w, sizes, y)
        if bias is not None:
            y += bias.reshape(-1, 1, 1, 1)
    else:
        input_gradient(x, w, sizes, y, bias)
    return y.astype(dtype, copy=False)


@quiet
def conv_transpose_backward(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, sizes: Sizes, *, input_grad: bool, weight_grad: bool, bias_grad: bool
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    dx = db = None
    _, dw, _ = conv_backward(x, dy, w, sizes, input_grad=False, weight_grad=weight_grad, bias_grad=False)
    if bias_grad:
        db = channel_sums(dy.reshape(*dy.shape[:2], prod(dy.shape[2:-1]), dy.shape[-1])).astype(w.dtype)
    if input_grad:
        dx = empty(sizes.out, x.dtype, channels_last=is_channels_last(x))
        if isinstance(sizes, VolumeConvSizes):
            volume_conv_forward(dy, w, None, sizes, dx)
        else:
            correlate(dy, w, None, dx, forward_windows(sizes), sizes.groups)
    return dx, dw, db
