"""Batch normalisation of a batch that several processes share: the formulas of batchnorm.py, with their sums of all."""

from __future__ import annotations

from typing import Any

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
    momentum: float,
    eps: float,
    across: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    run, kind = passes("batchnorm", x.dtype), accumulator(x.dtype)
    means, variances = np.moveaxis(across.gather(np.stack(run.moments(x))), 1, 0)
    shares = (np.array(across.images) / sum(across.images))[:, None]
    mean = (shares * means).sum(axis=0)
    var = (shares * (variances + (means - mean) ** 2)).sum(axis=0)
    running_mean[...] = momentum * running_mean.astype(np.float64) + (1 - momentum) * mean
    running_var[...] = momentum * running_var.astype(np.float64) + (1 - momentum) * var
    inv_std = 1.0 / np.sqrt(var + eps)
    y = run.normalise(x, mean, gamma * inv_std, beta)
    return y, mean.astype(kind), inv_std.astype(kind)


@quiet
def batchnorm_backward_into(
    dy: np.ndarray,
    x: np.ndarray,
    gamma: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    dgamma: np.ndarray | None,
    dbeta: np.ndarray,
    *,
    across: Any,
) -> np.ndarray:
    """Return dx, and fill dgamma, unless it is None, and dbeta with what this share contributes."""
    run = passes("batchnorm", x.dtype)
    sums = np.stack(run.sums(dy, x, mean))
    total, weighted = across.gather(sums).sum(axis=0)
    inv_std64 = inv_std.astype(np.float64)
    dbeta[...] = sums[0]
    if dgamma is not None:
        dgamma[...] = sums[1] * inv_std64
    count = sum(across.images) * x[0, 0].size
    dx: np.ndarray = run.propagate(dy, x, mean, weighted * inv_std64**2 / count, total / count, gamma * inv_std64)
    return dx
