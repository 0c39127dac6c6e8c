"""Gaussian error linear unit; NumPy has no error function, so this file brings one."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable

import numpy as np
from numpy.polynomial.chebyshev import chebval

from .elementwise import elementwise
from .layout import empty_as

_TANH_SCALE = math.sqrt(2 / math.pi)
_TANH_CUBIC = 0.044715
_ZERO_BEYOND = 40.0  # exp(-a^2) is 0 from there on, and infinity would make NaN
_ASYMPTOTIC_FROM = 20.0
_DENSITY = 1 / math.sqrt(2 * math.pi)


def gelu_forward(x: np.ndarray, *, approximate: str) -> np.ndarray:
    distribution = _normal_distribution if approximate == "none" else _tanh_distribution

    def function(x: np.ndarray, y: np.ndarray) -> None:
        wide = x.astype(np.float64)
        y[...] = wide * distribution(wide)

    return elementwise(function, [x], empty_as(x))


def gelu_backward(dy: np.ndarray, x: np.ndarray, *, approximate: str) -> np.ndarray:
    def exact(dy: np.ndarray, x: np.ndarray, dx: np.ndarray) -> None:
        wide = x.astype(np.float64)
        dx[...] = dy * (_normal_distribution(wide) + wide * _DENSITY * np.exp(-0.5 * wide * wide))

    def tanh(dy: np.ndarray, x: np.ndarray, dx: np.ndarray) -> None:
        wide = x.astype(np.float64)
        t = np.tanh(_TANH_SCALE * (wide + _TANH_CUBIC * wide**3))
        slope = _TANH_SCALE * (1 + 3 * _TANH_CUBIC * wide * wide)
        dx[...] = dy * (0.5 * (1 + t) + 0.5 * wide * (1 - t * t) * slope)

    return elementwise(exact if approximate == "none" else tanh, [dy, x], empty_as(x))


def _tanh_distribution(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(_TANH_SCALE * (x + _TANH_CUBIC * x**3)))


def _normal_distribution(x: np.ndarray) -> np.ndarray:
    """Return Phi(x), float64: (1 + erf(x / sqrt 2)) / 2 near 0, erfc beyond, so that the lower tail keeps its digits.

    Both functions are Chebyshev series fitted to the math module's on first use: erf(a) / a in 2 a^2 - 1 for a <= 1,
    exp(a^2) erfc(a) in (a - 3) / (a + 1), which maps [1, inf) to [-1, 1).
    """
    a = np.minimum(np.abs(x) * math.sqrt(0.5), _ZERO_BEYOND)
    near = 0.5 + 0.5 * (x * math.sqrt(0.5)) * chebval(2 * a * a - 1, _erf_series())
    tail = 0.5 * chebval((a - 3) / (a + 1), _scaled_erfc_series()) * np.exp(-a * a)
    return np.where(a <= 1, near, np.where(x < 0, tail, 1 - tail))


@functools.cache
def _erf_series(degree: int = 14) -> np.ndarray:
    def erf_ratio(u: float) -> float:
        a = math.sqrt((u + 1) / 2)
        return math.erf(a) / a

    return _chebyshev_series(erf_ratio, degree)


@functools.cache
def _scaled_erfc_series(degree: int = 30) -> np.ndarray:
    def scaled_erfc(t: float) -> float:
        a = (3 + t) / (1 - t)
        if a < _ASYMPTOTIC_FROM:
            return math.exp(a * a) * math.erfc(a)
        # 1 / (a sqrt pi) (1 - 1 / (2 a^2) + 3 / (2 a^2)^2 - ...): the terms fall below 1e-17 before they grow again.
        total, term = 0.0, 1.0
        for k in range(8):
            total += term
            term *= -(2 * k + 1) / (2 * a * a)
        return total / (a * math.sqrt(math.pi))

    return _chebyshev_series(scaled_erfc, degree)


def _chebyshev_series(function: Callable[[float], float], degree: int) -> np.ndarray:
    """Return the coefficients that interpolate a function at the Chebyshev points of [-1, 1], to the last digits."""
    n = degree + 1
    # cos(k (2 j + 1) pi / 2 n), with the multiple of pi reduced exactly: large angles would cost digits.
    cosines = [[math.cos(k * (2 * j + 1) % (4 * n) * math.pi / (2 * n)) for j in range(n)] for k in range(n)]
    values = [function(t) for t in cosines[1]]
    series = [2 / n * math.fsum(map(operator.mul, values, row)) for row in cosines]
    series[0] /= 2
    return np.array(series)
