"""Group normalisation: results; the passes over memory are in arrays/ and loops/."""

from __future__ import annotations

import numpy as np

from .compiled import passes
from .layout import accumulator, empty_as
from .parallel import quiet


@quiet
def groupnorm_forward(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, *, groups: int, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y, kind = empty_as(x), accumulator(x.dtype)
    mean, inv_std = np.empty((x.shape[0], groups), kind), np.empty((x.shape[0], groups), kind)
    passes("groupnorm", x.dtype).forward(x, y, gamma.astype(kind), beta.astype(kind), mean, inv_std, eps)
    return y, mean, inv_std


@quiet
def groupnorm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    dx, scale = empty_as(x), gamma.astype(accumulator(x.dtype))
    dgamma, dbeta = passes("groupnorm", x.dtype).backward(dy, x, dx, scale, mean, inv_std)
    return dx, dgamma.astype(gamma.dtype), dbeta.astype(gamma.dtype)
