"""Convolution without unfolding: products of pixels that lie in a strip, or where they always lay (see tile.py).

A block of windows stays in the L2 cache together with its pixels, and is one product.  Stride, dilation and groups are
tables of offsets.  Filters are packed in panels, as wide as a tile.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numba import boolean

from ..layout import stored
from ..parallel import scratch, share_out
from ..windows import Block, Windows
from .atomic import COUNTER, blocks, take
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
    apart,
    as_stored,
    cut_into,
    geometry,
    in_planes,
    in_shares,
    is_direct,
    listed,
    panel_width,
    panels,
    term_offsets,
    window_offsets,
)
from .jit import NUMBER, TRIPLE, compiled_pass, read, write
from .strips import ANY_TARGET
from .tile import WIDTH, run_length
from .vectors import LANES, address_of, call, stream

_FLOAT32 = np.dtype(np.float32)
_BLOCK_BYTES = 256 * 1024
# The longest run of windows in the gradient of the filters: the L1 cache has to hold their pixels and their gradients.
_LONGEST_RUN = 128


def correlate(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    windows: Windows,
    groups: int,
    pieces: list[Block] | None = None,
) -> None:
    """Fill y (N, K, P, Q), or those blocks of it, with bias and windows of x times filters (K, C / groups, R, S)."""
    N, K, P, Q = y.shape
    C, H, W = x.shape[1:]
    filters = panels(w, groups)
    room = filters.shape[1] * filters.shape[3]
    biases = np.zeros((groups, room), np.float32)
    if bias is not None:
        biases[:, : K // groups] = bias.reshape(groups, -1)
    source, last = as_stored(x)
    direct, planes = is_direct(y, groups * room), in_planes(y)
    height, across = windows.span(P, Q)
    inside = last and min(windows.top, windows.left) >= 0 and windows.top + height <= H and windows.left + across <= W
    window_bytes = 4 * (C * windows.stride[0] * windows.stride[1] + groups * room)
    cut = listed(pieces) if pieces is not None else cut_into(N, P, Q, window_bytes, _BLOCK_BYTES)
    images, rows = cut.largest
    frame = (H, W) if inside else (windows.span(rows, Q)[0], across)
    strip = 0 if inside else images * prod(frame) * C
    memory = strip + images * rows * Q * groups * room + (0 if last else C * H * W) + 3 * LINE
    window_table = window_offsets(images, rows, Q, windows.stride, frame, C)
    term_table = term_offsets(windows, C // groups, frame[1], C)
    sizes = geometry(x, windows, Q, C)
    large = direct and y.nbytes >= LARGE_BYTES and y.ctypes.data % 64 == 0

    def work(counter: np.ndarray) -> None:
        _correlate(
            TOOLS, source, last, inside, filters, biases, direct, planes, y, large,
            scratch("conv", (memory,), _FLOAT32), cut.table, counter, window_table, term_table, sizes,
            run_length(len(term_table)),
        )  # fmt: skip

    share_out(work, len(cut.table))


def weight_gradient(dy: np.ndarray, x: np.ndarray, w: np.ndarray, windows: Windows, groups: int) -> np.ndarray:
    """Return the gradient of the filters (K, C / groups, R, S)."""
    N, K, P, Q = dy.shape
    C, H, W = x.shape[1:]
    width = panel_width(K // groups)
    room = -(-K // groups // width) * width
    zeros = np.zeros(room, np.float32)
    source, last = as_stored(x)
    gradient = stored(x, dy)[0].reshape(-1)
    across = windows.span(1, Q)[1]
    cut = cut_into(N, P, Q, 4 * (C * windows.stride[0] * windows.stride[1] + K), _BLOCK_BYTES)
    images, rows = cut.largest
    frame, pitch = (windows.span(rows, Q)[0], across), apart(C)
    gradient_pitch = apart(K)
    share, sums = in_shares(cut, (groups, windows.R * windows.S * C // groups, room))
    memory = images * (prod(frame) * pitch + rows * Q * gradient_pitch) + (0 if last else max(C * H * W, K * P * Q))
    memory += 3 * LINE + WIDTH
    window_table = window_offsets(images, rows, Q, windows.stride, frame, pitch)
    term_table = term_offsets(windows, C // groups, across, pitch)
    sizes = geometry(x, windows, Q, pitch)

    def work(counter: np.ndarray) -> None:
        _add_weight_gradient(
            TOOLS, source, gradient, last, sums, zeros, scratch("conv", (memory,), _FLOAT32), cut.table,
            counter, share, window_table, term_table, sizes, (K, P, Q), gradient_pitch, width,
            min(_LONGEST_RUN, run_length(N * P * Q)),
        )  # fmt: skip

    share_out(work, len(sums))
    total = sums.sum(axis=0).reshape(groups, windows.R, windows.S, C // groups, room)[..., : K // groups]
    return np.ascontiguousarray(total.transpose(0, 4, 3, 1, 2)).reshape(w.shape)


@compiled_pass(
    OFFSETS, read(1), boolean, boolean, read(4), read(2), boolean, boolean, ANY_TARGET, boolean, write(1), TABLE, COUNTER,
    OFFSETS, OFFSETS, GEOMETRY, NUMBER,
)  # fmt: skip
def _correlate(
    tools, x, last, inside, filters, bias, direct, planes, y, large, memory, blocks, counter, window_table, term_table,
    sizes, run,
):  # fmt: skip
    """Fill the blocks of y that the counter gives; large: write direct past the caches."""
    C, H, W, sh, top, left = sizes.C, sizes.H, sizes.W, sizes.sh, sizes.top, sizes.left
    span, across = sizes.span, sizes.across
    K, P, Q = y.shape[1:]
    groups, count, terms, width = filters.shape
    room = count * width
    everything = groups * room
    image, channel, row, column = y.strides
    windows_at, terms_at = address_of(window_table, 0), address_of(term_table, 0)
    while True:
        number = take(counter)
        if number >= len(blocks):
            return
        n0, n1, p0, p1 = blocks[number]
        n, rows = n1 - n0, p1 - p0
        h = (rows - 1) * sh + span
        m = n * rows * Q
        size = 0 if inside else n * h * across * C
        start = address_of(memory, 0)
        out = start + -(-size // LANES) * LANES * 4
        if inside:
            start = address_of(x, ((n0 * H + top + p0 * sh) * W + left) * C)
        else:
            images, turned = address_of(x, n0 * C * H * W), out + 4 * m * everything
            call(tools[FILL], (images, last, C, H, W, n, start, h, across, C, top + p0 * sh, left, turned))
        result = address_of(y, (n0 * P + p0) * Q * K)
        target = result if direct and not large else out
        for g in range(groups):
            numbers = (
                start + 4 * g * (C // groups), windows_at, terms_at, address_of(filters, 0) + 4 * g * room * terms,
                terms * width, width, target + 4 * g * room, everything, m, terms, count, width // LANES, run,
                address_of(bias, 0) + 4 * g * room, 0,
            )  # fmt: skip
            call(tools[MULTIPLY], numbers)
        if large:
            stream(out, result, m * K)
        elif not direct:
            for g in range(groups):
                few = K // groups
                here = address_of(y, 0) + n0 * image + g * few * channel + p0 * row
                result = (here, image, channel, row, column, rows, Q)
                call(tools[EMPTY], (out + 4 * g * room, n, everything, rows, Q, few, planes, *result))


@compiled_pass(
    OFFSETS, read(1), read(1), boolean, write(4), read(1), write(1), TABLE, COUNTER, NUMBER, OFFSETS, OFFSETS, GEOMETRY, TRIPLE, NUMBER,
    NUMBER, NUMBER,
)  # fmt: skip
def _add_weight_gradient(
    tools,
    x,
    dy,
    last,
    sums,
    zeros,
    memory,
    table,
    counter,
    share,
    window_table,
    term_table,
    sizes,
    target,
    gradient_pitch,
    width,
    run,
):
    """Fill sums (shares, groups, R S C / groups, room) with windows of x times dy: the shares of blocks that the counter gives."""
    C, H, W, sh, top, left = sizes.C, sizes.H, sizes.W, sizes.sh, sizes.top, sizes.left
    span, across, pitch = sizes.span, sizes.across, sizes.pitch
    K, P, Q = target
    groups, terms, room = sums.shape[1:]
    few = K // groups
    for piece in blocks(counter, len(table), share):
        for number in range(piece.start, piece.stop):
            n0, n1, p0, p1 = table[number]
            n, rows = n1 - n0, p1 - p0
            h = (rows - 1) * sh + span
            m = n * rows * Q
            start = address_of(memory, 0)
            gradients = start + -(-n * h * across * pitch // LANES) * LANES * 4
            turned = gradients + 4 * m * gradient_pitch
            images = address_of(x, n0 * C * H * W)
            call(tools[FILL], (images, last, C, H, W, n, start, h, across, pitch, top + p0 * sh, left, turned))
            if last and gradient_pitch == K and few == room:
                gradients = address_of(dy, (n0 * P + p0) * Q * K)
            else:  # what the last panel reads beyond a group's gradients makes sums that are not looked at
                images = address_of(dy, n0 * K * P * Q)
                call(tools[FILL], (images, last, K, P, Q, n, gradients, rows, Q, gradient_pitch, p0, 0, turned))
            for g in range(groups):
                total = address_of(sums, (piece.start // share * groups + g) * terms * room)
                initial, step = (address_of(zeros, 0), 0) if number == piece.start else (total, room)
                numbers = (
                    start + 4 * g * (C // groups), address_of(term_table, 0),
                    address_of(window_table, 0), gradients + 4 * g * few, width, gradient_pitch,
                    total, room, terms, m, room // width, width // LANES, run,
                    initial, step,
                )  # fmt: skip
                call(tools[MULTIPLY], numbers)
