"""conv_forward and conv_backward as the sums that define them; those of volumes are in conv_volume.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..shapes import ConvSizes, VolumeConvSizes
from .conv_volume import volume_conv_backward, volume_conv_forward
from .loops import every, floats


def conv_forward(x: Any, w: Any, b: Any, sizes: ConvSizes | VolumeConvSizes) -> np.ndarray:
    """y[n, k, p, q] = b[k] + sum over c, r, s of x[n, c, p stride + r dilation - pad, ...] w[k, c, r, s]."""
    if isinstance(sizes, VolumeConvSizes):
        return volume_conv_forward(x, w, b, sizes)
    z = sizes
    (down, right), (apart_v, apart_h) = z.stride, z.dilation
    x, w = floats(_padded(x, z)), floats(w)
    b = floats(b) if b is not None else [0.0] * z.K
    y = np.zeros((z.N, z.K, z.P, z.Q))
    for n, k, p, q in every(z.N, z.K, z.P, z.Q):
        first = _first_channel(k, z)
        total = b[k]
        for c, r, s in every(z.C // z.groups, z.R, z.S):
            total += x[n][first + c][p * down + r * apart_v][q * right + s * apart_h] * w[k][c][r][s]
        y[n, k, p, q] = total
    return y


def conv_backward(
    dy: Any,
    x: Any,
    w: Any,
    sizes: ConvSizes | VolumeConvSizes,
    *,
    input_grad: bool,
    weight_grad: bool = True,
    bias_grad: bool,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Each output's gradient times what its sum multiplied: w goes to dx, x to dw, 1 to db."""
    if isinstance(sizes, VolumeConvSizes):
        return volume_conv_backward(
            dy, x, w, sizes, input_grad=input_grad, weight_grad=weight_grad, bias_grad=bias_grad
        )
    z = sizes
    (down, right), (apart_v, apart_h), (top, left) = z.stride, z.dilation, z.pad
    dy, x, w = floats(dy), floats(_padded(x, z)), floats(w)

    dw = np.zeros((z.K, z.C // z.groups, z.R, z.S)) if weight_grad else None
    if dw is not None:
        for k, c, r, s in every(*dw.shape):
            first, total = _first_channel(k, z), 0.0
            for n, p, q in every(z.N, z.P, z.Q):
                total += dy[n][k][p][q] * x[n][first + c][p * down + r * apart_v][q * right + s * apart_h]
            dw[k, c, r, s] = total

    dx = np.zeros((z.N, z.C, z.H, z.W)) if input_grad else None
    if dx is not None:
        sums = floats(dx)
        for n, k, p, q in every(z.N, z.K, z.P, z.Q):
            first = _first_channel(k, z)
            for c, r, s in every(z.C // z.groups, z.R, z.S):
                i, j = p * down + r * apart_v - top, q * right + s * apart_h - left
                if 0 <= i < z.H and 0 <= j < z.W:
                    sums[n][first + c][i][j] += dy[n][k][p][q] * w[k][c][r][s]
        dx[:] = np.reshape(sums, dx.shape)

    db = np.zeros(z.K) if bias_grad else None
    if db is not None:
        for n, k, p, q in every(z.N, z.K, z.P, z.Q):
            db[k] += dy[n][k][p][q]
    return dx, dw, db


def _padded(x: Any, z: ConvSizes) -> np.ndarray:
    """Return x with its border of zeros, which take part in the sums: 0 * inf is NaN there too."""
    (top, left), (height, width) = z.pad, z.padded
    border = (0, 0), (0, 0), (top, height - top - z.H), (left, width - left - z.W)
    return np.pad(x.astype(np.float64), border)


def _first_channel(k: int, z: ConvSizes) -> int:
    """Return the first input channel that filter k sees."""
    return k // (z.K // z.groups) * (z.C // z.groups)
