"""Launches of kernels/gelu.cu."""

from __future__ import annotations

from typing import Any

from .elementwise import pointwise
from .kernel import Kernel

_FORWARD = Kernel("gelu.cu", "gelu_forward")
_BACKWARD = Kernel("gelu.cu", "gelu_backward")


def gelu_forward(x: Any, *, approximate: str) -> Any:
    return pointwise(_FORWARD, x, like=x, templates=(approximate == "tanh",))


def gelu_backward(dy: Any, x: Any, *, approximate: str) -> Any:
    return pointwise(_BACKWARD, dy, x, like=x, templates=(approximate == "tanh",))
