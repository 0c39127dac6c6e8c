"""What the oracle's loops share: an index over all places, and arrays as nested lists of Python floats.

Python floats are float64 and follow IEEE without warnings: inf * 0 is NaN, an overflow is inf.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np


def every(*sizes: int) -> Iterator[tuple[int, ...]]:
    """Yield every index of an array of these sizes, in row order."""
    return itertools.product(*map(range, sizes))


def floats(array: Any) -> Any:
    """Return an array as nested lists of Python floats, indexed a[i][j]."""
    return array.astype(np.float64).tolist()


def flat_floats(array: Any) -> list[float]:
    """Return the elements of an array in row order of its shape, whatever its strides."""
    return array.astype(np.float64).reshape(-1).tolist()


def add(array: np.ndarray, place: tuple[int, ...], value: float) -> None:
    """Add to one element in Python floats: numbers of NumPy warn where infinities cancel."""
    array[place] = float(array[place]) + value
