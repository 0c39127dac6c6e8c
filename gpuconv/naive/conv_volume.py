"""The convolution of volumes (N, C, D, H, W) and its gradients as the sums that define them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..shapes import VolumeConvSizes
from .loops import every, floats


def volume_conv_forward(x: Any, w: Any, b: Any, z: VolumeConvSizes) -> np.ndarray:
    """y[n, k, o, p, q] = b[k] + sum over c, t, r, s of x[n, c, o stride + t dilation - pad, ...] w[k, c, t, r, s]."""
    x, w = floats(_padded(x, z)), floats(w)
    b = floats(b) if b is not None else [0.0] * z.K
    y = np.zeros(z.out)
    for n, k, o, p, q in every(*y.shape):
        first, total = _first_channel(k, z), b[k]
        for c, t, r, s in every(z.C // z.groups, z.T, z.R, z.S):
            d, i, j = _pixel((o, p, q), (t, r, s), z)
            total += x[n][first + c][d][i][j] * w[k][c][t][r][s]
        y[n, k, o, p, q] = total
    return y


def volume_conv_backward(
    dy: Any, x: Any, w: Any, z: VolumeConvSizes, *, input_grad: bool, weight_grad: bool, bias_grad: bool
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Each output's gradient times what its sum multiplied: w goes to dx, x to dw, 1 to db."""
    dy, x, w = floats(dy), floats(_padded(x, z)), floats(w)
    shapes = (
        (z.N, z.C, *z.padded),
        _filters(z),
        (z.K,),
    )
    dx, dw, db = (floats(np.zeros(shape)) for shape in shapes)
    for n, k, o, p, q in every(*z.out):
        first, gradient = _first_channel(k, z), dy[n][k][o][p][q]
        for c, t, r, s in every(z.C // z.groups, z.T, z.R, z.S):
            d, i, j = _pixel((o, p, q), (t, r, s), z)
            if _inside((d, i, j), z):  # padding has no gradient, and inf * 0 beside it makes none
                dx[n][first + c][d][i][j] += gradient * w[k][c][t][r][s]
            dw[k][c][t][r][s] += gradient * x[n][first + c][d][i][j]
        db[k] += gradient
    padded, of_filters, of_bias = (np.reshape(sums, shape) for sums, shape in zip((dx, dw, db), shapes, strict=True))
    deep, top, left = z.pad
    inner = padded[:, :, deep : deep + z.D, top : top + z.H, left : left + z.W]
    return inner if input_grad else None, of_filters if weight_grad else None, of_bias if bias_grad else None


def _filters(z: VolumeConvSizes) -> tuple[int, ...]:
    """Return the shape of w."""
    return z.K, z.C // z.groups, z.T, z.R, z.S


def _pixel(output: tuple[int, ...], tap: tuple[int, ...], z: VolumeConvSizes) -> tuple[int, ...]:
    """Return the pixel of the padded volume that a tap of an output reads."""
    return tuple(o * step + t * apart for o, step, t, apart in zip(output, z.stride, tap, z.dilation, strict=True))


def _inside(pixel: tuple[int, ...], z: VolumeConvSizes) -> bool:
    return all(pad <= i < pad + size for i, pad, size in zip(pixel, z.pad, (z.D, z.H, z.W), strict=True))


def _padded(x: Any, z: VolumeConvSizes) -> np.ndarray:
    """Return x with its border of zeros, which take part in the sums: 0 * inf is NaN there too."""
    axes = zip(z.padded, z.pad, z.image[2:], strict=True)
    border = (0, 0), (0, 0), *((before, padded - before - size) for padded, before, size in axes)
    return np.pad(x.astype(np.float64), border)


def _first_channel(k: int, z: VolumeConvSizes) -> int:
    """Return the first input channel that filter k sees."""
    return k // (z.K // z.groups) * (z.C // z.groups)
