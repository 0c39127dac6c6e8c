"""Sums of many arrays, term by term: in runs of about the square root of their number, so that they stay accurate.

A running sum of n terms in float32 may be off by (n / 4 + 1) u of itself where the terms are equal, for they are all
rounded the same way.  The rule allows (4 + 2 sqrt(n)) u.  Few terms are below that; of many, runs of sqrt(n) terms and
then the sum of the runs are each off by sqrt(n) / 4 at most.

Inside a matrix product the order is that of BLAS (product.py).
"""

from __future__ import annotations

from math import isqrt

import numpy as np

from .layout import scratch_like

FEW = 64


def run_length(terms: int) -> int:
    """Return how many of so many terms make one run."""
    return terms if terms <= FEW else isqrt(terms - 1) + 1


def longest_run(terms: int) -> int:
    """Return how many of so many terms may be added up in order, before such sums are."""
    return max(FEW, 4 * isqrt(terms))


class RunningSum:
    """A sum of so many terms in an (N, C, H, W) array, which is 0 at first: add each to parts of what next() returns."""

    def __init__(self, total: np.ndarray, terms: int) -> None:
        self._total = total
        self._length = self._left = run_length(terms)
        self._run = total
        if terms > FEW:
            self._run = scratch_like("run", total, total.dtype)
            self._run.fill(0)

    def next(self) -> np.ndarray:
        """Return the array that the next term belongs to."""
        if self._left == 0:
            self.close()
        self._left -= 1
        return self._run

    def close(self) -> None:
        """Add what is left."""
        if self._run is not self._total:
            np.add(self._total, self._run, out=self._total)
            self._run.fill(0)
        self._left = self._length
