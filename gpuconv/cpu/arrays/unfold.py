"""Unfold the windows of a block of pixels into the rows of a matrix (im2col).

Two orders of unfolding: channels last, where a window's row is contiguous runs of S C values, and planar, where a
tap's row is contiguous runs of Q pixels.  The longer run wins: copies of short runs cost more than the products.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ...shapes import is_channels_last
from ..layout import accumulator
from ..parallel import scratch
from ..windows import Block, Windows

# Elements added to a row in staging, so that rows a power of two apart do not share cache sets.
_STAGGER = 16


def prefers_planar(x: np.ndarray, windows: Windows, Q: int) -> bool:
    """True where planar unfolding copies longer runs than channels-last, or need not copy at all."""
    longer = windows.stride[1] == 1 and x.shape[1] * windows.S < Q and x.shape[1] <= 8
    return not is_channels_last(x) and (longer or windows.one_pixel())


def strip(x: np.ndarray, block: Block, windows: Windows, Q: int) -> np.ndarray:
    """Return the pixels under a block's windows, channels last: (n, rows, columns, C), zeros outside x."""
    kind = accumulator(x.dtype)
    part = x[block.n0 : block.n1]
    top = windows.top + block.p0 * windows.stride[0]
    height, width = windows.span(block.p1 - block.p0, Q)
    inside, place, whole = _overlap(part.shape[2:], top, windows.left, height, width)
    source = part[:, :, inside[0], inside[1]]
    turned = source.transpose(0, 2, 3, 1)
    if whole and x.dtype == kind and turned.strides[3] == turned.itemsize and turned.strides[2] > 0:
        return turned
    pixels = scratch("strip", (part.shape[0], height, width, part.shape[1]), kind)
    if not whole:
        pixels.fill(0)
    target = pixels[:, place[0], place[1]]
    if source.size and source.strides[3] == source.itemsize and source.shape[1] >= 8:
        # Planes first to rows a little apart: read across planes 2^k bytes apart, they would evict each other.
        n, C, rows, columns = source.shape
        staged = scratch("staged", (n, C, rows * columns + _STAGGER), kind)[:, :, : rows * columns]
        staged = staged.reshape(n, C, rows, columns)
        np.copyto(staged, source)
        source = staged
    np.copyto(target, source.transpose(0, 2, 3, 1))
    return pixels


def unfold(x: np.ndarray, block: Block, windows: Windows, Q: int, groups: int) -> np.ndarray:
    """Return a block's windows as rows: (groups, pixels, R S C / groups), in the accumulator's dtype."""
    pixels = strip(x, block, windows, Q)
    n, rows, C = pixels.shape[0], block.p1 - block.p0, pixels.shape[3]
    if windows.one_pixel() and groups == 1 and pixels.flags.c_contiguous:
        return pixels.reshape(1, -1, C)
    a, b, c, d = pixels.strides
    (sh, sw), (dh, dw) = windows.stride, windows.dilation
    view = as_strided(
        pixels,
        (groups, n, rows, Q, windows.R, windows.S, C // groups),
        (C // groups * d, a, b * sh, c * sw, b * dh, c * dw, d),
        writeable=False,
    )
    matrix = scratch("unfolded", view.shape, pixels.dtype)
    np.copyto(matrix, view)
    return matrix.reshape(groups, n * rows * Q, -1)


def unfold_planar(x: np.ndarray, block: Block, windows: Windows, Q: int) -> np.ndarray:
    """Return a block's windows as columns: (n, C R S, pixels), in the accumulator's dtype."""
    kind = accumulator(x.dtype)
    part = x[block.n0 : block.n1]
    n, C = part.shape[:2]
    rows = block.p1 - block.p0
    top = windows.top + block.p0 * windows.stride[0]
    height, width = windows.span(rows, Q)
    inside, place, whole = _overlap(part.shape[2:], top, windows.left, height, width)
    pixels = part[:, :, inside[0], inside[1]]
    if not (whole and x.dtype == kind):
        padded = scratch("strip", (n, C, height, width), kind)
        if not whole:
            padded.fill(0)
        np.copyto(padded[:, :, place[0], place[1]], pixels)
        pixels = padded
    if windows.one_pixel():
        return pixels.reshape(n, C, -1)
    a, b, c, d = pixels.strides
    (sh, sw), (dh, dw) = windows.stride, windows.dilation
    view = as_strided(
        pixels,
        (n, C, windows.R, windows.S, rows, Q),
        (a, b, c * dh, d * dw, c * sh, d * sw),
        writeable=False,
    )
    matrix = scratch("unfolded", view.shape, kind)
    np.copyto(matrix, view)
    return matrix.reshape(n, -1, rows * Q)


def _overlap(
    size: tuple[int, ...], top: int, left: int, height: int, width: int
) -> tuple[tuple[slice, slice], tuple[slice, slice], bool]:
    """Return which part of an image lies under a frame, where in the frame it lies, and whether it fills the frame."""
    (y0, y1, v0, v1), (x0, x1, u0, u1) = (
        _clip(size[0], top, height),
        _clip(size[1], left, width),
    )
    whole = (v1 - v0, u1 - u0) == (height, width)
    return (slice(y0, y1), slice(x0, x1)), (slice(v0, v1), slice(u0, u1)), whole


def _clip(size: int, start: int, length: int) -> tuple[int, int, int, int]:
    first = min(max(start, 0), size)
    last = max(min(start + length, size), first)
    if first == last:
        return first, first, 0, 0
    return first, last, first - start, last - start


def contiguous(kind: np.dtype, slot: str, part: np.ndarray) -> np.ndarray:
    """Return part itself if it is contiguous and of the given dtype, else a copy that is, in scratch memory."""
    if part.dtype == kind and part.flags.c_contiguous:
        return part
    copy = scratch(slot, part.shape, kind)
    np.copyto(copy, part)
    return copy


def as_matrices(part: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Return (n, K, p, Q) as (n, K, pixels) of the given dtype, without a copy for either memory format."""
    n, K = part.shape[:2]
    last = part.transpose(0, 2, 3, 1)
    if part.dtype == kind and last[0].flags.c_contiguous:
        return last.reshape(n, -1, K).transpose(0, 2, 1)
    if part.dtype == kind and part[0, 0].flags.c_contiguous:
        return part.reshape(n, K, -1)
    return contiguous(kind, "gradient", part).reshape(n, K, -1)
