"""Rectified linear unit, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from .loops import flat_floats


def relu_forward(x: Any) -> np.ndarray:
    """y = x where x is above 0 or NaN, else 0."""
    y = [0.0 if value <= 0 else value for value in flat_floats(x)]
    return np.reshape(np.array(y, dtype=np.float64), x.shape)


def relu_backward(dy: Any, y: Any) -> np.ndarray:
    """dx = dy where y is above 0, else 0."""
    dx = [grad if value > 0 else 0.0 for grad, value in zip(flat_floats(dy), flat_floats(y), strict=True)]
    return np.reshape(np.array(dx, dtype=np.float64), dy.shape)
