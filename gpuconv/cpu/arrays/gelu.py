"""Gaussian error linear unit, block by block: in float32, for half precision too, else in float64."""

from __future__ import annotations

import math

import numpy as np
from numpy.polynomial.chebyshev import chebval

from ..erf import erf_series, scaled_erfc_series
from ..layout import accumulator
from ..parallel import blocks, quiet, scratch

BLOCK = 128 * 1024  # thirty short passes go over it, which want it in the cache
_TANH_SCALE = math.sqrt(2 / math.pi)
_TANH_CUBIC = 0.044715
_ZERO_BEYOND = 40.0  # exp(-a^2) is 0 from there on, and infinity would make NaN
_DENSITY = 1 / math.sqrt(2 * math.pi)
_FLOAT32 = np.dtype(np.float32)


@quiet
def forward(x: np.ndarray, y: np.ndarray, tail: tuple[np.float32, ...], block: int, counter: np.ndarray) -> None:
    """Fill y with x Phi(x); tail is that of erf.py."""
    for part in blocks(counter, len(y), block):
        _forward(x[part], y[part], tail)


@quiet
def backward(
    dy: np.ndarray, x: np.ndarray, dx: np.ndarray, tail: tuple[np.float32, ...], block: int, counter: np.ndarray
) -> None:
    for part in blocks(counter, len(dx), block):
        _backward(dy[part], x[part], dx[part], tail)


@quiet
def forward_tanh(x: np.ndarray, y: np.ndarray, block: int, counter: np.ndarray) -> None:
    for part in blocks(counter, len(y), block):
        wide = x[part].astype(np.float64)
        y[part] = wide * (0.5 * (1 + np.tanh(_TANH_SCALE * (wide + _TANH_CUBIC * wide**3))))


@quiet
def backward_tanh(dy: np.ndarray, x: np.ndarray, dx: np.ndarray, block: int, counter: np.ndarray) -> None:
    for part in blocks(counter, len(dx), block):
        wide = x[part].astype(np.float64)
        t = np.tanh(_TANH_SCALE * (wide + _TANH_CUBIC * wide**3))
        slope = _TANH_SCALE * (1 + 3 * _TANH_CUBIC * wide * wide)
        dx[part] = dy[part] * (0.5 * (1 + t) + 0.5 * wide * (1 - t * t) * slope)


def _forward(x: np.ndarray, y: np.ndarray, tail: tuple[np.float32, ...]) -> None:
    if accumulator(x.dtype) != _FLOAT32:
        y[...] = x * _normal_distribution(x)
        return
    # y = max(x, 0) - |x| Q(|x|), where Q is the upper tail: nothing cancels where y is small.
    size, upper_tail, density = _tail(x, tail)
    np.multiply(upper_tail, density, out=upper_tail)
    np.multiply(upper_tail, size, out=upper_tail)
    upper = np.maximum(x, _FLOAT32.type(0), out=size, dtype=_FLOAT32)
    np.subtract(upper, upper_tail, out=y, casting="same_kind")
    if (lowest := np.isneginf(x)).any():
        y[lowest] = np.nan  # -inf times 0


def _backward(dy: np.ndarray, x: np.ndarray, dx: np.ndarray, tail: tuple[np.float32, ...]) -> None:
    if accumulator(x.dtype) != _FLOAT32:
        dx[...] = dy * (_normal_distribution(x) + x * _DENSITY * np.exp(-0.5 * x * x))
        return
    # The slope is [x >= 0] - sign(x) r with r = Q(|x|) - |x| phi(x): below 0 it is r itself, with all its digits.
    size, upper_tail, density = _tail(x, tail)
    np.multiply(size, _FLOAT32.type(_DENSITY), out=size)
    np.subtract(upper_tail, size, out=size)
    np.multiply(size, density, out=size)
    sign = np.copysign(_FLOAT32.type(1), x, out=upper_tail)
    np.multiply(size, sign, out=size)
    np.maximum(sign, _FLOAT32.type(0), out=sign)
    np.subtract(sign, size, out=size)
    np.multiply(size, dy, out=dx, casting="same_kind")
    if (infinite := np.isinf(x)).any():
        dx[infinite] = np.nan  # the slope has inf times 0 in it


def _tail(x: np.ndarray, tail: tuple[np.float32, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return |x|, Q(|x|) exp(x^2 / 2) and exp(-x^2 / 2), in scratch memory, float32; Q(z) = erfc(z / sqrt 2) / 2.

    The relative error of the exponential grows as that of its argument, by x^2 / 2 units of rounding.
    """
    size, t, value = (scratch(slot, x.shape, _FLOAT32) for slot in ("size", "t", "tail"))
    centre, highest, second, *rest = tail
    np.abs(x, out=size, casting="same_kind")
    np.minimum(size, _FLOAT32.type(_ZERO_BEYOND), out=size)
    np.add(size, centre, out=t)
    np.divide(2 * centre, t, out=t)
    np.subtract(_FLOAT32.type(1), t, out=t)
    np.multiply(t, highest, out=value)
    np.add(value, second, out=value)
    for coefficient in rest:
        np.multiply(value, t, out=value)
        np.add(value, coefficient, out=value)
    np.multiply(size, size, out=t)
    np.multiply(t, _FLOAT32.type(-0.5), out=t)
    return size, value, np.exp(t, out=t)


def _normal_distribution(x: np.ndarray) -> np.ndarray:
    """Return Phi(x), float64: (1 + erf(x / sqrt 2)) / 2 near 0, erfc beyond, so that the lower tail keeps its digits."""
    a = np.minimum(np.abs(x) * math.sqrt(0.5), _ZERO_BEYOND)
    near = 0.5 + 0.5 * (x * math.sqrt(0.5)) * chebval(2 * a * a - 1, erf_series())
    tail = 0.5 * chebval((a - 3) / (a + 1), scaled_erfc_series()) * np.exp(-a * a)
    return np.where(a <= 1, near, np.where(x < 0, tail, 1 - tail))
