"""Launches of kernels/outcome.cu: what a part of a step came to, noted where it ran."""

from __future__ import annotations

from typing import Any

import numpy as np

from .copy import contiguous
from .device import device_of
from .kernel import Kernel, cover

_HITS = Kernel("outcome.cu", "outcome_hits", strided=("labels",))
_PART = Kernel("outcome.cu", "outcome_part")

_ROWS = 8  # OUTCOME_WARPS of kernels/outcome.cu


def note_part(part: int, loss: Any, scores: Any, labels: Any, *, outcomes: Any, row: Any) -> None:
    """Write loss and hits of a part of a step into its row of outcomes, (rows, width) float64.

    loss: ()   scores: (N, classes)   labels: (N,) integers   row: (1,) uint64, the number of the row.
    """
    device = device_of(scores)
    N, classes = scores.shape
    blocks = cover(device, N, _ROWS)
    hits = device.empty((blocks,), np.int64)
    step = labels.strides[0] // labels.dtype.itemsize
    _HITS(device, (scores.dtype, labels.dtype), blocks, contiguous(scores), labels, hits, N, classes, step)
    _PART(device, (loss.dtype,), 1, loss, hits, blocks, outcomes, row, outcomes.shape[1], part)
