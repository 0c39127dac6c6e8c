"""Inverted dropout with counter-based random numbers: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..backend import backend_of
from ..elsewhere import says_ours
from ..errors import ParamError
from ..typing import Array
from ._cache import Cache


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DropoutCache(Cache):
    """What dropout_backward needs: which elements stay (None: all), the factor they were scaled by, where."""

    like: Any
    kept: Any
    scale: float
    shape: tuple[int, ...]
    dtype: np.dtype


@says_ours()
def dropout_forward(
    x: Array, *, rate: float = 0.5, seed: int = 0, step: int = 0, offset: int = 0, training: bool = True
) -> tuple[Array, DropoutCache]:
    """Zero each element with probability rate and scale the rest by 1 / (1 - rate); return (y, cache).

    x: any shape   ->   y: the same.  training=False (or rate=0) returns the values unchanged.

    rate, in [0, 1), is the probability to *drop*.  The draw is a pure function of (seed, step, place in row order):
    the same on every backend and in either memory format.  Give each call of a run its own step.  Where x is the part of
    a batch that begins offset elements after its first, the draw is that of the whole batch.
    Source of the generator: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011); see gpuconv.random.

    >>> y, cache = gpuconv.dropout_forward(np.ones(8), rate=0.5, seed=0, step=0)
    >>> y
    array([2., 0., 2., 2., 0., 0., 0., 0.])
    >>> np.array_equal(y, gpuconv.dropout_forward(np.ones(8), rate=0.5, seed=0, step=0)[0])
    True
    """
    backend = backend_of(x=x)
    checks.common_dtype(x=x)
    rate = checks.real("rate", rate, low=0.0, high=1.0)
    if rate == 1.0:
        msg = "rate must be below 1, got rate=1.0: nothing would be left"
        raise ParamError(msg)
    seed = checks.word("seed", seed)
    step = checks.step_word("step", step)
    offset = checks.integer("offset", offset, least=0, most=2**63 - 1)
    training = checks.flag("training", training)
    y, kept = backend.dropout_forward(x, rate=rate if training else 0.0, seed=seed, step=step, offset=offset)
    scale = 1.0 if kept is None else 1.0 / (1.0 - rate)
    return y, DropoutCache(checks.nothing_like(y), kept, scale, tuple(x.shape), x.dtype)


def dropout_backward(dy: Array, cache: DropoutCache) -> Array:
    """Return dx: dy, scaled, where forward kept the element; else 0.

    >>> y, cache = gpuconv.dropout_forward(np.ones(4), rate=0.5, seed=0, step=1)
    >>> y, gpuconv.dropout_backward(np.array([1.0, 2.0, 3.0, 4.0]), cache)
    (array([0., 2., 0., 0.]), array([0., 4., 0., 0.]))
    """
    checks.cache_of(cache, DropoutCache, "dropout_forward")
    backend = backend_of(dy=dy, cache=cache.like)
    checks.upstream(dy, cache.shape, cache.dtype)
    return backend.dropout_backward(dy, cache.kept, cache.scale)
