"""Average pooling to a size, one axis after another: the passes over memory are in arrays/ and loops/.

Pixel i of n along an axis lies under window p of P where p n < (i + 1) P and i P < (p + 1) n: a relation that reads the
same for windows over pixels and, with n and P exchanged, for pixels over windows.  So the gradient takes its sums over
the windows of another call, of P pixels pooled to n, and each entry of dy is divided first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from ..pool_shapes import AdaptiveSizes
from ..shapes import is_channels_last
from .compiled import passes
from .layout import accumulator, stored
from .memory import empty_array
from .parallel import quiet


class _Windows(NamedTuple):
    """The windows along one axis: where they begin and end, and 1 / (number of pixels of each)."""

    first: np.ndarray
    end: np.ndarray
    share: np.ndarray


@quiet
def adaptive_average_pool_forward(x: np.ndarray, sizes: AdaptiveSizes) -> np.ndarray:
    """Pool columns last: theirs is the pass with the shortest steps in memory, and by then there are fewer rows."""
    return _axis_by_axis(x, sizes.out, _forward, range(2, x.ndim))


@quiet
def adaptive_average_pool_backward(dy: np.ndarray, sizes: AdaptiveSizes) -> np.ndarray:
    return _axis_by_axis(dy, sizes.image, _backward, reversed(range(2, dy.ndim)))


def _axis_by_axis(source: np.ndarray, shape: tuple[int, ...], one_axis: Callable, axes: Iterable[int]) -> np.ndarray:
    """Return what source becomes while each axis is brought to its size in a shape; one of them at least has another."""
    last, kind = is_channels_last(source), accumulator(source.dtype)
    (values,) = stored(source, source)
    for axis in axes:
        place = axis - last  # where channels lie last, an axis lies one before
        before, size, behind = values.shape[:place], values.shape[place], values.shape[place + 1 :]
        if size != shape[axis]:
            result = empty_array((*before, shape[axis], *behind), kind)
            outer, inner = prod(before), prod(behind)
            one_axis(values.reshape(outer, size, inner), result.reshape(outer, shape[axis], inner))
            values = result
    values = values.astype(source.dtype, copy=False)
    return values.transpose(0, values.ndim - 1, *range(1, values.ndim - 1)) if last else values


def _forward(x: np.ndarray, y: np.ndarray) -> None:
    """Fill y (outer, P, inner) with the means of windows over x (outer, H, inner)."""
    windows = _windows(x.shape[1], y.shape[1])
    passes("adaptive_average_pool", x.dtype).forward(x, y, windows.first, windows.end, windows.share.astype(y.dtype))


def _backward(dy: np.ndarray, dx: np.ndarray) -> None:
    """Fill dx (outer, H, inner): each pixel gets the shares of the windows it lies under, of dy (outer, P, inner)."""
    share = _windows(dx.shape[1], dy.shape[1]).share.astype(dx.dtype)
    over = _windows(dy.shape[1], dx.shape[1])
    passes("adaptive_average_pool", dy.dtype).backward(dy, dx, over.first, over.end, share)


@lru_cache(256)
def _windows(size: int, count: int) -> _Windows:
    """Return so many windows over so many pixels."""
    number = np.arange(count, dtype=np.int64)
    first, end = number * size // count, -(-(number + 1) * size // count)
    return _Windows(first, end, 1.0 / (end - first))
