"""Launches of kernels/silu.cu."""

from __future__ import annotations

from typing import Any

from .elementwise import pointwise
from .kernel import Kernel

_FORWARD = Kernel("silu.cu", "silu_forward")
_BACKWARD = Kernel("silu.cu", "silu_backward")


def silu_forward(x: Any) -> Any:
    return pointwise(_FORWARD, x, like=x)


def silu_backward(dy: Any, x: Any) -> Any:
    return pointwise(_BACKWARD, dy, x, like=x)
