"""Launches of kernels/muon.cu: Muon's step on all filter banks of a net."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..placed import Number, placed_number
from .device import Device, device_of
from .kernel import Kernel, cover
from .reduce import sum_type

_MOMENTUM = Kernel("muon.cu", "muon_momentum")
_LENGTHS = Kernel("muon.cu", "muon_lengths")
_NORMALISE = Kernel("muon.cu", "muon_normalise")
_PRODUCT = Kernel("muon.cu", "muon_product")
_MERGE = Kernel("muon.cu", "muon_gram")
_STEP = Kernel("muon.cu", "muon_step")

_CHUNK, _TILE, _RUN = 4096, 64, 64  # MUON_CHUNK, MUON_TILE, MUON_RUN of kernels/muon.cu
_GRAM, _SQUARE, _APPLY = range(3)  # what muon_product makes
_LEAST_SLICE = 256  # terms of a sum that a block adds up by itself
_ENOUGH_BLOCKS = 128  # of a bank: where its tiles are fewer, their sums are cut into slices


class Banks:
    """Where filter banks lie in a net's flat vectors, on the device: made once, for all steps."""

    def __init__(self, banks: list[tuple[int, int, int]], like: Any) -> None:
        """banks: (start, rows, columns) of each, at least one   like: a flat vector of the net."""
        rows, matrix, square, partial, most = [], 0, 0, 0, 1
        for start, height, width in banks:
            short, long = sorted((height, width))
            slices, length = slices_of(short, long)
            rows.append((start, height, width, matrix, square, length, partial))
            matrix += height * width
            square += short**2
            partial += slices * short**2
            most = max(most, slices)
        self._device: Device = device_of(like)
        self._dtype, self._sums = like.dtype, sum_type(like.dtype)
        self._table = self._device.asarray(np.array(rows, np.int64))
        self._count, self._matrix, self._square = len(banks), matrix, square
        self._partial, self._slices = partial, most
        self._largest_square = max(min(height, width) ** 2 for _, height, width in banks)
        self._largest = max(height * width for _, height, width in banks)
        tiles = [(-(-min(bank[1:]) // _TILE), -(-max(bank[1:]) // _TILE)) for bank in banks]
        self._tiles = max(m * m for m, _ in tiles), max(m * n for m, n in tiles)

    def step(
        self,
        w: Any,
        dw: Any,
        velocity: Any,
        *,
        lr: float | Number,
        momentum: float,
        nesterov: bool,
        renormalise: bool,
        iterations: int,
        quintic: tuple[float, float, float],
        copy: Any = None,
    ) -> None:
        """Take a step in place.   w, dw, velocity: the flat vectors   lr: by value or by its place; its `go` says whether.

        copy: a vector of another dtype that holds the banks of w afterwards, too.
        """
        device, dtype, sums = self._device, self._dtype, self._sums
        go = lr.go if isinstance(lr, Number) else None
        first, second, third = quintic
        chunks = -(-self._largest // _CHUNK)
        partial = device.empty((self._count, chunks, 2), sums)
        lengths = device.empty((self._count, 2), sums)
        x, other = device.empty((self._matrix,), sums), device.empty((self._matrix,), sums)
        a, b = device.empty((self._square,), sums), device.empty((self._square,), sums)
        slices = device.empty((self._partial,), sums)
        each = cover(device, self._largest), self._count
        table = self._table
        begun = w, dw, velocity, table, partial
        _MOMENTUM(device, (dtype,), (chunks, self._count), *begun, go, momentum, nesterov)
        _LENGTHS(device, (sums,), (1, self._count), partial, table, lengths, go, chunks)
        _NORMALISE(device, (dtype,), each, dw, velocity, table, lengths, x, go, momentum, nesterov)
        for _ in range(iterations):
            self._product(_GRAM, x, x, None, slices, go, 0.0, 1.0)
            _MERGE(device, (sums,), (cover(device, self._largest_square), self._count), slices, table, a, go)
            self._product(_SQUARE, a, a, a, b, go, second, third)
            self._product(_APPLY, b, x, x, other, go, first, 1.0)
            x, other = other, x
        templates = dtype, dtype if copy is None else copy.dtype
        _STEP(device, templates, each, w, copy, table, lengths, x, go, *placed_number(lr), renormalise)

    def _product(
        self, kind: int, left: Any, right: Any, plus: Any, out: Any, go: Any, own: float, times: float
    ) -> None:
        grid = self._tiles[kind == _APPLY], self._count, self._slices if kind == _GRAM else 1
        _PRODUCT(self._device, (self._sums, kind), grid, left, right, plus, self._table, out, go, own, times)


def slices_of(short: int, long: int) -> tuple[int, int]:
    """Return (number of slices, terms in each) of the sums of x x^T, x (short, long): by sizes alone, whole runs."""
    tiles = (-(-short // _TILE)) ** 2
    wanted = max(1, min(-(-long // _LEAST_SLICE), _ENOUGH_BLOCKS // tiles))
    length = -(-long // (wanted * _RUN)) * _RUN
    return -(-long // length), length
