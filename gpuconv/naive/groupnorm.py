"""Group normalisation of (N, C) and (N, C, H, W), group by group, with the variance in a second pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from .batchnorm import _sizes, _statistics
from .loops import every, floats


def groupnorm_forward(
    x: Any, gamma: Any, beta: Any, *, groups: int, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y = gamma (x - mean) / sqrt(variance + eps) + beta; returns (y, mean, 1 / sqrt(variance + eps)), (N, groups)."""
    N, C, pixels = _sizes(x)
    shape, x = x.shape, floats(x.reshape(N, C, pixels))
    gamma, beta = floats(gamma), floats(beta)
    y, mean, inv_std = np.zeros((N, C, pixels)), np.zeros((N, groups)), np.zeros((N, groups))
    for n, g in every(N, groups):
        places = list(_group(g, groups, C, pixels))
        centre, variance = _statistics([x[n][c][i] for c, i in places])
        factor = float(1 / np.sqrt(np.float64(variance + eps)))
        mean[n, g], inv_std[n, g] = centre, factor
        for c, i in places:
            y[n, c, i] = gamma[c] * ((x[n][c][i] - centre) * factor) + beta[c]
    return y.reshape(shape), mean, inv_std


def groupnorm_backward(
    dy: Any, x: Any, gamma: Any, mean: Any, inv_std: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx = (g - mean(g) - x_hat mean(g x_hat)) / std with g = gamma dy and means over the group."""
    N, C, pixels = _sizes(x)
    groups = mean.shape[1]
    shape, x, dy = x.shape, floats(x.reshape(N, C, pixels)), floats(dy.reshape(N, C, pixels))
    gamma, mean, inv_std = floats(gamma), floats(mean), floats(inv_std)
    dx, dgamma, dbeta = np.zeros((N, C, pixels)), [0.0] * C, [0.0] * C
    for n, g in every(N, groups):
        places = list(_group(g, groups, C, pixels))
        sum_g = sum_g_x = 0.0
        for c, i in places:
            x_hat = (x[n][c][i] - mean[n][g]) * inv_std[n][g]
            dgamma[c] += dy[n][c][i] * x_hat
            dbeta[c] += dy[n][c][i]
            sum_g += gamma[c] * dy[n][c][i]
            sum_g_x += gamma[c] * dy[n][c][i] * x_hat
        for c, i in places:
            x_hat = (x[n][c][i] - mean[n][g]) * inv_std[n][g]
            through = gamma[c] * dy[n][c][i] - sum_g / len(places) - x_hat * (sum_g_x / len(places))
            dx[n, c, i] = inv_std[n][g] * through
    return dx.reshape(shape), np.array(dgamma), np.array(dbeta)


def _group(g: int, groups: int, C: int, pixels: int) -> Any:
    """Return the (channel, pixel) places of group g."""
    members = C // groups
    return ((g * members + k, i) for k, i in every(members, pixels))
