"""Gaussian error linear unit; NumPy has no error function, so this file brings one."""

from __future__ import annotations

import functools
import math

import numpy as np

from .elementwise import elementwise

_TANH_SCALE = math.sqrt(2 / math.pi)
_TANH_CUBIC = 0.044715
_DENSITY = 1 / math.sqrt(2 * math.pi)


def gelu_forward(x: np.ndarray, *, approximate: str) -> np.ndarray:
    distribution = _normal_distribution if approximate == "none" else _tanh_distribution

    def function(x: np.ndarray, y: np.ndarray) -> None:
        wide = x.astype(np.float64)
        y[...] = wide * distribution(wide)

    return elementwise(function, [x], np.empty_like(x))


def gelu_backward(dy: np.ndarray, x: np.ndarray, *, approximate: str) -> np.ndarray:
    def exact(dy: np.ndarray, x: np.ndarray, dx: np.ndarray) -> None:
        wide = x.astype(np.float64)
        dx[...] = dy * (_normal_distribution(wide) + wide * _DENSITY * np.exp(-0.5 * wide * wide))

    def tanh(dy: np.ndarray, x: np.ndarray, dx: np.ndarray) -> None:
        wide = x.astype(np.float64)
        t = np.tanh(_TANH_SCALE * (wide + _TANH_CUBIC * wide**3))
        slope = _TANH_SCALE * (1 + 3 * _TANH_CUBIC * wide * wide)
        dx[...] = dy * (0.5 * (1 + t) + 0.5 * wide * (1 - t * t) * slope)

    return elementwise(exact if approximate == "none" else tanh, [dy, x], np.empty_like(x))


def _tanh_distribution(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(_TANH_SCALE * (x + _TANH_CUBIC * x**3)))


def _normal_distribution(x: np.ndarray) -> np.ndarray:
    """Return Phi(x) = erfc(-x / sqrt 2) / 2, float64, with small relative error in the lower tail, too."""
    a = np.abs(x) * math.sqrt(0.5)
    # exp(a^2) erfc(a) is smooth: a Chebyshev series in (a - 2) / (a + 2), which maps [0, inf) to [-1, 1).
    series = np.polynomial.chebyshev.chebval((a - 2.0) / (a + 2.0), _scaled_erfc_series())
    tail = 0.5 * series * np.exp(-a * a)
    return np.where(x < 0, tail, 1.0 - tail)


@functools.cache
def _scaled_erfc_series(degree: int = 40) -> np.ndarray:
    """Return the Chebyshev coefficients of exp(a^2) erfc(a) in t = (a - 2) / (a + 2)."""

    def scaled_erfc(t: float) -> float:
        a = 2.0 * (1 + t) / (1 - t)
        if a < 20:
            return math.exp(a * a) * math.erfc(a)
        # The asymptotic series: its terms fall below 1e-17 long before they grow again.
        total, term = 0.0, 1.0
        for k in range(8):
            total += term
            term *= -(2 * k + 1) / (2 * a * a)
        return total / (a * math.sqrt(math.pi))

    values = np.vectorize(scaled_erfc)
    return np.polynomial.chebyshev.chebinterpolate(values, degree)
