"""`precision` of an operator: leave, given by name, to round the factors of its sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import capability_of
from ..checks import shown
from ..errors import DTypeError, ParamError, UnsupportedError

TF32 = "tf32"
_LEAST = 80  # compute capability 8.0: the first with tensor cores that take TF32


def check(precision: Any, x: Any) -> str | None:
    """Return what precision says, None or "tf32", where x, of the call's dtype and place, allows it."""
    if precision is None:
        return None
    if not isinstance(precision, str) or precision != TF32:
        msg = f'precision must be None or "{TF32}", got {shown(precision)}'
        raise ParamError(msg)
    if x.dtype != np.float32:
        msg = f'precision="{TF32}" rounds the factors of float32 arrays, got {x.dtype}'
        raise DTypeError(msg)
    found = capability_of(x)
    if found is None or found[1] < _LEAST:
        where = "x is a NumPy array" if found is None else f"{found[0]} has {found[1] // 10}.{found[1] % 10}"
        msg = f'precision="{TF32}" needs a GPU of compute capability 8.0 or later, {where}'
        raise UnsupportedError(msg)
    return TF32
