"""Copies of arrays, sums of two and multiples, by NumPy's own passes in blocks on all threads."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from .layout import accumulator, empty, empty_as, stored_order
from .parallel import BLOCK_ELEMENTS, for_each, quiet, ranges


@quiet
def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a + b, two arrays of one shape and dtype, in the memory format of a."""
    total = empty_as(a)
    _in_blocks(lambda a, b, total: np.add(a, b, out=total), a, b, total)
    return total


@quiet
def cast(array: np.ndarray, dtype: np.dtype, factor: float = 1.0) -> np.ndarray:
    """Return factor array in another dtype, rounded once, in its memory format."""
    kind = accumulator(array.dtype)
    made = np.empty_like(array, dtype)
    _in_blocks(
        lambda part, out: np.copyto(out, np.multiply(part, kind.type(factor), dtype=kind), "same_kind"), array, made
    )
    return made


@quiet
def scale(array: np.ndarray, factor: float) -> None:
    """Multiply an array by a factor, in place."""
    kind = accumulator(array.dtype)
    number = kind.type(factor)
    _in_blocks(lambda part: np.multiply(part, number, out=part, dtype=kind, casting="same_kind"), array)


def copy(source: np.ndarray, target: np.ndarray) -> None:
    """Fill target with what an array of its shape holds."""
    _in_blocks(lambda source, target: np.copyto(target, source), source, target)


def in_format(images: np.ndarray, *, channels_last: bool) -> np.ndarray:
    """Return a copy of images (N, C, H, W) in a memory format."""
    N, C, H, W = images.shape
    turned = empty((N, C, H, W), images.dtype, channels_last=channels_last)
    copy(images, turned)
    return turned


def _in_blocks(one_pass: Callable[..., object], *arrays: np.ndarray) -> None:
    """Call a pass on matching blocks of arrays of one shape: flat, or of their first axis; at once if there is but one."""
    if arrays[0].size <= BLOCK_ELEMENTS:
        one_pass(*arrays)
        return
    flat = stored_order(*arrays) or arrays
    rows = max(1, BLOCK_ELEMENTS // prod(flat[0].shape[1:]))
    blocks = ranges(len(flat[0]), rows)
    for_each(lambda block: one_pass(*(array[slice(*block)] for array in flat)), blocks, blas=False)
