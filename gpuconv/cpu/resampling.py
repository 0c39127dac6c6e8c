"""Which pixels upsampling makes its results of along one axis, and with which weights, for both directions."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from .runs import longest_run


class Taps(NamedTuple):
    """Result i along an axis is made of `terms[i]` neighbours from `first[i]` on, times weights[i], (results, the most).

    Only pixels whose weight is not 0 are among them; behind them weights are filled up with 0.
    """

    first: np.ndarray
    terms: np.ndarray
    weights: np.ndarray


@lru_cache(64)
def interpolated(size: int, factor: int, align_corners: bool, dtype: np.dtype) -> Taps:
    """Return what makes factor size pixels of `size` by straight lines between them."""
    above, below = _places(size, factor, align_corners)
    first = above // below
    rest = above - first * below
    weights = np.stack((below - rest, rest), axis=1) / below
    return Taps(first, 1 + (rest > 0), weights.astype(dtype))


@lru_cache(64)
def gathered(size: int, factor: int, align_corners: bool, dtype: np.dtype) -> Taps:
    """Return what brings the gradients of the results of `interpolated` back to the pixels."""
    above, below = _places(size, factor, align_corners)
    pixel = np.arange(size) * below
    first = np.searchsorted(above, pixel - below, side="right")
    terms = np.searchsorted(above, pixel + below, side="left") - first
    result = first[:, None] + np.arange(terms.max())
    near = below - np.abs(above[np.minimum(result, size * factor - 1)] - pixel[:, None])
    weights = np.where(np.arange(terms.max()) < terms[:, None], near, 0) / below
    return Taps(first, terms, weights.astype(dtype))


@lru_cache(64)
def summed(size: int, factor: int, dtype: np.dtype) -> Taps:
    """Return what adds up the gradients of each pixel's `factor` copies."""
    return Taps(np.arange(size) * factor, np.full(size, factor), np.ones((size, factor), dtype))


def are_short(axes: tuple[Taps, ...]) -> bool:
    """Return whether one running sum for the rows that make a result, and one along them, are accurate: see runs.py."""
    most = [taps.weights.shape[1] for taps in axes]
    return max(prod(most[:-1]), most[-1]) <= longest_run(prod(most))


def _places(size: int, factor: int, align_corners: bool) -> tuple[np.ndarray, int]:
    """Return where results lie, in pixels, as whole numbers over another one."""
    place = np.arange(size * factor)
    if align_corners:
        return place * (size - 1), max(1, size * factor - 1)
    return np.clip(2 * place + 1 - factor, 0, 2 * factor * (size - 1)), 2 * factor
