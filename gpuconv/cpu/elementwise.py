"""Functions of single elements, in blocks that stay in the cache, on all threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .compiled import passes
from .layout import stored_order
from .parallel import share_out


def elementwise(operator: str, function: str, inputs: list[np.ndarray], out: np.ndarray, *options: Any) -> np.ndarray:
    """Call an operator's pass, function(*inputs, out, *options, block, counter), on arrays of one shape; return out.

    Loops take arrays that are all stored in one order, on whole addresses; others are left to NumPy.
    """
    arrays = [*inputs, out]
    flat = stored_order(*arrays)
    run = passes(operator, out.dtype, served=flat is not None and all(array.flags.aligned for array in flat))
    in_blocks(getattr(run, function), flat or arrays, run.BLOCK, *options)
    return out


def in_blocks(one_pass: Callable[..., object], arrays: list[np.ndarray], block: int, *options: Any) -> None:
    """Call a pass on all threads, for blocks of about so many elements: flat, or of the first axis of arrays."""
    length, size = len(arrays[-1]), arrays[-1].size
    rows = block if length == size else max(1, block * length // max(1, size))
    share_out(lambda counter: one_pass(*arrays, *options, rows, counter), -(-length // rows))
