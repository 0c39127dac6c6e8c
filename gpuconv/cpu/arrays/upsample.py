"""Upsampling, axis by axis over a block of images, the rows last; arrays are (outer, D, H, W, inner)."""

from __future__ import annotations

from math import prod

import numpy as np

from ..layout import accumulator
from ..parallel import BLOCK_ELEMENTS, for_each, ranges, scratch
from ..resampling import Taps
from ..runs import RunningSum

_ALL = slice(None)


def repeat(x: np.ndarray, y: np.ndarray) -> None:
    """Fill y with the pixels of x, each as often along an axis as y is longer."""
    _, D, H, W, C = x.shape
    deep, down, across = (large // small for large, small in zip(y.shape[1:4], x.shape[1:4], strict=True))

    def work(block: tuple[int, int]) -> None:
        images = slice(*block)
        copies = y[images].reshape(-1, D, deep, H, down, W, across, C)
        rows = copies[:, :, 0, :, 0]
        for place in range(across):
            rows[..., place, :] = x[images]
        for place in range(1, down):
            copies[:, :, 0, :, place] = rows
        for place in range(1, deep):
            copies[:, :, place] = copies[:, :, 0]

    for_each(work, _blocks(y))


def weigh(x: np.ndarray, y: np.ndarray, axes: tuple[Taps, ...]) -> None:
    """Fill y with sums of x, by what makes a result along each of D, H and W."""
    kind = accumulator(x.dtype)
    longer = [axis for axis in (1, 2, 3) if x.shape[axis] != y.shape[axis]]

    def work(block: tuple[int, int]) -> None:
        images = slice(*block)
        part, out = x[images].astype(kind, copy=False), y[images]
        for axis in longer:
            shape = (*out.shape[: axis + 1], *part.shape[axis + 1 :])
            total = out if axis == longer[-1] and out.dtype == kind else scratch(f"axis {axis}", shape, kind)
            _add_up(part, total, axis, axes[axis - 1])
            part = total
        if part is not out:
            np.copyto(out, part, casting="same_kind")

    for_each(work, _blocks(max(x, y, key=np.size)))


def _add_up(part: np.ndarray, total: np.ndarray, axis: int, taps: Taps) -> None:
    """Set total to the sums of an array along one axis."""
    most = taps.weights.shape[1]
    total.fill(0)
    added = RunningSum(total, most)
    for tap in range(most):
        some = np.flatnonzero(taps.terms > tap)
        weights = taps.weights[some, tap].reshape(-1, *(1,) * (total.ndim - axis - 1))
        terms = part.take(taps.first[some] + tap, axis)
        np.multiply(terms, weights, out=terms)
        index = (_ALL,) * axis + (_ALL if len(some) == total.shape[axis] else some,)
        added.next()[index] += terms
    added.close()


def _blocks(array: np.ndarray) -> list[tuple[int, int]]:
    """Cut an array into ranges of its first axis, of about as many elements as a block has."""
    return ranges(len(array), max(1, BLOCK_ELEMENTS // prod(array.shape[1:])))
