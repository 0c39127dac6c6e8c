"""How convolutions are cut into blocks, where pixels and taps lie in them, and what their passes call by address."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np
from numba import int64, types

from ...shapes import is_channels_last
from ..layout import stored
from ..memory import empty_array
from ..windows import Block, Windows, blocks
from .jit import read
from .strips import empty, fill, transpose_rows
from .tile import WIDTH, multiply, multiply_scattered
from .vectors import LANES

# Partial sums of the gradient of the filters: their number depends on sizes alone, so the order never changes.
_PARTIAL_SUMS = 8
_PARTIAL_BYTES = 16 * 1024 * 1024
# Pixels so many channels apart, or a multiple, share few cache sets: in scratch memory they are a line further apart.
_CONFLICT, LINE = 64, 16
# A result of so many bytes would not stay in the last cache.
LARGE_BYTES = 32 * 1024 * 1024

TOOLS = np.array([multiply, multiply_scattered, fill, empty, transpose_rows], np.int64)
MULTIPLY, MULTIPLY_SCATTERED, FILL, EMPTY, TRANSPOSE = range(5)


class Geometry(NamedTuple):
    """Sizes that passes need: of the images of x, of windows over them, and of memory."""

    C: int
    H: int
    W: int
    sh: int
    sw: int
    top: int
    left: int
    span: int  # rows of pixels under a window
    across: int  # columns of pixels under a row of windows
    pitch: int  # from pixel to pixel, or from plane to plane, in scratch memory


def geometry(x: np.ndarray, windows: Windows, Q: int, pitch: int) -> Geometry:
    """Return the sizes of Q windows side by side over x."""
    span, across = windows.span(1, 1)[0], windows.span(1, Q)[1]
    C, H, W = x.shape[1:]
    return Geometry(C, H, W, *windows.stride, windows.top, windows.left, span, across, pitch)


# Types of the passes' arguments.
GEOMETRY = types.NamedUniTuple(types.intp, len(Geometry._fields), Geometry)
OFFSETS, TABLE = read(1, int64), read(2, int64)


class Cut(NamedTuple):
    """How a batch is cut: a table of blocks (n0, n1, p0, p1), and the images and rows of the largest."""

    pieces: list[Block]
    table: np.ndarray
    largest: tuple[int, int]


def listed(pieces: list[Block]) -> Cut:
    """Return blocks, whole images or rows of one, as a table."""
    table = np.array([(block.n0, block.n1, block.p0, block.p1) for block in pieces], np.int64).reshape(-1, 4)
    images, rows = ((table[:, i + 1] - table[:, i]).max(initial=0) for i in (0, 2))
    return Cut(pieces, table, (int(images), int(rows)))


@lru_cache(64)  # a list of some hundred blocks takes as long as a small convolution
def cut_into(N: int, P: int, Q: int, window_bytes: int, budget: int, most_rows: int | None = None) -> Cut:
    """Return N images of P x Q windows cut into blocks of so many bytes, and so many rows at most."""
    return listed(blocks(N, P, Q, window_bytes, budget, most_rows))


def as_stored(x: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return x flat, in its order of storage (a copy if it has gaps), and whether that is channels last."""
    (source,) = stored(x, x)
    return source.reshape(-1), is_channels_last(x)


def is_direct(y: np.ndarray, room: int) -> bool:
    """Return whether y (N, K, P, Q) is stored (N, P, Q, K) without gaps, and K is `room`."""
    return y.transpose(0, 2, 3, 1).flags.c_contiguous and y.shape[1] == room


def in_planes(y: np.ndarray) -> bool:
    """Return whether each plane of y (N, K, P, Q) is stored without gaps, row after row."""
    return y.strides[2:] == (y.shape[3] * y.itemsize, y.itemsize)


def panel_width(K: int) -> int:
    """Return the width of a panel of K filters: two vectors, or one where that wastes less."""
    return WIDTH if K > LANES and (K > 2 * WIDTH or -(-K // LANES) % 2 == 0) else LANES


def panels(w: np.ndarray, groups: int) -> np.ndarray:
    """Return filters (K, C / groups, R, S) as (groups, panels, R S C / groups, width), filled up with zeros."""
    K, C = w.shape[0] // groups, w.shape[1]
    width = panel_width(K)
    count = -(-K // width)
    matrix = np.zeros((groups, w[0].size, count * width), np.float32)
    matrix.reshape(groups, *w.shape[2:], C, -1)[..., :K] = w.reshape(groups, K, *w.shape[1:]).transpose(0, 3, 4, 2, 1)
    return np.ascontiguousarray(matrix.reshape(groups, -1, count, width).swapaxes(1, 2))


def apart(channels: int) -> int:
    """Return how far apart pixels of so many channels lie best."""
    return channels + LINE if channels % _CONFLICT == 0 else channels


def in_shares(cut: Cut, shape: tuple[int, ...]) -> tuple[int, np.ndarray]:
    """Return how many blocks make a share, by sizes alone, and uninitialised memory for a sum of each share."""
    count = min(_PARTIAL_SUMS, max(1, _PARTIAL_BYTES // (4 * prod(shape))))
    size = -(-max(1, len(cut.table)) // count)
    return size, empty_array((-(-len(cut.table) // size), *shape), np.float32)


@lru_cache(64)
def window_offsets(
    images: int, rows: int, Q: int, stride: tuple[int, int], frame: tuple[int, int], pitch: int
) -> np.ndarray:
    """Return where windows begin, in images of frame[0] x frame[1] pixels of `pitch` values."""
    i, p, q = np.ix_(np.arange(images), np.arange(rows), np.arange(Q))
    return (((i * frame[0] + p * stride[0]) * frame[1] + q * stride[1]) * pitch).reshape(-1).astype(np.int64)


@lru_cache(64)
def term_offsets(windows: Windows, channels: int, width: int, pitch: int) -> np.ndarray:
    """Return where the taps of a window lie, (R, S, channels), from its beginning."""
    r, s, c = np.ix_(np.arange(windows.R), np.arange(windows.S), np.arange(channels))
    offsets = (r * windows.dilation[0] * width + s * windows.dilation[1]) * pitch + c
    return offsets.reshape(-1).astype(np.int64)
