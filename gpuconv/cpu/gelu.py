"""Gaussian error linear unit; NumPy has no error function, so this file brings one."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable

import numpy as np
from numpy.polynomial.chebyshev import cheb2poly, chebval

from .elementwise import in_blocks
from .layout import accumulator, empty_as
from .parallel import scratch

_TANH_SCALE = math.sqrt(2 / math.pi)
_TANH_CUBIC = 0.044715
_ZERO_BEYOND = 40.0  # exp(-a^2) is 0 from there on, and infinity would make NaN
_ASYMPTOTIC_FROM = 20.0
_DENSITY = 1 / math.sqrt(2 * math.pi)
_FLOAT32 = np.dtype(np.float32)
# Of the tail in float32: where its variable is 0, and a degree at which the fit is off by less than the rounding of a
# float32: tests/test_gelu.py measures the sum of both.
_TAIL_CENTRE = 3 * math.sqrt(2)
_TAIL_DEGREE = 10
# Elements of a block: thirty short passes go over it, which want it in the cache.
_BLOCK = 128 * 1024


def gelu_forward(x: np.ndarray, *, approximate: str) -> np.ndarray:
    distribution = _normal_distribution if approximate == "none" else _tanh_distribution

    def wide(x: np.ndarray, y: np.ndarray) -> None:
        values = x.astype(np.float64)
        y[...] = values * distribution(values)

    def single(x: np.ndarray, y: np.ndarray) -> None:
        # y = x Phi(x) = max(x, 0) - |x| Q(|x|), where Q is the upper tail: nothing cancels where y is small.
        size, tail, density = _tail(x)
        np.multiply(tail, density, out=tail)
        np.multiply(tail, size, out=tail)
        upper = np.maximum(x, _FLOAT32.type(0), out=size, dtype=_FLOAT32)
        np.subtract(upper, tail, out=y, casting="same_kind")
        if (lowest := np.isneginf(x)).any():
            y[lowest] = np.nan  # -inf times 0

    if approximate == "none" and accumulator(x.dtype) == _FLOAT32:
        return in_blocks(single, [x], empty_as(x), _BLOCK)
    return in_blocks(wide, [x], empty_as(x))


def gelu_backward(dy: np.ndarray, x: np.ndarray, *, approximate: str) -> np.ndarray:
    def exact(dy: np.ndarray, x: np.ndarray, dx: np.ndarray) -> None:
        wide = x.astype(np.float64)
        dx[...] = dy * (_normal_distribution(wide) + wide * _DENSITY * np.exp(-0.5 * wide * wide))

    def single(dy: np.ndarray, x: np.ndarray, dx: np.ndarray) -> None:
        # The slope is [x >= 0] - sign(x) r with r = Q(|x|) - |x| phi(x): below 0 it is r itself, with all its digits.
        size, tail, density = _tail(x)
        np.multiply(size, _FLOAT32.type(_DENSITY), out=size)
        np.subtract(tail, size, out=size)
        np.multiply(size, density, out=size)
        sign = np.copysign(_FLOAT32.type(1), x, out=tail)
        np.multiply(size, sign, out=size)
        np.maximum(sign, _FLOAT32.type(0), out=sign)
        np.subtract(sign, size, out=size)
        np.multiply(size, dy, out=dx, casting="same_kind")
        if (infinite := np.isinf(x)).any():
            dx[infinite] = np.nan  # the slope has inf times 0 in it

    def tanh(dy: np.ndarray, x: np.ndarray, dx: np.ndarray) -> None:
        wide = x.astype(np.float64)
        t = np.tanh(_TANH_SCALE * (wide + _TANH_CUBIC * wide**3))
        slope = _TANH_SCALE * (1 + 3 * _TANH_CUBIC * wide * wide)
        dx[...] = dy * (0.5 * (1 + t) + 0.5 * wide * (1 - t * t) * slope)

    if approximate == "tanh":
        return in_blocks(tanh, [dy, x], empty_as(x))
    if accumulator(x.dtype) == _FLOAT32:
        return in_blocks(single, [dy, x], empty_as(x), _BLOCK)
    return in_blocks(exact, [dy, x], empty_as(x))


def _tail(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return |x|, Q(|x|) exp(x^2 / 2) and exp(-x^2 / 2), in scratch memory, float32; Q(z) = erfc(z / sqrt 2) / 2.

    The relative error of the exponential grows as that of its argument, by x^2 / 2 units of rounding.
    The middle one is a polynomial in t = (z - c) / (z + c), which maps [0, inf) to [-1, 1).
    """
    size, t, tail = (scratch(slot, x.shape, _FLOAT32) for slot in ("size", "t", "tail"))
    np.abs(x, out=size, casting="same_kind")
    np.minimum(size, _FLOAT32.type(_ZERO_BEYOND), out=size)
    np.add(size, _FLOAT32.type(_TAIL_CENTRE), out=t)
    np.divide(_FLOAT32.type(2 * _TAIL_CENTRE), t, out=t)
    np.subtract(_FLOAT32.type(1), t, out=t)
    highest, second, *rest = _tail_polynomial()
    np.multiply(t, highest, out=tail)
    np.add(tail, second, out=tail)
    for coefficient in rest:
        np.multiply(tail, t, out=tail)
        np.add(tail, coefficient, out=tail)
    np.multiply(size, size, out=t)
    np.multiply(t, _FLOAT32.type(-0.5), out=t)
    return size, tail, np.exp(t, out=t)


@functools.cache
def _tail_polynomial() -> list[np.float32]:
    """Return the coefficients of exp(a^2) erfc(a) / 2, highest power first, where a = c (1 + t) / (1 - t)."""
    centre = _TAIL_CENTRE * math.sqrt(0.5)
    series = _chebyshev_series(lambda t: 0.5 * _scaled_erfc(centre * (1 + t) / (1 - t)), _TAIL_DEGREE)
    return [np.float32(coefficient) for coefficient in cheb2poly(series)[::-1]]


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
