"""conv_transpose_forward and its gradients as the sums that define them, for any number of axes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..shapes import ConvSizes, VolumeConvSizes
from .loops import add, every

Sizes = ConvSizes | VolumeConvSizes


def conv_transpose_forward(x: Any, w: Any, b: Any, sizes: Sizes) -> np.ndarray:
    """y[n, k, p stride + r dilation - pad, ...] = b[k] + the sum of x[n, c, p, ...] w[c, k, r, ...] that meet there."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    y = np.zeros(sizes.image)
    for source, taps, target in _products(sizes):
        add(y, target, float(x[source]) * float(w[taps]))
    if b is not None:
        for place in every(*y.shape):
            add(y, place, float(b[place[1]]))
    return y


def conv_transpose_backward(
    dy: Any, x: Any, w: Any, sizes: Sizes, *, input_grad: bool, weight_grad: bool, bias_grad: bool
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Each output's gradient times what its sum multiplied: w goes to dx, x to dw, 1 to db."""
    dy, x, w = (array.astype(np.float64) for array in (dy, x, w))
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(sizes.C)
    for source, taps, target in _products(sizes):
        add(dx, source, float(dy[target]) * float(w[taps]))
        add(dw, taps, float(dy[target]) * float(x[source]))
    for place in every(*dy.shape):
        add(db, (place[1],), float(dy[place]))
    return dx if input_grad else None, dw if weight_grad else None, db if bias_grad else None


def _products(z: Sizes) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Yield the places in x, in w and in y of every product; what would lie outside y is left out.

    z: sizes of the convolution of y to x, so that C counts the channels of y and K those of x
    """
    channels = z.C // z.groups
    for n, c, *pixel in every(*z.out):
        first = c // (z.K // z.groups) * channels
        for k, *tap in every(channels, *z.window):
            axes = zip(pixel, tap, z.stride, z.dilation, z.pad, strict=True)
            at = tuple(p * stride + r * dilation - pad for p, r, stride, dilation, pad in axes)
            if all(0 <= i < size for i, size in zip(at, z.image[2:], strict=True)):
                yield (n, c, *pixel), (c, k, *tap), (n, first + k, *at)
