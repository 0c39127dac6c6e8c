"""Winograd's F(2x2, 3x3) as loops: see ../arrays/winograd.py for the method.

Each transform goes down the columns of a row of tiles into scratch memory, and from there across.  The 16 products of a
block of tiles are those of tile.py.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import boolean, float32

from ..evenness import LARGEST, SMALLEST, least_of_windows, uneven_gradients, uneven_rows
from ..layout import stored
from ..parallel import ranges, scratch, share_out
from ..windows import Block, Windows
from .atomic import COUNTER, blocks, take
from .blocks import (
    EMPTY,
    FILL,
    GEOMETRY,
    MULTIPLY,
    OFFSETS,
    TABLE,
    TOOLS,
    Cut,
    apart,
    as_stored,
    geometry,
    in_planes,
    in_shares,
    is_direct,
    listed,
    panel_width,
)
from .jit import NUMBER, TRIPLE, callback, compiled_pass, loop, read, write
from .strips import ANY_TARGET
from .tile import run_length
from .vectors import LANES, add_channels, add_pixels, address_of, along, are_even, call
from .winograd_filters import filter_gradient, four, transformed_filters

_FLOAT32 = np.dtype(np.float32)
# Bytes of a block's transformed pixels and products, and its least and most tiles: the fewer, the more often the filters
# come from the last cache.
_BLOCK_BYTES = 1024 * 1024
_LEAST_TILES, _MOST_TILES = 96, 256
_SLACK = 128
_SMALLEST, _LARGEST = np.float32(SMALLEST), np.float32(LARGEST)
# The longest run of tiles in the gradient of the filters: the L1 cache has to hold both sides.
_LONGEST_RUN = 128


def correlate(
    x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, y: np.ndarray, windows: Windows
) -> list[Block] | None:
    """Fill y (N, K, P, Q); return the blocks of it that are left to do, None for all."""
    N, K, P, Q = y.shape
    C, H, W = x.shape[1:]
    width = panel_width(K)
    room = -(-K // width) * width
    filters, totals, squares = transformed_filters(w, width)
    least = least_of_windows(totals, squares, C)
    if least is None:
        return None
    biases = np.zeros(2 * room, np.float32)  # the second half for the places without
    if bias is not None:
        biases[:K] = bias
    cut = _tiles(N, P, Q, C, room)
    source, last = as_stored(x)
    direct, planes = is_direct(y, room) and P % 2 == Q % 2 == 0, in_planes(y)
    images, rows = cut.largest
    even = np.ones((len(cut.table), images, -(-rows // 2)), bool)
    memory = _memory(cut, Q, C, room, max(C, room)) + (0 if last else C * H * W)
    offsets = _offsets(cut, Q, C, C)
    sizes = geometry(x, windows, Q, C)

    def work(counter: np.ndarray) -> None:
        _correlate(
            _TOOLS, source, last, filters, biases, direct, planes, y, scratch("conv", (memory,), _FLOAT32),
            cut.table, counter, *offsets, sizes, run_length(C), least, even,
        )  # fmt: skip

    share_out(work, len(cut.table))
    return uneven_rows(cut.pieces, even)


def weight_gradient(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, windows: Windows
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradient of the filters (K, C, 3, 3), and which filters and channels of it are left to do."""
    N, K, P, Q = dy.shape
    C, H, W = x.shape[1:]
    width = panel_width(K)
    room = -(-K // width) * width
    cut = _tiles(N, P, Q, C, K)
    share, sums = in_shares(cut, (16, C, room))
    x_sizes, dy_sizes = (np.zeros((len(sums), 2, -(-channels // LANES) * LANES), np.float32) for channels in (C, K))
    zeros = np.zeros(room, np.float32)
    source, last = as_stored(x)
    gradient = stored(x, dy)[0].reshape(-1)
    pitches = apart(C), apart(K)
    memory = _memory(cut, Q, pitches[0], pitches[1], max(C, K)) + (0 if last else max(C * H * W, K * P * Q)) + room
    offsets = _offsets(cut, Q, C, pitches[0])
    sizes = geometry(x, windows, Q, pitches[0])

    def work(counter: np.ndarray) -> None:
        _add_weight_gradient(
            _TOOLS, source, gradient, last, sums, zeros, scratch("conv", (memory,), _FLOAT32), cut.table,
            counter, share, *offsets, sizes, (K, P, Q), pitches[1], width,
            min(_LONGEST_RUN, run_length(N * P * Q // 4)), x_sizes, dy_sizes,
        )  # fmt: skip

    share_out(work, len(sums))
    dw = filter_gradient(sums, w.shape)
    blocks = cut.table
    down, across = -(-(blocks[:, 3] - blocks[:, 2]) // 2), -(-Q // 2)
    pixels = int(((blocks[:, 1] - blocks[:, 0]) * (2 * down + 2)).sum()) * (2 * across + 2)
    x_sums, dy_sums = (
        sizes[..., :channels].sum(axis=0, dtype=np.float64) for sizes, channels in ((x_sizes, C), (dy_sizes, K))
    )
    return dw, *uneven_gradients(x_sums, dy_sums, pixels, N * P * Q)


@lru_cache(64)
def _tiles(N: int, P: int, Q: int, C: int, K: int) -> Cut:
    """Return N images of P x Q outputs cut into blocks of whole tiles."""
    down, across = -(-P // 2), -(-Q // 2)
    tiles = min(_MOST_TILES, max(_LEAST_TILES, _BLOCK_BYTES // (64 * (C + K))))
    rows = max(1, tiles // across)
    if rows < down:
        step = -(-down // -(-down // rows)) * 2  # blocks of about equal height
        return listed([Block(n, n + 1, p0, p1) for n in range(N) for p0, p1 in ranges(P, step)])
    return listed([Block(n0, n1, 0, P) for n0, n1 in ranges(N, max(1, tiles // (down * across)))])


def _memory(cut: Cut, Q: int, C: int, K: int, wide: int) -> int:
    """Return how many values a block needs at most: pixels, their transform, products, outputs, and rows in between."""
    images, rows = cut.largest
    down, across = -(-rows // 2), -(-Q // 2)
    tiles = images * down * across
    pixels = images * (2 * down + 2) * (2 * across + 2) * C
    return pixels + 16 * tiles * (C + K) + 4 * tiles * K + 8 * (across + 1) * wide + _SLACK


@lru_cache(64)
def _offset_tables(tiles: int, channels: int, pitch: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(tiles, dtype=np.int64) * pitch, np.arange(channels, dtype=np.int64)


def _offsets(cut: Cut, Q: int, C: int, pitch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where tiles lie, and where their channels."""
    images, rows = cut.largest
    return _offset_tables(images * -(-rows // 2) * -(-Q // 2), C, pitch)


def _pixel_formula(builder, a, b, c, d):
    """B' of four values."""
    return builder.fsub(a, c), builder.fadd(b, c), builder.fsub(c, b), builder.fsub(b, d)


def _output_formula(builder, a, b, c, d):
    """A' of four values."""
    return builder.fadd(a, builder.fadd(b, c)), builder.fsub(builder.fsub(b, c), d)


def _gradient_formula(builder, a, b):
    """A of two values, but for the minus of the last."""
    return a, builder.fadd(a, b), builder.fsub(a, b), b


def _middle_formula(builder, a, b):
    """The two middle values of A; the outer ones are a and -b."""
    return builder.fadd(a, b), builder.fsub(a, b)


_pixel_row, _output_row = along(4, 4, _pixel_formula), along(4, 2, _output_formula)
_gradient_row, _middle_row = along(2, 4, _gradient_formula), along(2, 2, _middle_formula)


@callback(8)
def _transform_pixels(pixels, n, down, across, C, pitch, v, rows):
    """Fill v (16, tiles, pitch) from a strip (n, 2 down + 2, 2 across + 2, C).

    rows: memory for (4, 2, across + 1, C), the even and odd columns apart.
    """
    w, half = 2 * across + 2, (across + 1) * C
    place = n * down * across * pitch
    for i in range(n):
        for y in range(down):
            here = pixels + 4 * (i * (2 * down + 2) + 2 * y) * w * C
            for x in range(w):
                column = rows + 4 * (x % 2 * half + x // 2 * C)
                _pixel_row((*four(here + 4 * x * C, w * C), *four(column, 2 * half)), C)
            tile = v + 4 * (i * down + y) * across * pitch
            for r in range(4):
                even, target = rows + 8 * r * half, tile + 16 * r * place
                odd = even + 4 * half
                if pitch == C:
                    _pixel_row((even, odd, even + 4 * C, odd + 4 * C, *four(target, place)), across * C)
                    continue
                for x in range(across):
                    a, b = even + 4 * x * C, odd + 4 * x * C
                    _pixel_row((a, b, a + 4 * C, b + 4 * C, *four(target + 4 * x * pitch, place)), C)


@callback(7)
def _transform_outputs(m, n, down, across, K, target, rows):
    """Fill (n, 2 down, 2 across, K) at target from m (16, tiles, K); rows: memory for (4, 2, across, K)."""
    place, half = n * down * across * K, across * K
    for i in range(n):
        for y in range(down):
            tile = m + 4 * (i * down + y) * half
            for s in range(4):
                above = rows + 8 * s * half
                _output_row((*four(tile + 4 * s * place, 4 * place), above, above + 4 * half), half)
            for r in range(2):
                here = target + 4 * (i * 2 * down + 2 * y + r) * 2 * across * K
                for x in range(across):
                    left = here + 8 * x * K
                    _output_row((*four(rows + 4 * (r * half + x * K), 2 * half), left, left + 4 * K), K)


@callback(8)
def _transform_gradients(gradient, n, down, across, K, pitch, g, rows):
    """Fill g (16, tiles, pitch), but for the minus of row 3 and of column 3, from dy (n, 2 down, 2 across, K)."""
    line, place = 2 * across * K, n * down * across * pitch
    for i in range(n):
        for y in range(down):
            high = gradient + 4 * (i * 2 * down + 2 * y) * line
            low, tile = high + 4 * line, g + 4 * (i * down + y) * across * pitch
            _middle_row((high, low, rows, rows + 4 * line), line)
            for r in range(4):
                source = (high, rows, rows + 4 * line, low)[r]
                for x in range(across):
                    left = source + 8 * x * K
                    _gradient_row((left, left + 4 * K, *four(tile + 4 * (4 * r * place + x * pitch), place)), K)


_TOOLS = np.append(TOOLS, [_transform_pixels, _transform_outputs, _transform_gradients])
_TRANSFORM_PIXELS, _TRANSFORM_OUTPUTS, _TRANSFORM_GRADIENTS = range(len(TOOLS), len(_TOOLS))


@loop
def _mark_uneven(pixels, n, rows, Q, C, memory, least, even, number):
    """Mark the rows of tiles in a strip with windows that are not even; return how many those are."""
    height, width, down = (rows + 1) // 2 * 2 + 2, (Q + 1) // 2 * 2 + 2, (rows + 1) // 2
    totals = memory
    squares = totals + 4 * (n * height * width + 2 * LANES)
    add_channels(pixels, n * height * width, C, totals, squares)
    count = 0
    for i in range(n):
        for y in range(down):
            for p in range(2 * y, min(2 * y + 2, rows)):
                here = 4 * (i * height + p) * width
                if not are_even(totals + here, squares + here, width, Q, least, _SMALLEST, _LARGEST):
                    even[number, i, y] = False
            count += not even[number, i, y]
    return count


@compiled_pass(
    OFFSETS, read(1), boolean, read(4), read(1), boolean, boolean, ANY_TARGET, write(1), TABLE, COUNTER, OFFSETS, OFFSETS,
    GEOMETRY, NUMBER, float32, write(3, boolean),
)  # fmt: skip
def _correlate(
    tools, x, last, filters, bias, direct, planes, y, memory, blocks, counter, tiles_table, channels_table, sizes, run,
    least, even,
):  # fmt: skip
    """Fill the blocks of y that the counter gives; filters (16, panels, C, width).

    even: which rows of tiles of a block's images have even windows only; where most have not, nothing is filled.
    """
    C, H, W, top, left = sizes.C, sizes.H, sizes.W, sizes.top, sizes.left
    K, P, Q = y.shape[1:]
    count, width = filters.shape[1], filters.shape[3]
    room, across = count * width, (Q + 1) // 2
    image, channel, row, column = y.strides
    while True:
        number = take(counter)
        if number >= len(blocks):
            return
        n0, n1, p0, p1 = blocks[number]
        n, down = n1 - n0, (p1 - p0 + 1) // 2
        tiles = n * down * across
        pixels = address_of(memory, 0)
        v = pixels + -(-(n * (2 * down + 2) * (2 * across + 2) * C) // LANES) * LANES * 4
        m = v + 4 * 16 * tiles * C
        rows = m + 4 * 16 * tiles * room
        out = rows + 4 * 8 * (across + 1) * max(C, room)
        images, turned = address_of(x, n0 * C * H * W), out + 4 * 4 * tiles * room
        strip = (pixels, 2 * down + 2, 2 * across + 2, C, top + p0, left, turned)
        call(tools[FILL], (images, last, C, H, W, n, *strip))
        if 2 * _mark_uneven(pixels, n, p1 - p0, Q, C, m, least, even, number) > n * down:
            even[number] = False
            continue
        call(tools[_TRANSFORM_PIXELS], (pixels, n, down, across, C, C, v, rows))
        for place in range(16):  # A' puts place 5 into all four outputs, with a plus: so there goes the bias
            numbers = (
                v + 4 * place * tiles * C, address_of(tiles_table, 0),
                address_of(channels_table, 0), address_of(filters, 0) + 4 * place * C * room, C * width, width,
                m + 4 * place * tiles * room, room, tiles, C, count, width // LANES, run,
                address_of(bias, 0 if place == 5 else room), 0,
            )  # fmt: skip
            call(tools[MULTIPLY], numbers)
        target = address_of(y, (n0 * P + p0) * Q * K) if direct else out
        call(tools[_TRANSFORM_OUTPUTS], (m, n, down, across, room, target, rows))
        if not direct:
            here = address_of(y, 0) + n0 * image + p0 * row
            result = (here, image, channel, row, column, p1 - p0, Q)
            call(tools[EMPTY], (out, n, room, 2 * down, 2 * across, K, planes, *result))


@compiled_pass(
    OFFSETS, read(1), read(1), boolean, write(4), read(1), write(1), TABLE, COUNTER, NUMBER, OFFSETS, OFFSETS, GEOMETRY, TRIPLE, NUMBER,
    NUMBER, NUMBER, write(3), write(3),
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
    tiles_table,
    channels_table,
    sizes,
    target,
    gradient_pitch,
    width,
    run,
    x_sizes,
    dy_sizes,
):
    """Fill sums (shares, 16, C, room) with the transformed pixels of x times transformed dy, for the shares of blocks that
    the counter gives.

    Sums in row or column 3 of a tile lack their minus.  x_sizes, dy_sizes (shares, 2, channels): to these are added the
    sums of absolute values and of squares.
    """
    C, H, W, top, left, pitch = sizes.C, sizes.H, sizes.W, sizes.top, sizes.left, sizes.pitch
    K, P, Q = target
    room, across = sums.shape[3], (Q + 1) // 2
    for piece in blocks(counter, len(table), share):
        for number in range(piece.start, piece.stop):
            n0, n1, p0, p1 = table[number]
            n, down = n1 - n0, (p1 - p0 + 1) // 2
            tiles = n * down * across
            pixels = address_of(memory, 0)
            v = pixels + -(-(n * (2 * down + 2) * (2 * across + 2) * C) // LANES) * LANES * 4
            g = v + 4 * 16 * tiles * pitch
            rows = g + 4 * (16 * tiles * gradient_pitch + room)
            gradient = rows + 4 * 8 * (across + 1) * max(C, K)
            turned = gradient + 4 * 4 * tiles * K
            images, gradients = address_of(x, n0 * C * H * W), address_of(dy, n0 * K * P * Q)
            strip = (pixels, 2 * down + 2, 2 * across + 2, C, top + p0, left, turned)
            call(tools[FILL], (images, last, C, H, W, n, *strip))
            call(tools[_TRANSFORM_PIXELS], (pixels, n, down, across, C, pitch, v, rows))
            call(tools[FILL], (gradients, last, K, P, Q, n, gradient, 2 * down, 2 * across, K, p0, 0, turned))
            share_number = piece.start // share
            add_pixels(
                pixels, n * (2 * down + 2) * (2 * across + 2), C, x_sizes.shape[2] // LANES,
                address_of(x_sizes, 2 * share_number * x_sizes.shape[2]),
                address_of(x_sizes, (2 * share_number + 1) * x_sizes.shape[2]),
            )  # fmt: skip
            add_pixels(
                gradient, n * 4 * down * across, K, dy_sizes.shape[2] // LANES,
                address_of(dy_sizes, 2 * share_number * dy_sizes.shape[2]),
                address_of(dy_sizes, (2 * share_number + 1) * dy_sizes.shape[2]),
            )  # fmt: skip
            call(tools[_TRANSFORM_GRADIENTS], (gradient, n, down, across, K, gradient_pitch, g, rows))
            for place in range(16):
                total = address_of(sums, (piece.start // share * 16 + place) * C * room)
                initial, step = (address_of(zeros, 0), 0) if number == piece.start else (total, room)
                numbers = (
                    v + 4 * place * tiles * pitch, address_of(channels_table, 0), address_of(tiles_table, 0),
                    g + 4 * place * tiles * gradient_pitch, width, gradient_pitch, total, room, C, tiles, room // width,
                    width // LANES, run, initial, step,
                )  # fmt: skip
                call(tools[MULTIPLY], numbers)
