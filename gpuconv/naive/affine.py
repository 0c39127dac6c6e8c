"""The fully connected layer as the sums that define it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .loops import every, floats


def affine_forward(x: Any, w: Any, b: Any) -> np.ndarray:
    """y[n, m] = b[m] + sum over d of x[n, d] w[d, m], every sample flattened in row order."""
    N, (D, M) = x.shape[0], w.shape
    x, w = floats(x.reshape(N, D)), floats(w)
    b = floats(b) if b is not None else [0.0] * M
    y = np.zeros((N, M))
    for n, m in every(N, M):
        total = b[m]
        for d in range(D):
            total += x[n][d] * w[d][m]
        y[n, m] = total
    return y


def affine_backward(
    dy: Any, x: Any, w: Any, *, input_grad: bool, bias_grad: bool
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
    """dx[n, d] = sum over m of dy w;   dw[d, m] = sum over n of x dy;   db[m] = sum over n of dy."""
    N, (D, M) = x.shape[0], w.shape
    shape, dy, x, w = x.shape, floats(dy), floats(x.reshape(N, D)), floats(w)
    dx = np.zeros((N, D)) if input_grad else None
    if dx is not None:
        for n, d in every(N, D):
            total = 0.0
            for m in range(M):
                total += dy[n][m] * w[d][m]
            dx[n, d] = total
        dx = dx.reshape(shape)
    dw = np.zeros((D, M))
    for d, m in every(D, M):
        total = 0.0
        for n in range(N):
            total += x[n][d] * dy[n][m]
        dw[d, m] = total
    db = np.zeros(M) if bias_grad else None
    if db is not None:
        for n, m in every(N, M):
            db[m] += dy[n][m]
    return dx, dw, db
