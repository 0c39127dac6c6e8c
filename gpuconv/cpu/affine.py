"""The fully connected layer as tiled matrix products."""

from __future__ import annotations

import numpy as np

from .layout import accumulator
from .memory import empty_array
from .parallel import for_each, quiet, ranges
from .product import product

# Rows and columns of the tiles of a product: so many that BLAS, which packs its factors anew for each tile, does so
# rarely, and so few that a layer of some hundred columns is shared among threads.
_TILE = 256


@quiet
def affine_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    kind = accumulator(x.dtype)
    rows = x.reshape(x.shape[0], w.shape[0]).astype(kind, copy=False)
    bias = None if b is None else b.astype(kind, copy=False)
    return _product(rows, w.astype(kind, copy=False), bias).astype(x.dtype, copy=False)


@quiet
def affine_backward(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, *, input_grad: bool, bias_grad: bool
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
    kind = accumulator(x.dtype)
    gradient = dy.astype(kind, copy=False)
    rows = x.reshape(x.shape[0], w.shape[0]).astype(kind, copy=False)
    dw = _product(rows.T, gradient).astype(w.dtype, copy=False)
    db = dy.sum(axis=0, dtype=np.float64).astype(w.dtype) if bias_grad else None
    dx = None
    if input_grad:
        dx = _product(gradient, w.astype(kind, copy=False).T).astype(x.dtype, copy=False).reshape(x.shape)
    return dx, dw, db


def _product(a: np.ndarray, b: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """Return a @ b + bias, cut into tiles by its size alone, so that any number of threads gives the same bits."""
    out = empty_array((a.shape[0], b.shape[1]), a.dtype)

    def tile(where: tuple[int, int, int, int]) -> None:
        top, bottom, left, right = where
        target = out[top:bottom, left:right]
        product(a[top:bottom], b[:, left:right], target)
        if bias is not None:
            target += bias[left:right]

    for_each(
        tile,
        [(*rows, *columns) for rows in ranges(out.shape[0], _TILE) for columns in ranges(out.shape[1], _TILE)],
    )
    return out
