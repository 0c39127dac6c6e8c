"""Sums of flat vectors in place, on any backend, by the kernel that plain gradient descent has already.

w -= lr (dw + weight_decay w) adds a multiple of one vector to another for lr = -factor, and moves one vector a share of
the way towards another for lr = -share, weight_decay = -1.  On a GPU a factor or share may come by its place.
"""

from __future__ import annotations

from typing import Any

from ..backend import backend_of, copy, zeros_like
from ..placed import Number


def add_scaled(target: Any, source: Any, factor: float | Number) -> None:
    """Add factor source to target.   target, source: (n,) of one dtype, apart in memory."""
    _update(target, source, lr=-factor, weight_decay=0.0)


def move_towards(target: Any, source: Any, share: float | Number) -> None:
    """Add share (source - target) to target.   target, source: (n,) of one dtype, apart in memory."""
    _update(target, source, lr=-share, weight_decay=-1.0)


def copy_of(array: Any) -> Any:
    """Return a C-contiguous copy in the same place."""
    own = zeros_like(array)
    copy(array, own)
    return own


def _update(target: Any, source: Any, *, lr: float | Number, weight_decay: float) -> None:
    backend_of(target=target, source=source).sgd_update(
        target, source, None, lr=lr, momentum=0.0, nesterov=False, weight_decay=weight_decay
    )
