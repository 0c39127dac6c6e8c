"""Learning rates as pure functions of the step: steps count from 0, the run has `total` of them.

Curves that fall to a floor reach it at step `total`, one past the last, so that the last step still does something;
later steps stay at the floor.  A warm-up is a number of steps (an int), or a share of the total (a float) that is
rounded to whole steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import checks
from ..errors import ParamError
from . import choice

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Constant:
    """The same rate at every step.

    >>> rate = nn.Constant(0.1)
    >>> rate(0), rate(1000)
    (0.1, 0.1)
    """

    lr: float

    def __post_init__(self) -> None:
        checks.real("lr", self.lr, low=0.0)

    def __call__(self, step: int) -> float:
        _checked(step)
        return float(self.lr)


@dataclass(frozen=True)
class Step:
    """lr factor^(step // every): steps 0 to every - 1 have lr, step `every` is the first to have lr factor.

    >>> rate = nn.Step(0.5, every=10, factor=0.5)
    >>> rate(9), rate(10), rate(20)
    (0.5, 0.25, 0.125)
    """

    lr: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        checks.real("lr", self.lr, low=0.0)
        checks.integer("every", self.every, least=1)
        checks.real("factor", self.factor, low=0.0, high=1.0)

    def __call__(self, step: int) -> float:
        return float(self.lr * self.factor ** (_checked(step) // self.every))


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from lr down to floor, after a linear warm-up.

    With a warm-up of m steps, step i < m has lr (i + 1) / (m + 1), step m is the first to have lr, and step `total`
    has floor.   Source: Loshchilov and Hutter, SGDR, arXiv 1608.03983 (one cycle of it).

    >>> rate = nn.Cosine(0.5, total=100, warmup=10)
    >>> round(rate(0), 4), rate(10), rate(100)
    (0.0455, 0.5, 0.0)
    """

    lr: float
    total: int
    warmup: float = 0
    floor: float = 0.0

    def __post_init__(self) -> None:
        lr = checks.real("lr", self.lr, low=0.0)
        _warmup_steps(self.warmup, checks.integer("total", self.total, least=1))
        checks.real("floor", self.floor, low=0.0, high=lr)

    def __call__(self, step: int) -> float:
        rising = _warmup_steps(self.warmup, self.total)
        if _checked(step) < rising:
            return self.lr * (step + 1) / (rising + 1)
        return _between(self.lr, self.floor, _share(step - rising, self.total - rising), "cosine")


@dataclass(frozen=True)
class OneCycle:
    """From start up to lr, then down to floor; both ways in a line, or with shape="cosine" in half a cosine.

    With a warm-up of m steps, step 0 has start (None: lr / 25), step m has lr, and step `total` has floor.
    Source: Smith and Topin, Super-convergence, arXiv 1708.07120.

    >>> rate = nn.OneCycle(1.0, total=100, warmup=0.25, start=0.5)
    >>> rate(0), rate(25), rate(100)
    (0.5, 1.0, 0.0)
    """

    lr: float
    total: int
    warmup: float = 0.3
    start: float | None = None
    floor: float = 0.0
    shape: str = "linear"

    def __post_init__(self) -> None:
        lr = checks.real("lr", self.lr, low=0.0)
        _warmup_steps(self.warmup, checks.integer("total", self.total, least=1))
        if self.start is not None:
            checks.real("start", self.start, low=0.0, high=lr)
        checks.real("floor", self.floor, low=0.0, high=lr)
        checks.choice("shape", self.shape, ("linear", "cosine"))

    def __call__(self, step: int) -> float:
        rising = _warmup_steps(self.warmup, self.total)
        if _checked(step) < rising:
            start = self.lr / 25 if self.start is None else self.start
            return _between(start, self.lr, _share(step, rising), self.shape)
        return _between(self.lr, self.floor, _share(step - rising, self.total - rising), self.shape)


def schedule(name: str, /, **settings: Any) -> Schedule:
    """Return a schedule by name: "constant", "step", "cosine" or "one-cycle"; ConfigError for an unknown one.

    >>> nn.schedule("step", lr=0.5, every=10)
    Step(lr=0.5, every=10, factor=0.1)
    """
    return choice.make("schedule", _SCHEDULES, name, settings)


_SCHEDULES = {"constant": Constant, "step": Step, "cosine": Cosine, "one-cycle": OneCycle}


def _between(first: float, last: float, share: float, shape: str) -> float:
    """Return the value a share (0 to 1) of the way from first to last, exact at both ends."""
    if shape == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return float(first * (1 - share) + last * share)


def _share(steps: int, of: int) -> float:
    return min(steps / of, 1.0) if of else 1.0


def _warmup_steps(warmup: Any, total: int) -> int:
    """Return the length of a warm-up in whole steps."""
    if not hasattr(warmup, "__index__"):
        return round(checks.real("warmup", warmup, low=0.0, high=1.0) * total)
    steps = checks.integer("warmup", warmup, least=0)
    if steps > total:
        msg = f"warmup must be at most total, got warmup={steps} steps of total={total}"
        raise ParamError(msg)
    return steps


def _checked(step: Any) -> int:
    return checks.integer("step", step, least=0)
