"""Numbers that change from step to step, by their place on a GPU: kernels read them there when they run.

Launchers take them where they take a number: the same launches then serve every step, whoever writes the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Number:
    """times what lies at `at`, (1,) float64; an update by it leaves its arrays alone where `go`, (1,) uint64, is 0."""

    at: Any
    times: float = 1.0
    go: Any = None

    def __neg__(self) -> Number:
        return replace(self, times=-self.times)


@dataclass(frozen=True, slots=True, eq=False)
class Count:
    """times what lies at `at`, (1,) uint64, and `plus`, modulo 2^64."""

    at: Any
    times: int = 1
    plus: int = 0

    def __mul__(self, factor: int) -> Count:
        return replace(self, times=self.times * factor, plus=self.plus * factor)

    def __add__(self, more: int) -> Count:
        return replace(self, plus=self.plus + more)


def placed_number(number: float | Number) -> tuple[Any, float]:
    """Return a number as kernels take it: its place (None: none), and the value or factor."""
    return (number.at, number.times) if isinstance(number, Number) else (None, number)


def placed_count(number: int | Count) -> tuple[Any, int, int]:
    """Return a count as kernels take it: its place (None: none), the factor, and what is added."""
    return (number.at, number.times, number.plus) if isinstance(number, Count) else (None, 0, number)
