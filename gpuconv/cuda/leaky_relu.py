"""Launches of kernels/leaky_relu.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from .elementwise import pointwise
from .kernel import Kernel
from .relu import relu_backward, relu_forward

_FORWARD = Kernel("leaky_relu.cu", "leaky_relu_forward")
_BACKWARD = Kernel("leaky_relu.cu", "leaky_relu_backward")

_FLOAT32 = np.finfo(np.float32)


def leaky_relu_forward(x: Any, *, slope: float) -> Any:
    if slope == 0:
        return relu_forward(x)  # 0 times -infinity is NaN
    return pointwise(_FORWARD, x, like=x, templates=(_product(slope, x.dtype),), settings=(slope,))


def leaky_relu_backward(dy: Any, y: Any, *, slope: float) -> Any:
    if slope == 0:
        return relu_backward(dy, y)
    return pointwise(_BACKWARD, dy, y, like=y, templates=(_product(slope, y.dtype),), settings=(slope,))


def _product(slope: float, dtype: np.dtype) -> np.dtype:
    """Return the type of the products: float64 where float32 would make the slope infinite, or lose its digits."""
    fits = float(_FLOAT32.tiny) <= slope <= float(_FLOAT32.max)
    return np.dtype(np.float32 if fits and dtype != np.float64 else np.float64)
