"""Numbers by value or by their address in device memory, as kernels take them by kernels/scalar.cuh."""

from __future__ import annotations

from typing import Any

import numpy as np


def scalar(number: Any) -> tuple[Any, Any]:
    """Return the two arguments that stand for a number: its address and 0, or None and its value.

    number: a Python number, or a device array of one element, whose value then is the one at each launch or replay.
    """
    return (None, number) if isinstance(number, (int, float, np.number)) else (number, 0)
