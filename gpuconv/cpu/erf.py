"""The error function as polynomials, fitted to the math module's on first use: NumPy has none."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable

import numpy as np
from numpy.polynomial.chebyshev import cheb2poly

_ASYMPTOTIC_FROM = 20.0
# Of the tail in float32: where its variable is 0, and a degree at which the fit is off by less than the rounding of a
# float32: tests/test_gelu.py measures the sum of both.
_TAIL_CENTRE = 3 * math.sqrt(2)
_TAIL_DEGREE = 10


@functools.cache
def tail() -> tuple[np.float32, ...]:
    """Return a centre c, and the coefficients of exp(a^2) erfc(a) / 2, highest power first, float32.

    They are of a polynomial in t = (z - c) / (z + c), where z = a sqrt 2, which maps [0, inf) to [-1, 1).
    """
    centre = _TAIL_CENTRE * math.sqrt(0.5)
    series = _chebyshev_series(lambda t: 0.5 * _scaled_erfc(centre * (1 + t) / (1 - t)), _TAIL_DEGREE)
    return (np.float32(_TAIL_CENTRE), *(np.float32(coefficient) for coefficient in cheb2poly(series)[::-1]))


@functools.cache
def erf_series(degree: int = 14) -> np.ndarray:
    """Return the series of erf(a) / a in 2 a^2 - 1, for a <= 1."""

    def erf_ratio(u: float) -> float:
        a = math.sqrt((u + 1) / 2)
        return math.erf(a) / a

    return _chebyshev_series(erf_ratio, degree)


@functools.cache
def scaled_erfc_series(degree: int = 30) -> np.ndarray:
    """Return the series of exp(a^2) erfc(a) in (a - 3) / (a + 1), which maps [1, inf) to [-1, 1)."""
    return _chebyshev_series(lambda t: _scaled_erfc((3 + t) / (1 - t)), degree)


def _scaled_erfc(a: float) -> float:
    """Return exp(a^2) erfc(a)."""
    if a < _ASYMPTOTIC_FROM:
        return math.exp(a * a) * math.erfc(a)
    # 1 / (a sqrt pi) (1 - 1 / (2 a^2) + 3 / (2 a^2)^2 - ...): the terms fall below 1e-17 before they grow again.
    total, term = 0.0, 1.0
    for k in range(8):
        total += term
        term *= -(2 * k + 1) / (2 * a * a)
    return total / (a * math.sqrt(math.pi))


def _chebyshev_series(function: Callable[[float], float], degree: int) -> np.ndarray:
    """Return the coefficients that interpolate a function at the Chebyshev points of [-1, 1], to the last digits."""
    n = degree + 1
    # cos(k (2 j + 1) pi / 2 n), with the multiple of pi reduced exactly: large angles would cost digits.
    cosines = [[math.cos(k * (2 * j + 1) % (4 * n) * math.pi / (2 * n)) for j in range(n)] for k in range(n)]
    values = [function(t) for t in cosines[1]]
    series = [2 / n * math.fsum(map(operator.mul, values, row)) for row in cosines]
    series[0] /= 2
    return np.array(series)
