"""Functions of single elements, in blocks that stay in the cache, on all threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .layout import stored_order
from .parallel import BLOCK_ELEMENTS, for_each, quiet, ranges


@quiet
def elementwise(
    function: Callable[..., object], inputs: list[np.ndarray], out: np.ndarray, block: int = BLOCK_ELEMENTS
) -> np.ndarray:
    """Call function(*inputs, out) on matching blocks of so many elements of the arrays, all of one shape; return out."""
    flat = stored_order(*inputs, out)
    if flat is None:  # stored in different orders: blocks of the first axis, element by element
        flat = [*inputs, out]
        block = max(1, block * out.shape[0] // max(1, out.size))

    def work(part: tuple[int, int]) -> None:
        function(*(array[slice(*part)] for array in flat))

    for_each(work, ranges(flat[-1].shape[0], block))
    return out


def keep_where(mask: np.ndarray, values: np.ndarray, out: np.ndarray) -> None:
    """Write values where the boolean mask is set, else 0, by selecting bits: exact for infinities and NaN."""
    bits = np.dtype(f"i{values.dtype.itemsize}")
    # -True as an 8-bit integer is all ones, and stays so when widened.
    np.bitwise_and(values.view(bits), np.negative(mask.view(np.int8)), out=out.view(bits))
