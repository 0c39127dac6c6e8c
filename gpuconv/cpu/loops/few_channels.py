"""The gradient of an input of few channels, which fill no vector: vectors run along rows of pixels, or over phases."""

from __future__ import annotations

from functools import lru_cache
from math import prod

import numpy as np
from numba import boolean

from ...shapes import ConvSizes
from ..memory import empty_array
from ..parallel import for_each, ranges, scratch, share_out
from ..reduce import all_finite
from ..windows import Phase, Windows, phases
from .atomic import COUNTER, take
from .blocks import (
    GEOMETRY,
    MULTIPLY_SCATTERED,
    OFFSETS,
    TABLE,
    TOOLS,
    TRANSPOSE,
    as_stored,
    cut_into,
    geometry,
    panel_width,
)
from .conv import correlate
from .jit import NUMBER, PAIR, compiled_pass, read, write
from .strips import ANY_TARGET
from .tile import run_length
from .vectors import LANES, address_of, call, copy, copy_value, zero

_FLOAT32 = np.dtype(np.float32)
_BLOCK_BYTES = 256 * 1024
# Phases of a stride that are computed together, and bytes of them at a time.
_MOST_PHASES = 8
_JOINED_BYTES = 8 * 1024 * 1024


def input_gradient(dy: np.ndarray, w: np.ndarray, z: ConvSizes, dx: np.ndarray) -> None:
    """Fill dx (N, C, H, W), of few channels, one group: vectors run along rows of pixels, for channels fill none.

    With a stride, its phases side by side do.  w is finite.
    """
    swapped = w.swapaxes(0, 1)
    parts = list(phases(z))
    if 1 < len(parts) <= _MOST_PHASES and _all_phases(dy, swapped, parts, z, dx):
        return
    for phase in parts:
        target = dx[phase.pixels]
        if phase.windows is None:
            target[...] = 0
        else:
            _correlate_planes(dy, swapped[phase.taps], target, phase.windows)


