"""Batch normalisation: the formulas; the passes over memory are in arrays/ and loops/."""

from __future__ import annotations

import numpy as np

from .compiled import passes
from .layout import accumulator
from .parallel import quiet


@quiet
def batchnorm_forward(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    running_mean: np.ndarray,
    running_var: np.ndarray,
    *,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    run, kind = passes("batchnorm", x.dtype), accumulator(x.dtype)
    if training and x.shape[0]:
        mean, var = run.moments(x)
        running_mean[...] = momentum * running_mean.astype(np.float64) + (1 - momentum) * mean
        running_var[...] = momentum * running_var.astype(np.float64) + (1 - momentum) * var
    else:
        mean, var = running_mean.astype(np.float64), running_var.astype(np.float64)
    inv_std = 1.0 / np.sqrt(var + eps)
    y = run.normalise(x, mean, gamma * inv_std, beta)
    return y, mean.astype(kind), inv_std.astype(kind)


@quiet
def batchnorm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, inv_std: np.ndarray, *, training: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    run = passes("batchnorm", x.dtype)
    dbeta, weighted = run.sums(dy, x, mean)
    inv_std64 = inv_std.astype(np.float64)
    dgamma, scale = weighted * inv_std64, gamma * inv_std64
    if training:
        # dx = gamma inv_std (dy - mean(dy) - x^ mean(dy x^)), where everything but dy is linear in x - mean.
        count = max(1, x.size // max(1, x.shape[1]))
        dx = run.propagate(dy, x, mean, dgamma / count * inv_std64, dbeta / count, scale)
    else:  # the statistics are constants, and only the first term is left
        dx = run.scaled(dy, x, scale)
    return dx, dgamma.astype(gamma.dtype), dbeta.astype(gamma.dtype)
