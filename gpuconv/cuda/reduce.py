"""Launches of kernels/reduce.cu, and how the kernels of kernels/channels.cuh see an array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .copy import contiguous
from .device import Device, device_of
from .kernel import Kernel, cover
from .layout import in_own_format, index_type

_SUMS = Kernel("reduce.cu", "channel_sums")
_MERGE = Kernel("reduce.cu", "channel_sums_merge")
_FINITE = Kernel("reduce.cu", "all_finite")
_SQUARES = Kernel("reduce.cu", "square_sums")

_BLOCK = 256  # CHANNEL_BLOCK of kernels/channels.cuh
_VALUES = 16  # CHANNEL_VALUES
_WARP = 32
_PACK_BYTES = 16
_MERGED_BY_ONE_THREAD = 16  # chunks; more threads share a channel where there are more
_SECTOR = 8  # sums in float32 side by side that device memory gives at once
_ENOUGH_BLOCKS = 1024  # to fill a GPU: where there are more parts, a block takes several
_MOST_PARTS = 8


@dataclass(frozen=True, slots=True)
class Channels:
    """An array (N, C) or (N, C, H, W) as its kernels see it: (images, channels, pixels), and how blocks share it.

    rows: stored as rows of one pixel each (pixels = 1); else as planes of one channel each.
    """

    images: int
    channels: int
    pixels: int
    rows: bool
    pack: int  # values that a thread reads at once, V in the kernels
    lanes: int  # packs of channels side by side in a block
    part: int  # values of a channel that a block reads at once
    parts: int  # that make up a chunk: what a block adds up of a channel
    index: np.dtype

    @property
    def count(self) -> int:
        """Values per channel."""
        return self.images * self.pixels

    @property
    def chunk(self) -> int:
        """Values of a channel that a block adds up."""
        return self.part * self.parts

    @property
    def chunks(self) -> int:
        return -(-self.count // self.chunk)

    @property
    def blocks(self) -> int:
        """Blocks of a kernel that adds up chunks."""
        return _groups(self.channels, self.lanes * self.pack, rows=self.rows) * self.chunks

    @property
    def templates(self) -> tuple[Any, ...]:
        """V and CHANNELS_LAST."""
        return self.pack, self.rows

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """What kernels that add up chunks are told."""
        return self.images, self.channels, self.pixels, self.lanes, self.parts

    @property
    def merge_lanes(self) -> int:
        """Channels side by side in a block that merges chunks."""
        return max(_SECTOR, _BLOCK // min(_BLOCK, _power_of_two(-(-self.chunks // _MERGED_BY_ONE_THREAD))))

    @property
    def merge_blocks(self) -> int:
        return -(-self.channels // self.merge_lanes)

    @property
    def packs(self) -> int:
        return self.images * self.channels * self.pixels // self.pack

    @property
    def walk(self) -> tuple[int, int, int]:
        """What kernels that go through all packs are told: packs, and channels and pixels of a plane in packs."""
        if self.rows:
            return self.packs, self.channels // self.pack, 1
        return self.packs, self.channels, self.pixels // self.pack


def seen_by_channel(x: Any) -> tuple[Any, bool, Channels]:
    """Return (stored, channels_last, sizes): x without gaps in its own memory format, and how kernels see it."""
    if x.ndim == 2:
        stored, channels_last = contiguous(x), False
    else:
        stored, channels_last = in_own_format(x)
    return stored, channels_last, channels_of(x.shape, x.dtype, rows=channels_last)


def channels_of(shape: Sequence[int], dtype: np.dtype, *, rows: bool, together: int | None = None) -> Channels:
    """Return how kernels see an array (N, C) or (N, C, H, W).

    rows: its channels lie together, as those of (N, C) do.   together: pixels that are to be whole packs where they do
    not, by default all of a channel of an image
    """
    images, channels, pixels = shape[0], shape[1], prod(shape[2:])
    rows = rows or pixels == 1
    if rows:
        images, pixels = images * pixels, 1
    pack = _PACK_BYTES // dtype.itemsize
    if (channels if rows else pixels if together is None else together) % pack:
        pack = 1
    lanes = min(_WARP, _power_of_two(-(-channels // pack))) if rows else 1
    part = _BLOCK // lanes * (_VALUES // pack) * (1 if rows else pack)
    blocks = _groups(channels, lanes * pack, rows=rows) * -(-images * pixels // part)
    parts = min(_MOST_PARTS, max(1, blocks // _ENOUGH_BLOCKS))
    # Threads step beyond the end by less than one chunk of all channels before they see it.
    chunk = part * parts
    index = index_type(
        prod((images + chunk, channels, pixels)) if rows else images * channels * pixels + chunk * channels
    )
    return Channels(images, channels, pixels, rows, pack, lanes, part, parts, index)


def _groups(channels: int, together: int, *, rows: bool) -> int:
    """Return how many blocks lie side by side over the channels."""
    return -(-channels // together) if rows else channels


def sum_type(dtype: np.dtype) -> np.dtype:
    """Return Accumulator<T>::type of kernels/common.cuh."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def channel_sums_into(x: Any, out: Any) -> None:
    """Fill out, (C,) of x's dtype, with the sums of (N, C) or (N, C, H, W) over all axes but the second."""
    device = device_of(x)
    x, _, z = seen_by_channel(x)
    partial = device.empty((z.chunks, z.channels), sum_type(x.dtype))
    _SUMS(device, (x.dtype, *z.templates, z.index), z.blocks, x, partial, *z.sizes)
    merge_chunks(device, partial, out, z)


def merge_chunks(device: Device, partial: Any, out: Any, z: Channels) -> None:
    """Add up the sums of chunks, (chunks, C), into out, (C,)."""
    _MERGE(device, (out.dtype,), z.merge_blocks, partial, out, z.channels, z.chunks, z.merge_lanes)


def finite_flags(x: Any) -> Any:
    """Return whether each block's share of a C-contiguous array is finite throughout, (blocks,) bool; does not wait."""
    device = device_of(x)
    blocks = cover(device, -(-x.size * x.dtype.itemsize // _PACK_BYTES))
    flags = device.empty((blocks,), np.bool_)
    _FINITE(device, (x.dtype,), blocks, x, flags, x.size)
    return flags


def square_sums(x: Any) -> Any:
    """Return the sum of the squares of each block's share of a C-contiguous array, (blocks,) float64; does not wait."""
    device = device_of(x)
    blocks = cover(device, -(-x.size * x.dtype.itemsize // _PACK_BYTES))
    sums = device.empty((blocks,), np.float64)
    _SQUARES(device, (x.dtype,), blocks, x, sums, x.size)
    return sums


def all_finite(x: Any) -> bool:
    """Return whether no element of a C-contiguous array is NaN or infinite.  Reads the answer: waits for the GPU."""
    return bool(device_of(x).asnumpy(finite_flags(x)).all())


def _power_of_two(least: int) -> int:
    """Return the smallest power of 2 that is at least this."""
    return 1 << max(0, least - 1).bit_length()
