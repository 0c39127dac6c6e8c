"""What of a difference between runs can be chance: the standard error of a result, and McNemar's test of two nets."""

from __future__ import annotations

import math
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
