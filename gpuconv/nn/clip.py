"""Gradient clipping by the norm of all gradients together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import checks
from ..backend import asnumpy
from .vectors import add_scaled, copy_of


def clip_gradients(net: Any, max_norm: float) -> float:
    """Shorten net.flat_grads to a Euclidean norm of at most max_norm; return the norm it had.

    The norm is taken in float64 on the host: the call waits for a GPU.  A norm that is no number changes nothing.
    Source: Pascanu et al., On the difficulty of training recurrent neural networks, arXiv 1211.5063.
    """
    max_norm = checks.real("max_norm", max_norm, low=0.0, open_low=True)
    gradients = asnumpy(net.flat_grads).astype(np.float64)
    norm = math.sqrt(float(np.square(gradients).sum()))
    if math.isfinite(norm) and norm > max_norm:
        add_scaled(net.flat_grads, copy_of(net.flat_grads), max_norm / norm - 1)
    return norm
