"""Convolution without unfolding: products of pixels that lie in a strip, or where they always lay (see tile.py).

A block of windows stays in the L2 cache together with its pixels, and is one product.  Stride, dilation and groups are
tables of offsets.  Filters are packed in panels, as wide as a tile.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numba import boolean

from ...shapes import ConvSizes
from ..layout import stored
from ..memory import empty_array
from ..parallel import for_each, ranges, scratch, share_out
from ..windows import Block, Phase, Windows, phases
from .atomic import COUNTER, take
from .blocks import (
    EMPTY,
    FILL,
    GEOMETRY,
    LINE,
    MULTIPLY,
    MULTIPLY_SCATTERED,
    OFFSETS,
    TABLE,
    TOOLS,
    TRANSPOSE,
    apart,
    as_stored,
    cut_into,
    geometry,
    in_shares,
    is_direct,
    listed,
    panel_width,
    panels,
    term_offsets,
    window_offsets,
)
from .jit import NUMBER, PAIR, TRIPLE, compiled_pass, read, write
from .strips import ANY_TARGET
from .tile import WIDTH, run_length
from .vectors import LANES, address_of, call, copy, copy_value, stream, zero

_FLOAT32 = np.dtype(np.float32)
_BLOCK_BYTES = 256 * 1024
# The longest run of windows in the gradient of the filters: the L1 cache has to hold their pixels and their gradients.
_LONGEST_RUN = 128
# A result of so many bytes would not stay in the last cache.
_LARGE_BYTES = 32 * 1024 * 1024
# Phases of a stride that are computed together.
_MOST_PHASES = 8


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
    direct, planes = is_direct(y, groups * room), y.flags.c_contiguous
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
    large = direct and y.nbytes >= _LARGE_BYTES and y.ctypes.data % 64 == 0

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
    source, last = as_stored(x)
    gradient = stored(x, dy)[0].reshape(-1)
    across = windows.span(1, Q)[1]
    cut = cut_into(N, P, Q, 4 * (C * windows.stride[0] * windows.stride[1] + K), _BLOCK_BYTES)
    images, rows = cut.largest
    frame, pitch = (windows.span(rows, Q)[0], across), apart(C)
    gradient_pitch = apart(K)
    shares, sums = in_shares(cut, (groups, windows.R * windows.S * C // groups, room))
    memory = images * (prod(frame) * pitch + rows * Q * gradient_pitch) + (0 if last else max(C * H * W, K * P * Q))
    memory += 3 * LINE + WIDTH
    window_table = window_offsets(images, rows, Q, windows.stride, frame, pitch)
    term_table = term_offsets(windows, C // groups, across, pitch)
    sizes = geometry(x, windows, Q, pitch)
    run = min(_LONGEST_RUN, run_length(N * P * Q))

    def share(index: int) -> None:
        _add_weight_gradient(
            TOOLS, source, gradient, last, sums[index], scratch("conv", (memory,), _FLOAT32), cut.table,
            *shares[index], window_table, term_table, sizes, (K, P, Q), gradient_pitch, width, run,
        )  # fmt: skip

    for_each(share, range(len(shares)), blas=False)
    total = sums.sum(axis=0).reshape(groups, windows.R, windows.S, C // groups, room)[..., : K // groups]
    return np.ascontiguousarray(total.transpose(0, 4, 3, 1, 2)).reshape(w.shape)


def gradient_of_few_channels(dy: np.ndarray, w: np.ndarray, z: ConvSizes, dx: np.ndarray) -> None:
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
    r, s, c = np.ix_(np.arange(windows.R), np.arange(windows.S), np.arange(C))
    steps = c * plane + r * windows.dilation[0] * across + s * windows.dilation[1]
    steps = np.ascontiguousarray(np.broadcast_to(steps, (windows.R, windows.S, C)).transpose(2, 0, 1)).reshape(-1)
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
    joined = empty_array((z.N, -(-z.H // z.stride[0]), -(-z.W // z.stride[1]), room), _FLOAT32)
    correlate(dy, filters, None, joined.transpose(0, 3, 1, 2), Windows(R, S, top, left, (1, 1), (1, 1)), 1)
    images = ranges(z.N, max(1, _BLOCK_BYTES // (4 * prod(joined.shape[1:]))))
    for_each(lambda part: _interleave(joined[slice(*part)], dx[slice(*part)], z.stride), images, blas=False)
    return bool(np.isfinite(dx).all())


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
    OFFSETS, read(1), read(1), boolean, write(3), write(1), TABLE, NUMBER, NUMBER, OFFSETS, OFFSETS, GEOMETRY, TRIPLE, NUMBER,
    NUMBER, NUMBER,
)  # fmt: skip
def _add_weight_gradient(
    tools, x, dy, last, sums, memory, blocks, begin, end, window_table, term_table, sizes, target, gradient_pitch, width,
    run,
):  # fmt: skip
    """Add to sums (groups, R S C / groups, room) the windows of x times dy, over blocks begin to end."""
    C, H, W, sh, top, left = sizes.C, sizes.H, sizes.W, sizes.sh, sizes.top, sizes.left
    span, across, pitch = sizes.span, sizes.across, sizes.pitch
    K, P, Q = target
    groups, terms, room = sums.shape
    few = K // groups
    for number in range(begin, end):
        n0, n1, p0, p1 = blocks[number]
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
            numbers = (
                start + 4 * g * (C // groups), address_of(term_table, 0),
                address_of(window_table, 0), gradients + 4 * g * few, width, gradient_pitch,
                address_of(sums, 0) + 4 * g * terms * room, room, terms, m, room // width, width // LANES, run,
                address_of(sums, 0) + 4 * g * terms * room, room,
            )  # fmt: skip
            call(tools[MULTIPLY], numbers)


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
