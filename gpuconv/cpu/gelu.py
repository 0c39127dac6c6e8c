"""Gaussian error linear unit."""

from __future__ import annotations

import numpy as np

from .elementwise import elementwise
from .erf import tail
from .layout import empty_as


def gelu_forward(x: np.ndarray, *, approximate: str) -> np.ndarray:
    if approximate == "tanh":
        return elementwise("gelu", "forward_tanh", [x], empty_as(x))
    return elementwise("gelu", "forward", [x], empty_as(x), tail())


def gelu_backward(dy: np.ndarray, x: np.ndarray, *, approximate: str) -> np.ndarray:
    if approximate == "tanh":
        return elementwise("gelu", "backward_tanh", [dy, x], empty_as(x))
    return elementwise("gelu", "backward", [dy, x], empty_as(x), tail())
