"""What of a difference between runs can be chance: the standard error, McNemar's test of two nets, Welch's of two recipes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .evaluation import unpack_bits
from .reading import Reading


def standard_error(accuracy: float, count: int) -> float:
    """Return the standard error of a share of count independent images."""
    return math.sqrt(accuracy * (1 - accuracy) / count)


@dataclass(frozen=True, slots=True)
class Paired:
    """Two nets on the same images: how many only the first, only the second recognised, and McNemar's p."""

    images: int
    only_first: int
    only_second: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> Paired:
    """Return the exact McNemar test of two nets on the same images.   first, second: (N,) bool, image recognised.

    p: the probability, were both nets equally good, of counts as uneven as these or more: two-sided binomial.
    Source: McNemar, Note on the sampling error of the difference between correlated proportions (1947).
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    count, fewer = only_first + only_second, min(only_first, only_second)
    ways, total = 1, 0
    for k in range(fewer + 1):
        total += ways
        ways = ways * (count - k) // (k + 1)
    return Paired(len(first), only_first, only_second, min(1.0, 2 * total / 2**count))


def paired(first: Reading, second: Reading) -> Paired | None:
    """Return the test of two finished runs on the test images of both; None if their data are not the same.

    A run is tested on the first images of the test set, so of two the shorter list is part of the longer.
    """
    a, b = first.result, second.result
    if a is None or b is None or a["data_fingerprint"] != b["data_fingerprint"]:
        return None
    count = min(a["test_images"], b["test_images"])
    return mcnemar(*(unpack_bits(result["test_right"], count) for result in (a, b)))


@dataclass(frozen=True, slots=True)
class Means:
    """Two lists of numbers: the difference of their means, and Welch's p; None where a list says nothing of its spread."""

    difference: float
    p: float | None


def welch(first: Sequence[float], second: Sequence[float]) -> Means:
    """Return Welch's t-test of the means of two lists, whose spreads may differ.

    p: the probability, were both means equal and the numbers normally distributed, of a difference as large or larger.
    Source: Welch, The generalization of "Student's" problem when several different population variances are involved (1947).
    """
    difference = statistics.fmean(second) - statistics.fmean(first)
    if min(len(first), len(second)) < 2:
        return Means(difference, None)
    parts = [statistics.variance(values) / len(values) for values in (first, second)]
    if sum(parts) == 0:
        return Means(difference, None)
    t = abs(difference) / math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True)
    )
    return Means(difference, _beyond(t, freedom))


def _beyond(t: float, freedom: float) -> float:
    """Return how probable it is that a value of Student's distribution lies beyond t, on either side.

    With t = sqrt(freedom) tan(angle) its density is cos(angle)^(freedom - 1).
    """
    start = math.atan(t / math.sqrt(freedom))
    end = max(start, min(math.pi / 2, 40 / math.sqrt(freedom)))  # beyond 40 standard deviations there is nothing to see
    inside, outside = (_area(*ends, freedom - 1) for ends in ((0.0, start), (start, end)))
    return outside / (inside + outside)


def _area(low: float, high: float, power: float) -> float:
    """Return the integral of cos(angle)^power, by the middles of many steps."""
    steps = 20_000
    middles = low + (np.arange(steps) + 0.5) * ((high - low) / steps)
    return float(np.mean(np.cos(middles) ** power)) * (high - low)
