"""Launches of the gradient of a convolution's filters on tensor cores: tiles, slices of the pixels, runs of sums."""

from __future__ import annotations

import dataclasses
import functools
from math import isqrt, prod
from typing import Any, NamedTuple

import numpy as np

from ..shapes import ConvSizes
from .conv_tensor import LEAST_ARCH, chunk_of, reads
from .device import Device
from .kernel import Kernel

_WEIGHT = Kernel("conv_weight_tensor.cu", "conv_backward_weight_tensor", block=128, least_arch=LEAST_ARCH)

CHUNK = chunk_of(np.dtype(np.float16))
_FLOAT = np.dtype(np.float32)
_LARGEST_REACH = 2**15 - 1  # row or column of a padded image, of which a register holds two
_BLOCKS_PER_SM = 2  # by their registers
_MOST_WAVES = 4  # of blocks; more slices than that cost more than they spread

# The longest run of one accumulator, in square roots of the number of terms: tensor cores cut off, so a run of n terms is
# off by up to n / 2 units where they are alike, and the tolerance rule allows 2 sqrt(n) of all terms.
_LONGEST_RUN = 4
_LEAST_RUN = 64


class WeightTensorTile(NamedTuple):
    """Template arguments: filters and columns of a block, warps that share the pixels of the same sums, depth, stages."""

    filters: int
    columns: int
    shares: int
    depth: int
    stages: int


LARGE = WeightTensorTile(128, 128, 1, 32, 4)
FLAT = WeightTensorTile(64, 128, 2, 64, 3)
TALL = WeightTensorTile(128, 64, 2, 64, 3)
SMALL = WeightTensorTile(64, 64, 4, 64, 3)

# Of a block and 32 pixels, in cycles of a multiprocessor of sm_90: passes over shared memory, or products on the tensor
# cores where these take longer (tests/ladder/tensor_loops.json).
_CYCLES = {LARGE: 416, FLAT: 240, TALL: 232, SMALL: 136}
_CYCLES_OF_SUMS = 2600  # to write a block's 64 KB, at 25 bytes a cycle of one multiprocessor
_CYCLES_OF_MEMORY = 52  # to write and to read them, at 2500 bytes a cycle of all together


def serves(z: ConvSizes, dtype: np.dtype, arch: int) -> bool:
    """True if tensor cores of this compute capability can make the gradient of such filters."""
    whole = z.groups == 1 or (z.K // z.groups) % CHUNK == 0
    spread = zip(z.padded, z.dilation, z.window, strict=True)
    reach = max(size + dilation * taps for size, dilation, taps in spread)
    return (
        dtype.itemsize == 2
        and arch >= LEAST_ARCH
        and whole
        and reach <= _LARGEST_REACH
        and reads(z, z.C // z.groups, dtype)
    )


def tile_of(filters: int, columns: int) -> WeightTensorTile:
    """Return the tile that makes so many filters and columns in the fewest cycles."""
    return min(_CYCLES, key=lambda tile: _tiles(tile, filters, columns) * _CYCLES[tile])


@functools.lru_cache(maxsize=1024)
def slices_of(pixels: int, tiles: int, tile: WeightTensorTile, sm_count: int) -> tuple[int, int]:
    """Return (number of slices, pixels in each), whole steps, that keep so many multiprocessors busy for the least time."""
    steps, at_once = max(1, -(-pixels // tile.depth)), _BLOCKS_PER_SM * sm_count
    of_step = _CYCLES[tile] * tile.depth // 32

    def time(slices: int) -> int:
        rounds = -(-tiles * slices // at_once)
        return rounds * (-(-steps // slices) * of_step + _CYCLES_OF_SUMS) + slices * tiles * _CYCLES_OF_MEMORY

    length = -(-steps // min(range(1, min(steps, max(1, _MOST_WAVES * at_once // tiles)) + 1), key=time))
    return -(-steps // length), length * tile.depth


def run_of(pixels: int, tile: WeightTensorTile) -> int:
    """Return after how many pixels a block adds its sums to those in memory: whole steps."""
    run = tile.shares * max(_LEAST_RUN, _LONGEST_RUN * isqrt(pixels))
    return run // tile.depth * tile.depth


def partial_sums(device: Device, dy: Any, x: Any, z: ConvSizes, shape: np.void) -> Any:
    """Return sums over slices of the pixels, float32 (slices, K, R S, C / groups).

    dy, x: images as in_chunks has them; z, shape: their sizes, K and C as they are stored
    """
    filters, columns, pixels = z.K // z.groups, prod(z.window) * (z.C // z.groups), z.N * z.P * z.Q
    tile = tile_of(filters, columns)
    tiles = _tiles(tile, filters, columns) * z.groups
    slices, length = slices_of(pixels, tiles, tile, device.sm_count)
    partial = device.empty((slices * tile.shares, z.K, prod(z.window), z.C // z.groups), _FLOAT)
    run = min(run_of(pixels, tile), length)
    shared = tile.stages * (tile.filters + tile.columns) * tile.depth * x.dtype.itemsize
    _WEIGHT(device, (x.dtype, *tile), (tiles, slices), dy, x, partial, shape, length, run, shared=shared)
    return partial


def padded(z: ConvSizes) -> ConvSizes:
    """Return sizes with K and C as in_chunks stores them."""
    if z.groups > 1:
        return z
    K, C = (-(-n // CHUNK) * CHUNK for n in (z.K, z.C))
    return dataclasses.replace(z, K=K, C=C)


def _tiles(tile: WeightTensorTile, filters: int, columns: int) -> int:
    return -(-filters // tile.filters) * -(-columns // tile.columns)
