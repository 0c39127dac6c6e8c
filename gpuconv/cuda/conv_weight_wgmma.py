"""Launches of the gradient of a convolution's filters by warpgroups, on Hopper alone: tiles, slices, runs, maps."""

from __future__ import annotations

import functools
from math import isqrt
from typing import Any, NamedTuple

import numpy as np

from ..shapes import ConvSizes
from . import conv_weight_tensor, conv_wgmma
from .device import Device
from .kernel import Kernel
from .tensor_map import Boxes

_WEIGHT = Kernel("conv_weight_wgmma.cu", "conv_backward_weight_wgmma", **conv_wgmma.HOPPER)

_FLOAT = np.dtype(np.float32)
_SIDE = 64  # filters, or channels, of a box
_BESIDE = 128  # bytes behind the stages: mbarriers
_MOST_WAVES = 4  # of blocks; more slices than that cost more than they spread

# The longest run of one accumulator, as in conv_weight_tensor: in square roots of the number of terms, and the least.
_LONGEST_RUN, _LEAST_RUN = 4, 64


class WeightWgmmaTile(NamedTuple):
    """Template arguments: filters and columns of a block, pixels of a step, steps under way."""

    filters: int
    columns: int
    depth: int
    stages: int


LARGE = WeightWgmmaTile(128, 128, 64, 5)
FLAT = WeightWgmmaTile(64, 256, 64, 4)
TALL = WeightWgmmaTile(128, 64, 64, 4)
SMALL = WeightWgmmaTile(64, 128, 64, 4)

# Blocks on a multiprocessor, and cycles of a step: passes of 128 bytes over shared memory, which take longer than the
# products do (copies once, A and B once for each product).
_TOGETHER = {LARGE: 1, FLAT: 1, TALL: 2, SMALL: 2}
_CYCLES = {LARGE: 640, FLAT: 704, TALL: 448, SMALL: 448}
# Of a block until its first step has landed; to write its sums, at 25 bytes a cycle of one multiprocessor; to write and
# to read them, at 2500 bytes a cycle of all together.
_CYCLES_OF_START, _BYTES_OF_ONE, _BYTES_OF_ALL = 1500, 25, 2500


def takes(z: ConvSizes, device: Device, dtype: np.dtype) -> bool:
    """True if this kernel makes dw of z, of what conv_weight_tensor serves."""
    return conv_wgmma.serves(z, device, dtype, z.C, _SIDE) and conv_wgmma.takes(z, device, dtype, data=False)


def tile_of(filters: int, boxes: int) -> WeightWgmmaTile:
    """Return the tile that makes so many filters and boxes of columns in the fewest cycles."""
    return min(_CYCLES, key=lambda tile: _tiles(tile, filters, boxes) * _CYCLES[tile])


@functools.lru_cache(maxsize=1024)
def slices_of(pixels: int, tiles: int, tile: WeightWgmmaTile, sm_count: int) -> tuple[int, int]:
    """Return (number of slices, pixels in each), whole steps, that keep all multiprocessors busy for the least time."""
    steps, at_once = max(1, -(-pixels // tile.depth)), _TOGETHER[tile] * sm_count
    size = tile.filters * tile.columns * _FLOAT.itemsize
    of_ends = _CYCLES_OF_START + size // _BYTES_OF_ONE

    def time(slices: int) -> int:
        rounds = -(-tiles * slices // at_once)
        cycles = _TOGETHER[tile] * -(-steps // slices) * _CYCLES[tile] + of_ends
        return rounds * cycles + slices * tiles * 2 * size // _BYTES_OF_ALL

    length = -(-steps // min(range(1, min(steps, max(1, _MOST_WAVES * at_once // tiles)) + 1), key=time))
    return -(-steps // length), length * tile.depth


def run_of(pixels: int, tile: WeightWgmmaTile) -> int:
    """Return after how many steps a block adds its sums to the totals."""
    return max(_LEAST_RUN, _LONGEST_RUN * isqrt(pixels)) // tile.depth


def partial_sums(device: Device, dy: Any, x: Any, z: ConvSizes, shape: np.void) -> Any:
    """Return sums over slices of the pixels, float32 (slices, K, R S, C), as conv_weight_tensor.partial_sums does.

    dy, x: images as in_chunks has them; z, shape: their sizes, K and C as they are stored
    """
    taps, pixels = z.R * z.S, z.N * z.P * z.Q
    boxes = taps * -(-z.C // _SIDE)
    tile = tile_of(z.K, boxes)
    gradients = dy.reshape(pixels, z.K), Boxes((_SIDE, tile.depth), _SIDE * x.dtype.itemsize)
    images = x, conv_wgmma.windows(conv_wgmma.forward_axes(z), _SIDE, tile.depth)
    maps = conv_wgmma.prepared(device, _WEIGHT, (x.dtype, *tile), (gradients, images))
    if maps is None:
        return conv_weight_tensor.partial_sums(device, dy, x, z, shape)
    tiles = _tiles(tile, z.K, boxes)
    slices, length = slices_of(pixels, tiles, tile, device.sm_count)
    partial = device.empty((slices, z.K, taps, z.C), _FLOAT)
    shared = tile.stages * (tile.filters + tile.columns) * tile.depth * x.dtype.itemsize + _BESIDE
    arguments = *maps, partial, shape, length, run_of(pixels, tile)
    _WEIGHT(device, (x.dtype, *tile), (tiles, slices), *arguments, shared=shared)
    return partial


def _tiles(tile: WeightWgmmaTile, filters: int, boxes: int) -> int:
    return -(-filters // tile.filters) * -(-boxes // (tile.columns // _SIDE))
