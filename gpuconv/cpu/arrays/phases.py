"""Phases of a stride one after another, each a convolution."""

from __future__ import annotations

import numpy as np

from ..windows import Phase
from . import conv


def correlate(
    x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, y: np.ndarray, parts: list[Phase], groups: int
) -> None:
    """Fill y (N, K, P, Q) with bias and, phase by phase, windows of x times their taps of filters w (K, C / groups, R, S)."""
    for phase in parts:
        assert phase.windows is not None
        conv.correlate(x, w[phase.taps], bias, y[phase.pixels], phase.windows, groups)
