"""Sigmoid linear unit."""

from __future__ import annotations

import numpy as np

from .elementwise import elementwise
from .layout import empty_as


def silu_forward(x: np.ndarray) -> np.ndarray:
    return elementwise("silu", "forward", [x], empty_as(x))


def silu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    return elementwise("silu", "backward", [dy, x], empty_as(x))
