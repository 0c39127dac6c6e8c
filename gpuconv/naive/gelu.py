"""Gaussian error linear unit, element by element, with the error function of the C library."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .loops import flat_floats


def gelu_forward(x: Any, *, approximate: str) -> np.ndarray:
    """y = x Phi(x), or with "tanh" 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    phi = _phi if approximate == "none" else _phi_tanh
    y = [value * phi(value) for value in flat_floats(x)]
    return np.reshape(np.array(y, dtype=np.float64), x.shape)


def gelu_backward(dy: Any, x: Any, *, approximate: str) -> np.ndarray:
    """dx = dy (Phi(x) + x Phi'(x)), Phi or its approximation."""
    phi, slope = (_phi, _phi_slope) if approximate == "none" else (_phi_tanh, _phi_tanh_slope)
    pairs = zip(flat_floats(dy), flat_floats(x), strict=True)
    dx = [grad * (phi(value) + value * slope(value)) for grad, value in pairs]
    return np.reshape(np.array(dx, dtype=np.float64), x.shape)


def _phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _phi_slope(x: float) -> float:
    return math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _phi_tanh(x: float) -> float:
    return 0.5 * (1 + math.tanh(_inner(x)))


def _phi_tanh_slope(x: float) -> float:
    tanh = math.tanh(_inner(x))
    return 0.5 * (1 - tanh * tanh) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)


def _inner(x: float) -> float:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
