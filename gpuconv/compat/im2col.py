"""The course's unfolding of images into columns, and its adjoint, in plain NumPy.

Rows of a column matrix are the places (channel, row, column) of the field, columns are (output pixel, image), both in
row order.  Windows that would stick out are dropped; fields need not be square.  Our layers use none of this.
"""

from __future__ import annotations

import numpy as np

from ..shapes import out_size


def get_im2col_indices(
    x_shape: tuple[int, int, int, int], field_height: int, field_width: int, padding: int = 1, stride: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (channels, rows, columns) of the padded image, (C fh fw, 1), (C fh fw, pixels) and the same."""
    _, C, H, W = x_shape
    high, wide = out_size(H, field_height, stride, padding), out_size(W, field_width, stride, padding)
    k, i, j = (axis.reshape(-1, 1) for axis in np.indices((C, field_height, field_width)))
    p, q = (stride * axis.reshape(1, -1) for axis in np.indices((high, wide)))
    return k, i + p, j + q


def im2col_indices(x: np.ndarray, field_height: int, field_width: int, padding: int = 1, stride: int = 1) -> np.ndarray:
    """Return the columns of a batch.   x: (N, C, H, W)  ->  (C field_height field_width, H' W' N)."""
    k, i, j = get_im2col_indices(x.shape, field_height, field_width, padding, stride)
    columns = _padded(x, padding)[:, k, i, j]
    return columns.transpose(1, 2, 0).reshape(k.shape[0], -1)


def col2im_indices(
    cols: np.ndarray,
    x_shape: tuple[int, int, int, int],
    field_height: int = 3,
    field_width: int = 3,
    padding: int = 1,
    stride: int = 1,
) -> np.ndarray:
    """Add columns up where they were taken from: the adjoint of im2col_indices.   ->  x_shape."""
    N, C, H, W = x_shape
    high, wide = out_size(H, field_height, stride, padding), out_size(W, field_width, stride, padding)
    cols6d = cols.reshape(C, field_height, field_width, high, wide, N).transpose(0, 1, 2, 5, 3, 4)
    return col2im_6d_cython(cols6d, N, C, H, W, field_height, field_width, padding, stride)


def im2col_cython(x: np.ndarray, field_height: int, field_width: int, padding: int, stride: int) -> np.ndarray:
    """Return im2col_indices, under the name of the course's compiled function."""
    return im2col_indices(x, field_height, field_width, padding, stride)


def col2im_cython(
    cols: np.ndarray,
    N: int,
    C: int,
    H: int,
    W: int,
    field_height: int,
    field_width: int,
    padding: int,
    stride: int,
) -> np.ndarray:
    """Return col2im_indices, with the arguments of the course's compiled function."""
    return col2im_indices(cols, (N, C, H, W), field_height, field_width, padding, stride)


def col2im_6d_cython(
    cols: np.ndarray, N: int, C: int, H: int, W: int, HH: int, WW: int, pad: int, stride: int
) -> np.ndarray:
    """Add columns (C, HH, WW, N, H', W') up where they were taken from.   ->  (N, C, H, W)."""
    high, wide = cols.shape[4:]
    padded = np.zeros((C, N, H + 2 * pad, W + 2 * pad), cols.dtype)
    for r in range(HH):
        for s in range(WW):
            padded[:, :, r : r + stride * high : stride, s : s + stride * wide : stride] += cols[:, r, s]
    return np.ascontiguousarray(padded[:, :, pad : pad + H, pad : pad + W].transpose(1, 0, 2, 3))


def _padded(x: np.ndarray, padding: int) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
