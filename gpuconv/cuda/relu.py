"""Launches of kernels/relu.cu."""

from __future__ import annotations

from typing import Any

from .device import device_of
from .elementwise import outputs, pack_blocks
from .kernel import Kernel
from .layout import same_storage

_FORWARD = Kernel("relu.cu", "relu_forward")
_BACKWARD = Kernel("relu.cu", "relu_backward")


def relu_forward(x: Any) -> Any:
    device = device_of(x)
    ((y, target),) = outputs(device, x, x.dtype)
    _FORWARD(device, (x.dtype,), pack_blocks(device, x), *same_storage(x), target, x.size)
    return y


def relu_backward(dy: Any, y: Any) -> Any:
    device = device_of(y)
    ((dx, target),) = outputs(device, y, y.dtype)
    y, dy = same_storage(y, dy)
    _BACKWARD(device, (y.dtype,), pack_blocks(device, y), dy, y, target, y.size)
    return dx
