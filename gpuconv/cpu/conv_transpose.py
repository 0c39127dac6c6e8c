"""Transposed convolution: what a convolution's backward does forward, and the other way round."""

from __future__ import annotations

from math import prod

import numpy as np

from ..shapes import ConvSizes, VolumeConvSizes, is_channels_last
from .conv import conv_backward
from .conv_volume import volume_conv_forward
from .correlation import correlate
from .layout import accumulator, empty
from .parallel import quiet
from .reduce import channel_sums
from .windows import forward_windows

Sizes = ConvSizes | VolumeConvSizes


@quiet
def conv_transpose_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, sizes: Sizes) -> np.ndarray:
    """Return y; sizes: of the convolution of y to x."""
    kind = x.dtype if b is None else accumulator(x.dtype)  # in which b is added before anything is rounded
    like = empty(sizes.image, kind, channels_last=is_channels_last(x))
    y = _sent_back(x.astype(kind, copy=False), like, w.astype(kind, copy=False), sizes)
    if b is None:
        return y
    y += b.astype(kind, copy=False).reshape(-1, *[1] * (y.ndim - 2))
    return y.astype(x.dtype, copy=False)


def _sent_back(x: np.ndarray, like: np.ndarray, w: np.ndarray, sizes: Sizes) -> np.ndarray:
    """Return the gradient of the input `like` of a convolution whose output has the gradient x."""
    y, _, _ = conv_backward(x, like, w, sizes, input_grad=True, weight_grad=False, bias_grad=False)
    assert y is not None
    return y


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
