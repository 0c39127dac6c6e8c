"""Processes that share a batch, one after the other in this one: what each gathers is what the others passed before."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import gpuconv
from gpuconv.ops import batchnorm

IMAGES = (2, 2, 3)  # of seven, as three processes share them


class _Passed(Exception):
    """What a process passes to the others."""

    def __init__(self, array: Any) -> None:
        super().__init__()
        self.array = array


class _First:
    """Others that are not there yet."""

    def __init__(self, rank: int) -> None:
        self.rank, self.images = rank, IMAGES

    def gather(self, array: Any) -> Any:
        raise _Passed(array)


class _Then(_First):
    """Others that have passed their arrays."""

    def __init__(self, rank: int, gathered: Any) -> None:
        super().__init__(rank)
        self._gathered = gathered

    def gather(self, array: Any) -> Any:
        return self._gathered


def together(place: Any, work: Callable[[Any], Any]) -> list[Any]:
    """Return work(across) of each process, work that gathers once, before it changes anything.   place: of places.py."""
    passed = []
    for rank in range(len(IMAGES)):
        try:
            work(_First(rank))
        except _Passed as one:
            passed.append(place.numpy(one.array))
    gathered = place.array(np.stack(passed))
    return [work(_Then(rank, gathered)) for rank in range(len(IMAGES))]


def normalised(d: Any, *pixels: int) -> tuple[Any, ...]:
    """Return y, running statistics, dx, dgamma and dbeta of each share.   d: Inputs of kernel_calls.py."""
    C = 3
    shape = sum(IMAGES), C, *pixels
    x, dy = d.around_two(*shape), d.normal(*shape)
    gamma, beta, mean, var = d.normal(C), d.normal(C), d.normal(C), d.positive(C)
    cuts = np.cumsum((0, *IMAGES))
    if d.wide:
        forward, backward = (
            (gpuconv.spatial_batchnorm_forward, gpuconv.spatial_batchnorm_backward)
            if pixels
            else (gpuconv.batchnorm_forward, gpuconv.batchnorm_backward)
        )
        y, cache = forward(x, gamma, beta, mean, var)
        dx, *_ = backward(dy, cache)
        axes = (0, *range(2, len(shape)))
        spread = (slice(None), *[None] * len(pixels))
        weighted = dy * (x - cache.mean[spread]) * cache.inv_std[spread]
        sums = [array[a:b].sum(axis=axes) for a, b in itertools.pairwise(cuts) for array in (weighted, dy)]
        return y, mean, var, dx, *sums
    numpy = d.place.numpy
    running = [(d.put(numpy(mean)), d.put(numpy(var))) for _ in IMAGES]  # of each

    def forward_of(across: Any) -> Any:
        part = x[cuts[across.rank] : cuts[across.rank + 1]]
        vectors = gamma, beta, *running[across.rank]
        return batchnorm.batchnorm_forward_across(part, *vectors, momentum=0.9, eps=1e-5, across=across)

    made = together(d.place, forward_of)

    def backward_of(across: Any) -> Any:
        _, cache = made[across.rank]
        cache = batchnorm.BatchNormCache(cache.x, gamma, cache.mean, cache.inv_std, True, None, across)
        dgamma, dbeta = d.put(np.zeros(C, d.narrow)), d.put(np.zeros(C, d.narrow))
        part = dy[cuts[across.rank] : cuts[across.rank + 1]]
        return batchnorm.batchnorm_backward_into(part, cache, dgamma, dbeta), dgamma, dbeta

    backward = together(d.place, backward_of)
    for of_other in running[1:]:
        for one, other in zip(running[0], of_other, strict=True):
            np.testing.assert_array_equal(numpy(one), numpy(other))
    y = d.put(np.concatenate([numpy(y) for y, _ in made]))
    dx = d.put(np.concatenate([numpy(dx) for dx, _, _ in backward]))
    return y, *running[0], dx, *(array for _, *sums in backward for array in sums)


def summed(d: Any) -> tuple[Any, ...]:
    """Return the sum that each of three processes makes of its stretch, here all of one vector."""
    drawn = [d.whole(2101) for _ in IMAGES]
    if d.wide:
        total = drawn[0] + drawn[1] + drawn[2]
        return total, total.copy(), total.copy()
    from gpuconv.cuda.across import add_pieces

    numpy = d.place.numpy
    results = []
    for rank, own in enumerate(drawn):
        pieces = np.stack([numpy(each) for each in drawn])
        pieces[rank] = np.nan
        mine, of_others = d.put(numpy(own)), d.put(pieces)
        add_pieces(mine, of_others, ranks=len(drawn), rank=rank)
        results.append(mine)
    return tuple(results)
