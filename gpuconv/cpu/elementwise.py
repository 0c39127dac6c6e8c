"""Functions of single elements, in blocks that stay in the cache, on all threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .compiled import passes
from .layout import stored_order
from .parallel import BLOCK_ELEMENTS, for_each, quiet, ranges


def elementwise(operator: str, function: str, inputs: list[np.ndarray], out: np.ndarray, *options: Any) -> np.ndarray:
    """Call an operator's pass, function(*inputs, out, *options), on matching blocks of arrays of one shape; return out.

    Loops take arrays that are all stored in one order, on whole addresses; others are left to NumPy.
    """
    aligned = all(array.flags.aligned for array in (*inputs, out))
    run = passes(operator, out.dtype, served=aligned and stored_order(*inputs, out) is not None)
    one_pass = getattr(run, function)
    return in_blocks(lambda *blocks: one_pass(*blocks, *options), inputs, out, run.BLOCK)


@quiet
def in_blocks(
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
