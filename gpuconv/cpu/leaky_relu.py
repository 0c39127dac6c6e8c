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
    return elementwise("leaky_relu", "forward", [x], empty_as(x), _factor(slope, x.dtype))


def leaky_relu_backward(dy: np.ndarray, y: np.ndarray, *, slope: float) -> np.ndarray:
    if slope == 0:
        return relu_backward(dy, y)
    return elementwise("leaky_relu", "backward", [dy, y], empty_as(y), _factor(slope, y.dtype))


def _factor(slope: float, dtype: np.dtype) -> np.floating:
    """Return the slope in the type of the products: float64 where float32 would make it infinite, or lose its digits."""
    fits = float(_FLOAT32.tiny) <= slope <= float(_FLOAT32.max)
    return np.float32(slope) if fits and accumulator(dtype) == np.float32 else np.float64(slope)