def _correlate_planes(x: np.ndarray, w: np.ndarray, y: np.ndarray, windows: Windows) -> None:
    """Fill y (N, K, P, Q), of few filters, with windows of x, one apart, times filters (K, C, R, S).

    In padded planes of x, windows of all rows are one run, row ends and all.
    """
    N, K, P, Q = y.shape
    C = x.shape[1]
    filters = np.ascontiguousarray(w, np.float32).reshape(K, -1)
    across = windows.span(1, Q)[1]
    cut = cut_into(N, P, Q, 4 * (C + K), _BLOCK_BYTES)
    _, rows = cut.largest
    span = windows.span(1, 1)
    plane = -(-rows * across // (4 * LANES)) * 4 * LANES + (span[0] - 1) * across + span[1]
    steps = _plane_offsets(windows, C, plane, across)
    rows_of, terms = np.arange(K) * filters.shape[1], np.arange(filters.shape[1])
    source, last = as_stored(x)
    memory = C * plane + K * plane
    sizes = geometry(x, windows, Q, plane)

    def work(counter: np.ndarray) -> None:
        _planes(
            TOOLS, source, last, filters, y, scratch("conv", (memory,), _FLOAT32), cut.table, counter, rows_of, terms, steps, sizes,
            run_length(len(terms)),
        )  # fmt: skip

    share_out(work, len(cut.table))


@lru_cache(64)
def _plane_offsets(windows: Windows, channels: int, plane: int, across: int) -> np.ndarray:
    """Return where the taps of a window lie in planes, (channels, R, S), from its beginning."""
    c, r, s = np.ix_(np.arange(channels), np.arange(windows.R), np.arange(windows.S))
    return (c * plane + r * windows.dilation[0] * across + s * windows.dilation[1]).reshape(-1)


def _deal_out(joined: np.ndarray, dx: np.ndarray, stride: tuple[int, int]) -> None:
    """Fill dx (N, C, H, W) from its phases side by side, on all threads."""
    few = ranges(len(dx), max(1, _BLOCK_BYTES // (4 * joined[0].size)))
    for_each(lambda images: _interleave(joined[slice(*images)], dx[slice(*images)], stride), few, blas=False)


def _all_phases(dy: np.ndarray, w: np.ndarray, parts: list[Phase], z: ConvSizes, dx: np.ndarray) -> bool:
    """Fill dx by one correlation, whose outputs are its phases; return False if a product with an added 0 was NaN.

    w: (C, K, R, S).
    """
    every = [phase.windows for phase in parts if phase.windows is not None]
    if len(every) < z.stride[0] * z.stride[1] or any(windows.dilation != (1, 1) for windows in every):
        return False
    top, left = min(windows.top for windows in every), min(windows.left for windows in every)
    R = max(windows.top + windows.R for windows in every) - top
    S = max(windows.left + windows.S for windows in every) - left
    width = panel_width(len(parts) * z.C)
    room = -(-len(parts) * z.C // width) * width
    filters = np.zeros((room, z.K, R, S), np.float32)
    for i, (phase, windows) in enumerate(zip(parts, every, strict=True)):
        r, s = windows.top - top, windows.left - left
        filters[i * z.C : (i + 1) * z.C, :, r : r + windows.R, s : s + windows.S] = w[phase.taps]
    shape = -(-z.H // z.stride[0]), -(-z.W // z.stride[1]), room
    for images in ranges(z.N, max(1, _JOINED_BYTES // (4 * prod(shape)))):
        target, gradients = dx[slice(*images)], dy[slice(*images)]
        joined = empty_array((len(target), *shape), _FLOAT32)
        correlate(gradients, filters, None, joined.transpose(0, 3, 1, 2), Windows(R, S, top, left, (1, 1), (1, 1)), 1)
        _deal_out(joined, target, z.stride)
    return all_finite(dx)


@compiled_pass(
    OFFSETS,
    read(1),
    boolean,
    read(2),
    ANY_TARGET,
    write(1),
    TABLE,
    COUNTER,
    OFFSETS,
    OFFSETS,
    OFFSETS,
    GEOMETRY,
    NUMBER,
)
def _planes(tools, x, last, filters, y, memory, blocks, counter, rows_table, terms_table, steps_table, sizes, run):
    """Fill the blocks of y that the counter gives from padded planes."""
    C, H, W, top, left = sizes.C, sizes.H, sizes.W, sizes.top, sizes.left
    span, across, plane = sizes.span, sizes.across, sizes.pitch
    K, Q = y.shape[1], y.shape[3]
    terms = filters.shape[1]
    image, channel, row_step, column = y.strides
    lead, stop = min(max(0, -left), across), max(0, min(across, W - left))
    while True:
        number = take(counter)
        if number >= len(blocks):
            return
        n0, n1, p0, p1 = blocks[number]
        rows = p1 - p0
        for i in range(n0, n1):
            start, out = address_of(memory, 0), address_of(memory, C * plane)
            zero(start, (C + K) * plane)
            for r in range(rows + span - 1):
                h = top + p0 + r
                if not 0 <= h < H or lead >= stop:
                    continue
                if last:
                    row = address_of(x, ((i * H + h) * W + left + lead) * C)
                    call(tools[TRANSPOSE], (row, C, start + 4 * (r * across + lead), plane, stop - lead, C))
                else:
                    for c in range(C):
                        row = address_of(x, ((i * C + c) * H + h) * W + left + lead)
                        copy(row, start + 4 * (c * plane + r * across + lead), stop - lead)
            for q in range(0, rows * across, 4 * LANES):
                numbers = (
                    address_of(filters, 0), address_of(rows_table, 0), address_of(terms_table, 0), start + 4 * q,
                    address_of(steps_table, 0), out + 4 * q, plane, K, terms, run,
                )  # fmt: skip
                call(tools[MULTIPLY_SCATTERED], numbers)
            for k in range(K):
                for p in range(rows):
                    here, target = out + 4 * (k * plane + p * across), address_of(y, 0) + i * image + k * channel
                    for q in range(Q):
                        copy_value(here + 4 * q, target + (p0 + p) * row_step + q * column)


@compiled_pass(read(4), ANY_TARGET, PAIR)
def _interleave(phases, dx, stride):
    """Fill dx (n, C, H, W) from phases (n, at least H / sh, at least W / sw, channels): each is C channels of them."""
    n, C, H, W = dx.shape
    sh, sw = stride
    by_pixel = dx.strides[1] < dx.strides[3]
    for i in range(n):
        for h in range(H):
            row, first = phases[i, h // sh], h % sh * sw * C
            if by_pixel:
                for w in range(W):
                    for c in range(C):
                        dx[i, c, h, w] = row[w // sw, first + w % sw * C + c]
            else:
                for c in range(C):
                    for j in range(sw):
                        for q in range((W - j + sw - 1) // sw):
                            dx[i, c, h, q * sw + j] = row[q, first + j * C + c]
