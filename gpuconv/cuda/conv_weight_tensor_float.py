"""Launches of the weight gradient of float32 on tensor cores: its tiles, and the slices that its pixels are cut in."""

from __future__ import annotations

from math import isqrt, prod
from typing import Any, NamedTuple

import numpy as np

from ..shapes import ConvSizes
from .conv_tensor import LEAST_ARCH, reads
from .device import Device
from .kernel import Kernel

_KERNEL = Kernel("conv_weight_tensor_float.cu", "conv_backward_weight_tensor_float", block=128, least_arch=LEAST_ARCH)

_CHUNK = 4  # numbers in 16 bytes; a pixel's line in shared memory is so much longer than its tile

_MOST_PIXELS = 2**28  # of all images, which are counted in 32 bits with room to spare
_LEAST_PIXELS = 256  # of a slice, and of all images, so that the tensor cores have something to do
_ENOUGH_BLOCKS = 512

# The longest slice.  One product for each: what tensor cores cut off a sum is below what one rounded factor may be off by.
# Three: a slice is a row of steps, in which equal terms are off by up to a quarter of its length in units; it is at most
# so many square roots of the number of pixels, of which the tolerance rule allows 2.
_LONGEST_OF_ONE_PRODUCT = 2**13
_LONGEST_RUN = 6


class WeightTensorTile(NamedTuple):
    """Template arguments: what a block makes, what a warp makes, pixels for each step, steps under way."""

    filters: int
    columns: int
    warp_filters: int
    warp_columns: int
    depth: int
    stages: int


LARGE = WeightTensorTile(128, 128, 64, 64, 16, 4)
SLIM = WeightTensorTile(128, 64, 64, 32, 16, 4)
FLAT = WeightTensorTile(64, 128, 32, 64, 16, 4)
SMALL = WeightTensorTile(64, 64, 32, 32, 16, 4)


def takes(z: ConvSizes, products: int) -> bool:
    """True if tensor cores, by so many products for each of float32, can add up the pixels of such images."""
    dtype = np.dtype(np.float32)
    whole = all(reads(z, channels // z.groups, dtype) for channels in (z.C, z.K))
    return products > 0 and whole and _LEAST_PIXELS <= z.N * z.P * z.Q < _MOST_PIXELS


def tile_of(filters: int, columns: int, products: int) -> WeightTensorTile:
    """Return the tile for so many filters and columns; three products keep two sums of each result."""
    if filters <= SMALL.filters:
        return SMALL if columns <= SMALL.columns else FLAT
    return SLIM if products == 3 or columns <= SLIM.columns else LARGE


def partial_sums(device: Device, dy: Any, x: Any, z: ConvSizes, shape: np.void, products: int) -> Any:
    """Return sums over slices of the pixels, float32 (slices, K, R S, C / groups).

    dy, x: images as in_chunks has them, of float32
    """
    filters, channels = z.K // z.groups, z.C // z.groups
    columns = prod(z.window) * -(-channels // _CHUNK) * _CHUNK
    tile = tile_of(filters, columns, products)
    tiles = -(-filters // tile.filters) * -(-columns // tile.columns) * z.groups
    slices, length = slices_of(z.N * z.P * z.Q, tiles, tile.depth, products)
    partial = device.empty((slices, z.K, prod(z.window), channels), x.dtype)
    shared = tile.stages * tile.depth * (tile.filters + tile.columns + 2 * _CHUNK) * x.dtype.itemsize
    _KERNEL(device, (products, *tile), (tiles, slices), dy, x, partial, shape, length, shared=shared)
    return partial


def slices_of(pixels: int, tiles: int, depth: int, products: int) -> tuple[int, int]:
    """Return (number of slices, pixels in each), whole steps, for so many tiles of dw."""
    pixels = max(1, pixels)
    longest = _LONGEST_OF_ONE_PRODUCT if products == 1 else depth * _LONGEST_RUN * isqrt(pixels)
    wanted = max(1, min(_ENOUGH_BLOCKS // tiles, pixels // _LEAST_PIXELS), -(-pixels // longest))
    length = -(-pixels // (wanted * depth)) * depth
    return -(-pixels // length), length
