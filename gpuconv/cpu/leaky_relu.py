"""Leaky rectified linear unit."""

from __future__ import annotations

import numpy as np

from .elementwise import elementwise
from .layout import accumulator, empty_as
from .relu import relu_backward, relu_forward

_FLOAT32 = np.finfo(np.float32)


def leaky_relu_forward(x: np.ndarray, *, slope: float) -> np.ndarray:
    if slope == 0:
        return relu_forward(x)  # 0 times -infinity is NaN
    factor = _factor(slope, x.dtype)

    def leak(x: np.ndarray, y: np.ndarray) -> None:
        np.multiply(x, factor, out=y, dtype=factor.dtype, casting="same_kind")
        np.copyto(y, x, where=x > 0)

    return elementwise(leak, [x], empty_as(x))


def leaky_relu_backward(dy: np.ndarray, y: np.ndarray, *, slope: float) -> np.ndarray:
    if slope == 0:
        return relu_backward(dy, y)
    factor = _factor(slope, y.dtype)

    def leak(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
        np.multiply(dy, factor, out=dx, dtype=factor.dtype, casting="same_kind")
        np.copyto(dx, dy, where=y > 0)

    return elementwise(leak, [dy, y], empty_as(y))


def _factor(slope: float, dtype: np.dtype) -> np.floating:
    """Return the slope in the type of the products: float64 where float32 would make it infinite, or lose its digits."""
    fits = float(_FLOAT32.tiny) <= slope <= float(_FLOAT32.max)
    return np.float32(slope) if fits and accumulator(dtype) == np.float32 else np.float64(slope)
