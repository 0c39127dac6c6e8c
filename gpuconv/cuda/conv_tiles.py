"""Tiles of the tiled convolutions: which there are, and which one a call takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..shapes import ConvSizes, VolumeConvSizes
from .device import Device


class Tile(NamedTuple):
    """Template arguments of a tiled correlation: what a block makes, what a thread makes, inner rows for each step."""

    pixels: int
    filters: int
    height: int
    width: int
    depth: int


LARGE = Tile(128, 128, 8, 8, 8)
SLIM = Tile(128, 64, 8, 4, 8)
NARROW = Tile(256, 32, 8, 4, 8)
SMALL = Tile(64, 64, 4, 4, 16)


class WeightTile(NamedTuple):
    """Template arguments of a tiled weight gradient: what a block makes, what a thread makes, pixels for each step."""

    filters: int
    columns: int
    height: int
    width: int
    depth: int


LARGE_WEIGHT = WeightTile(128, 128, 8, 8, 8)
FLAT_WEIGHT = WeightTile(64, 128, 4, 8, 16)
SMALL_WEIGHT = WeightTile(64, 64, 4, 4, 16)

# What a tile can reach of a multiprocessor's rate of multiply-adds: by the machine code for compute capability 9.0, of
# float32 and channels-last, which tests/ladder/hot_loops.json has.
SHARES = {LARGE: 0.89, SLIM: 0.83, NARROW: 0.78, SMALL: 0.79}
WEIGHT_SHARES = {LARGE_WEIGHT: 0.85, FLAT_WEIGHT: 0.81, SMALL_WEIGHT: 0.73}
_AT_ONCE = 2  # blocks that a multiprocessor has room for
KEPT = {1: 0.50, 2: 0.75}  # of its rate, by the blocks it works on: an estimate


def tile_of(
    device: Device, dtype: np.dtype, *, pixels: int, columns: int, inner: int, products: int = 1, large: bool = True
) -> Tile:
    """Return the tile with which so many products of matrices, pixels x inner by inner x columns, should take least.

    The blocks are dealt out to the multiprocessors.  The one that gets most works on as many of them at once as there
    is room for, and then on what is left.  No result depends on it: every sum is added up in the same order.
    large: what holds_large says.
    """
    if dtype == np.float64:
        return SMALL  # a larger one would need more registers than there are

    def cost(tile: Tile) -> float:
        blocks = -(-pixels // tile.pixels) * -(-columns // tile.filters) * products
        rounds, rest = divmod(-(-blocks // device.sm_count), _AT_ONCE)
        time = rounds * _AT_ONCE / KEPT[_AT_ONCE] + (rest / KEPT[rest] if rest else 0)
        return time * tile.pixels * tile.filters * -(-inner // tile.depth) * tile.depth / SHARES[tile]

    tiles = (SLIM, NARROW, SMALL)
    return min((LARGE, *tiles) if large else tiles, key=cost)


def holds_large(
    device: Device, images: Any, z: ConvSizes | VolumeConvSizes, inner: int, *, channels_last: bool
) -> bool:
    """True if ptxas finds registers for 128 x 128 without spilling: in packs, or channels first without halves of volumes."""
    if channels_last:
        return packs(device, images, inner, LARGE.depth, channels_last=True)
    return isinstance(z, ConvSizes) or images.dtype == np.float32


def weight_tile_of(filters: int, columns: int, dtype: np.dtype, volumes: bool) -> WeightTile:
    """Return the tile of the weight gradient for so many filters and columns: by these alone, as are its slices."""
    if dtype == np.float64:
        return SMALL_WEIGHT

    def cost(tile: WeightTile) -> float:
        whole = -(-filters // tile.filters) * tile.filters * -(-columns // tile.columns) * tile.columns
        return whole / WEIGHT_SHARES[tile]

    tiles = (FLAT_WEIGHT, SMALL_WEIGHT)  # a large one has registers enough for images of float32 alone
    return min(tiles if volumes or dtype != np.float32 else (LARGE_WEIGHT, *tiles), key=cost)


def packs(device: Device, images: Any, channels: int, step: int, *, channels_last: bool) -> bool:
    """True if the channels of a group can be read in packs of 4, `step` of them at a time: a view may start anywhere."""
    if not channels_last or channels % step or images.dtype == np.float64:
        return False
    return device.is_aligned(images, 4 * images.dtype.itemsize)
