"""Batch normalisation of (N, C) and (N, C, H, W), channel by channel, with the variance in a second pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from .loops import every, floats


def batchnorm_forward(
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Any,
    running_var: Any,
    *,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y = gamma (x - mean) / sqrt(variance + eps) + beta; returns (y, mean, 1 / sqrt(variance + eps))."""
    N, C, pixels = _sizes(x)
    shape, x = x.shape, floats(x.reshape(N, C, pixels))
    gamma, beta = floats(gamma), floats(beta)
    y, mean, inv_std = np.zeros((N, C, pixels)), np.zeros(C), np.zeros(C)
    for c in range(C):
        centre, variance = float(running_mean[c]), float(running_var[c])
        if training and N:  # an empty batch has no statistics of its own
            centre, variance = _statistics([x[n][c][i] for n, i in every(N, pixels)])
            running_mean[c] = momentum * float(running_mean[c]) + (1 - momentum) * centre
            running_var[c] = momentum * float(running_var[c]) + (1 - momentum) * variance
        with np.errstate(divide="ignore", invalid="ignore"):  # eps = 0, or a negative running variance
            factor = float(1 / np.sqrt(np.float64(variance + eps)))
        mean[c], inv_std[c] = centre, factor
        for n, i in every(N, pixels):
            y[n, c, i] = gamma[c] * ((x[n][c][i] - centre) * factor) + beta[c]
    return y.reshape(shape), mean, inv_std


def batchnorm_backward(
    dy: Any, x: Any, gamma: Any, mean: Any, inv_std: Any, *, training: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx = gamma / std (dy - mean(dy) - x_hat mean(dy x_hat)); without training mean and std are constants."""
    N, C, pixels = _sizes(x)
    shape, x, dy = x.shape, floats(x.reshape(N, C, pixels)), floats(dy.reshape(N, C, pixels))
    gamma, mean, inv_std = floats(gamma), floats(mean), floats(inv_std)
    dx, dgamma, dbeta = np.zeros((N, C, pixels)), np.zeros(C), np.zeros(C)
    for c in range(C):
        sum_dy = sum_dy_x = 0.0
        for n, i in every(N, pixels):
            sum_dy += dy[n][c][i]
            sum_dy_x += dy[n][c][i] * ((x[n][c][i] - mean[c]) * inv_std[c])
        dbeta[c], dgamma[c] = sum_dy, sum_dy_x
        for n, i in every(N, pixels):
            through = dy[n][c][i]
            if training:
                x_hat = (x[n][c][i] - mean[c]) * inv_std[c]
                through = dy[n][c][i] - sum_dy / (N * pixels) - x_hat * (sum_dy_x / (N * pixels))
            dx[n, c, i] = gamma[c] * inv_std[c] * through
    return dx.reshape(shape), dgamma, dbeta


def _sizes(x: Any) -> tuple[int, int, int]:
    N, C = x.shape[:2]
    return N, C, int(np.prod(x.shape[2:], dtype=np.int64))


def _statistics(values: list[float]) -> tuple[float, float]:
    """Return mean and biased variance.

    The mean deviation from a first mean is that one's rounding error: with it added, the mean of equal values is
    exactly the value, whatever their number.
    """
    mean = _mean(values)
    mean += _mean([value - mean for value in values])
    return mean, _mean([(value - mean) * (value - mean) for value in values])


def _mean(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total / len(values)
