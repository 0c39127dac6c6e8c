"""Rectified linear unit."""

from __future__ import annotations

import numpy as np

from .elementwise import elementwise
from .layout import empty_as


def relu_forward(x: np.ndarray) -> np.ndarray:
    return elementwise("relu", "forward", [x], empty_as(x))


def relu_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    return elementwise("relu", "backward", [dy, y], empty_as(y))
