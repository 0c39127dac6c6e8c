"""Launches of kernels/gelu.cu."""

from __future__ import annotations

from typing import Any

from .device import device_of
from .elementwise import outputs, pack_blocks
from .kernel import Kernel
from .layout import same_storage

_FORWARD = Kernel("gelu.cu", "gelu_forward")
_BACKWARD = Kernel("gelu.cu", "gelu_backward")


def gelu_forward(x: Any, *, approximate: str) -> Any:
    device = device_of(x)
    ((y, target),) = outputs(device, x, x.dtype)
    templates = x.dtype, approximate == "tanh"
    _FORWARD(device, templates, pack_blocks(device, x), *same_storage(x), target, x.size)
    return y


def gelu_backward(dy: Any, x: Any, *, approximate: str) -> Any:
    device = device_of(x)
    ((dx, target),) = outputs(device, x, x.dtype)
    x, dy = same_storage(x, dy)
    templates = x.dtype, approximate == "tanh"
    _BACKWARD(device, templates, pack_blocks(device, x), dy, x, target, x.size)
    return dx
