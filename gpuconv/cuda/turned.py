"""The filters of a net in the order that tensor cores read them, made by one launch for all its layers."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from .conv_tensor import LEAST_ARCH, chunk_of
from .device import Device, device_of
from .kernel import Kernel, cover

_TURN = Kernel("conv_tensor.cu", "conv_turn_tensor", least_arch=LEAST_ARCH)

Shape = tuple[int, ...]


class Turned:
    """Filters of a flat vector once more, channels-last: made once, and filled at every step.

    filters: by their starts in the flat vector, arrays (K, C / groups, R, S) in that order, which `fill` brings up to date
    """

    def __init__(self, flat: Any, shapes: dict[int, Shape]) -> None:
        """flat: a vector of a GPU   shapes: of filters that `turns` takes, at least one, by their starts in it."""
        self._device: Device = device_of(flat)
        self._flat = flat
        self._stored = self._device.empty((sum(map(prod, shapes.values())),), flat.dtype)
        self.filters: dict[int, Any] = {}
        rows, end = [], 0
        for start, (K, C, R, S) in shapes.items():
            first, end = end, end + K * C * R * S
            self.filters[start] = self._stored[first:end].reshape(K, R, S, C).transpose(0, 3, 1, 2)
            rows.append((start, first, K, C, R * S))
        self._layers = self._device.asarray(np.array(rows, np.int64))
        largest = max(map(prod, shapes.values())) // chunk_of(flat.dtype)
        self._blocks = cover(self._device, largest), len(rows)

    @property
    def nbytes(self) -> int:
        return int(self._stored.nbytes)

    def fill(self) -> None:
        """Let the filters be those of the flat vector as it is now."""
        _TURN(self._device, (self._flat.dtype,), self._blocks, self._flat, self._stored, self._layers)


def turns(flat: Any, shape: Shape) -> bool:
    """True if tensor cores read filters of this shape channels-last, of the dtype of a vector and on its GPU."""
    chunk = chunk_of(flat.dtype)
    whole = len(shape) == 4 and shape[0] % chunk == shape[1] % chunk == 0 < prod(shape)
    return whole and flat.dtype.itemsize == 2 and device_of(flat).arch >= LEAST_ARCH


def turned(flat: Any, shapes: dict[int, Shape]) -> Turned | None:
    """Return those filters of a flat vector that `turns` takes, turned but not filled yet; None where there are none."""
    chosen = {start: shape for start, shape in shapes.items() if turns(flat, shape)}
    return Turned(flat, chosen) if chosen else None
