"""Sigmoid linear unit, element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .loops import flat_floats


def silu_forward(x: Any) -> np.ndarray:
    """y = x s(x), s(x) = 1 / (1 + exp(-x))."""
    y = [value * _sigmoid(value) for value in flat_floats(x)]
    return np.reshape(np.array(y, dtype=np.float64), x.shape)


def silu_backward(dy: Any, x: Any) -> np.ndarray:
    """dx = dy (s + x s (1 - s))."""
    pairs = zip(flat_floats(dy), flat_floats(x), strict=True)
    dx = [grad * (_sigmoid(value) + value * (_sigmoid(value) * _sigmoid(-value))) for grad, value in pairs]
    return np.reshape(np.array(dx, dtype=np.float64), dy.shape)


def _sigmoid(value: float) -> float:
    small = math.exp(-abs(value))
    return (small if value < 0 else 1.0) / (1 + small)
