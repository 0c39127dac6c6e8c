"""All phases of a stride together: pixels are brought into scratch memory once, results leave it side by side.

A phase is a convolution whose outputs lie a stride apart (see windows.py).  Done one after another, each would read all
of x, and write to every line of y.
"""

from __future__ import annotations

import numpy as np
from numba import boolean

from ..parallel import scratch, share_out
from ..windows import Phase
from .atomic import COUNTER, take
from .blocks import (
    EMPTY,
    FILL,
    GEOMETRY,
    LARGE_BYTES,
    LINE,
    MULTIPLY,
    OFFSETS,
    TABLE,
    TOOLS,
    Geometry,
    as_stored,
    cut_into,
    in_planes,
    is_direct,
    panels,
    term_offsets,
)
from .jit import compiled_pass, read, write
from .strips import ANY_TARGET
from .tile import run_length
from .vectors import LANES, address_of, call, stream

_FLOAT32 = np.dtype(np.float32)
_BLOCK_BYTES = 256 * 1024


def correlate(
    x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, y: np.ndarray, parts: list[Phase], groups: int
) -> None:
    """Fill y (N, K, P, Q) with bias and, phase by phase, windows of x times their taps of filters w (K, C / groups, R, S)."""
    N, K, P, Q = y.shape
    C, H, W = x.shape[1:]
    every = [phase.windows for phase in parts if phase.windows is not None]
    pixels = [phase.pixels[2:] for phase in parts]
    sh, sw = (axis.step for axis in pixels[0])
    rows, columns = -(-P // sh), -(-Q // sw)
    top, left = min(windows.top for windows in every), min(windows.left for windows in every)
    span = max(windows.top + windows.span(1, 1)[0] for windows in every) - top
    across = max(windows.left + windows.span(1, columns)[1] for windows in every) - left
    source, last = as_stored(x)
    inside = last and min(top, left) >= 0 and top + rows - 1 + span <= H and left + across <= W
    width = W if inside else across
    filters = [panels(w[phase.taps], groups) for phase in parts]
    room = filters[0].shape[1] * filters[0].shape[3]
    terms = [term_offsets(windows, C // groups, width, C) for windows in every]
    counts, sizes_of_filters = [len(offsets) for offsets in terms], [taps.size for taps in filters]
    table = np.empty((len(parts), 8), np.int64)  # see _correlate
    table[:, :2] = [[axis.start for axis in place] for place in pixels]
    table[:, 2:4] = [(windows.top - top, windows.left - left) for windows in every]
    table[:, 4], table[:, 5] = counts, [run_length(count) for count in counts]
    table[:, 6], table[:, 7] = _starts(sizes_of_filters), _starts(counts)
    biases = np.zeros((groups, room), np.float32)
    if bias is not None:
        biases[:, : K // groups] = bias.reshape(groups, -1)
    direct, planes = is_direct(y, groups * room), in_planes(y)
    cut = cut_into(N, rows, columns, 4 * (C + sh * sw * groups * room), _BLOCK_BYTES)
    images, most = cut.largest
    strip = 0 if inside else images * (most - 1 + span) * width * C
    memory = strip + images * most * sh * Q * groups * room + (0 if last else C * H * W) + 3 * LINE
    sizes = Geometry(C, H, W, sh, sw, top, left, span, width, filters[0].shape[3])
    large = direct and y.nbytes >= LARGE_BYTES and y.ctypes.data % 64 == 0
    flat, offsets = np.concatenate([taps.reshape(-1) for taps in filters]), np.concatenate(terms)
    window_table = np.arange(columns) * C

    def work(counter: np.ndarray) -> None:
        _correlate(
            TOOLS, source, last, inside, flat, biases, direct, planes, y, large, scratch("conv", (memory,), _FLOAT32),
            cut.table, counter, table, window_table, offsets, sizes,
        )  # fmt: skip

    share_out(work, len(cut.table))


def _starts(lengths: list[int]) -> np.ndarray:
    """Return where pieces of these lengths begin, one after another."""
    return np.cumsum([0, *lengths[:-1]])


@compiled_pass(
    OFFSETS, read(1), boolean, boolean, read(1), read(2), boolean, boolean, ANY_TARGET, boolean, write(1), TABLE, COUNTER, TABLE,
    OFFSETS, OFFSETS, GEOMETRY,
)  # fmt: skip
def _correlate(
    tools, x, last, inside, filters, bias, direct, planes, y, large, memory, blocks, counter, phases, window_table,
    term_table, sizes,
):  # fmt: skip
    """Fill the blocks of y that the counter gives, phase by phase and row by row; large: write past the caches.

    A phase is its first row and column in y, the pixel where its first window begins, in the strip, the number of its
    terms and how many of them are a run, and where its filters and the offsets of its terms begin.
    """
    C, H, W, sh, sw, top, left = sizes.C, sizes.H, sizes.W, sizes.sh, sizes.sw, sizes.top, sizes.left
    span, width, panel = sizes.span, sizes.across, sizes.pitch
    K, P, Q = y.shape[1:]
    groups, room = bias.shape
    everything = groups * room
    image, channel, row, column = y.strides
    while True:
        number = take(counter)
        if number >= len(blocks):
            return
        n0, n1, p0, p1 = blocks[number]
        n, h = n1 - n0, p1 - p0 - 1 + span
        first, rows = p0 * sh, min(p1 * sh, P) - p0 * sh
        size = 0 if inside else n * h * width * C
        start = address_of(memory, 0)
        out = start + -(-size // LANES) * LANES * 4
        height = h
        if inside:
            start, height = address_of(x, ((n0 * H + top + p0) * W + left) * C), H
        else:
            turned = out + 4 * n * rows * Q * everything
            call(
                tools[FILL],
                (address_of(x, n0 * C * H * W), last, C, H, W, n, start, h, width, C, top + p0, left, turned),
            )
        result = address_of(y, (n0 * P + first) * Q * K)
        target = result if direct and not large else out
        between = P if direct and not large else rows
        for phase in range(len(phases)):
            i, j, down, right, terms, run, place, offset = phases[phase]
            few = (Q - j + sw - 1) // sw
            for m in range(n):
                for p in range((rows - i + sh - 1) // sh):
                    pixels = start + 4 * ((m * height + down + p) * width + right) * C
                    here = target + 4 * ((m * between + p * sh + i) * Q + j) * everything
                    for g in range(groups):
                        numbers = (
                            pixels + 4 * g * (C // groups), address_of(window_table, 0), address_of(term_table, offset),
                            address_of(filters, place + g * room * terms), terms * panel, panel, here + 4 * g * room,
                            sw * everything, few, terms, room // panel, panel // LANES, run,
                            address_of(bias, g * room), 0,
                        )  # fmt: skip
                        call(tools[MULTIPLY], numbers)
        if large:
            stream(out, result, n * rows * Q * K)
        elif not direct:
            for g in range(groups):
                channels = K // groups
                here = address_of(y, 0) + n0 * image + g * channels * channel + first * row
                placed = (here, image, channel, row, column, rows, Q)
                call(tools[EMPTY], (out + 4 * g * room, n, everything, rows, Q, channels, planes, *placed))
