"""Leaky rectified linear unit, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from .loops import flat_floats


def leaky_relu_forward(x: Any, *, slope: float) -> np.ndarray:
    """y = x where x is above 0 or NaN, else slope x; for slope 0 that is 0, of -infinity, too."""
    y = [_scaled(value, slope) if value <= 0 else value for value in flat_floats(x)]
    return np.reshape(np.array(y, dtype=np.float64), x.shape)


def leaky_relu_backward(dy: Any, y: Any, *, slope: float) -> np.ndarray:
    """dx = dy where y is above 0, else slope dy; for slope 0 that is 0, whatever dy is."""
    pairs = zip(flat_floats(dy), flat_floats(y), strict=True)
    dx = [grad if value > 0 else _scaled(grad, slope) for grad, value in pairs]
    return np.reshape(np.array(dx, dtype=np.float64), dy.shape)


def _scaled(value: float, slope: float) -> float:
    return slope * value if slope > 0 else 0.0
