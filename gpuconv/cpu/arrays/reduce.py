"""What is asked of a run of elements as a whole."""

from __future__ import annotations

import numpy as np

from ..parallel import BLOCK_ELEMENTS

BLOCK = BLOCK_ELEMENTS


def finite(x: np.ndarray, flag: np.ndarray) -> None:
    """Set the flag (1,) if no element is NaN or infinite."""
    flag[0] = np.isfinite(x).all()


def square_sum(x: np.ndarray, total: np.ndarray) -> None:
    """Fill total (1,), float64, with the sum of the squares."""
    wide = x.astype(np.float64, copy=False)
    total[0] = wide @ wide
