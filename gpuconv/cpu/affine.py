"""The fully connected layer as tiled matrix products."""

from __future__ import annotations

import numpy as np

from .layout import accumulator
from .memory import empty_array
from .parallel import for_each, quiet, ranges
from .runs import LONGEST_PRODUCT

# Size of the tiles of a product: big enough for BLAS, small enough to share among threads.
_TILE_ROWS = 64
_TILE_COLUMNS = 512


@quiet
def affine_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    kind = accumulator(x.dtype)
    y = _product(x.reshape(x.shape[0], w.shape[0]).astype(kind, copy=False), w.astype(kind, copy=False))
    if b is not None:
        y += b.astype(kind, copy=False)
    return y.astype(x.dtype, copy=False)


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


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a @ b, cut into tiles by its size alone, so that any number of threads gives the same bits."""
    out = empty_array((a.shape[0], b.shape[1]), a.dtype)

    def tile(where: tuple[int, int, int, int]) -> None:
        top, bottom, left, right = where
        rows, columns, target = a[top:bottom], b[:, left:right], out[top:bottom, left:right]
        np.matmul(rows[:, :LONGEST_PRODUCT], columns[:LONGEST_PRODUCT], out=target)
        for first, last in ranges(a.shape[1], LONGEST_PRODUCT)[1:]:
            target += np.matmul(rows[:, first:last], columns[first:last])

    for_each(
        tile,
        [
            (*rows, *columns)
            for rows in ranges(out.shape[0], _TILE_ROWS)
            for columns in ranges(out.shape[1], _TILE_COLUMNS)
        ],
    )
    return out
