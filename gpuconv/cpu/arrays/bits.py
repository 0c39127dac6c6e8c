"""Choosing by bits, where multiplying by 0 would make NaN of infinities."""

from __future__ import annotations

import numpy as np


def keep_where(mask: np.ndarray, values: np.ndarray, out: np.ndarray) -> None:
    """Write values where the boolean mask is set, else 0: exact for infinities and NaN."""
    bits = np.dtype(f"i{values.dtype.itemsize}")
    # -True as an 8-bit integer is all ones, and stays so when widened.
    np.bitwise_and(values.view(bits), np.negative(mask.view(np.int8)), out=out.view(bits))
