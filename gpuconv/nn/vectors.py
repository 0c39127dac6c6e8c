"""Sums of flat vectors in place, on any backend, by the kernel that plain gradient descent has already.

w -= lr (dw + weight_decay w) adds a multiple of one vector to another for lr = -factor, and moves one vector a share of
the way towards another for lr = -share, weight_decay = -1.  On a GPU a factor or share may come by its place.
"""

from __future__ import annotations

from typing import Any

from ..backend import backend_of, on_gpu, scale_on_cpu, zeros_like
from ..placed import Number


def add_scaled(target: Any, source: Any, factor: float | Number) -> None:
    """Add factor source to target.   target, source: (n,) of one dtype, apart in memory."""
    _update(target, source, lr=-factor, weight_decay=0.0)


def move_towards(target: Any, source: Any, share: float | Number) -> None:
    """Add share (source - target) to target.   target, source: (n,) of one dtype, apart in memory."""
    _update(target, source, lr=-share, weight_decay=-1.0)


def scale(target: Any, factor: float) -> None:
    """Multiply target by a factor.   target: (n,)."""
    if on_gpu(target):
        # Into zeros, not by adding (factor - 1) times itself: that loses the digits of a small factor.
        own = copy_of(target)
        target[...] = 0
        add_scaled(target, own, factor)
    else:
        scale_on_cpu(target, factor)


def copy_of(array: Any) -> Any:
    """Return a C-contiguous copy in the same place."""
    copy = zeros_like(array)
    copy[...] = array
    return copy


def _update(target: Any, source: Any, *, lr: float | Number, weight_decay: float) -> None:
    backend_of(target=target, source=source).sgd_update(
        target, source, None, lr=lr, momentum=0.0, nesterov=False, weight_decay=weight_decay
    )
