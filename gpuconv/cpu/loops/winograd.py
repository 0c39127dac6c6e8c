"""Winograd's F(2x2, 3x3) as loops: see ../winograd.py for the method.

Each transform goes down the columns of a row of tiles into scratch memory, and from there across.  The 16 products of a
block of tiles are those of tile.py.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import boolean, float32, types

from ..layout import stored
from ..parallel import for_each, ranges, scratch, share_out
from ..windows import Block, Windows
from .conv import OFFSETS, SIZES, TABLE, Cut, apart, as_stored, in_shares, listed, panel_width, targets
from .atomic import COUNTER, take
from .jit import NUMBER, PAIR, apart_loop, compiled_pass, loop, read, summing_loop, write
from .strips import ANY, ANY_TARGET, empty, fill
from .tile import PRODUCT, product, run_length
from .vectors import LANES, address_of

_FLOAT32 = np.dtype(np.float32)
# Bytes of a block's transformed pixels and products, and its least and most tiles: the fewer, the more often the filters
# come from the last cache.
_BLOCK_BYTES = 512 * 1024
_LEAST_TILES, _MOST_TILES = 48, 256
_SLACK = 128


def correlate(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, y: np.ndarray, windows: Windows) -> list[Block]:
    """Fill y (N, K, P, Q); return the blocks of it that are not finite."""
    N, K, P, Q = y.shape
    C, H, W = x.shape[1:]
    width = panel_width(K)
    room = -(-K // width) * width
    filters = _transformed_filters(w, width)
    biases = np.zeros(2 * room, np.float32)  # the second half for the places without
    if bias is not None:
        biases[:K] = bias
    cut = _tiles(N, P, Q, C, room)
    source, last = as_stored(x)
    direct, planes = targets(y, room if P % 2 == Q % 2 == 0 else 0)
    finite = np.zeros(len(cut.table), bool)
    memory = _memory(cut, Q, C, room, max(C, room)) + (0 if last else C * H * W)
    offsets = _offsets(cut, Q, C, max(C, 1))
    sizes = (C, H, W, 1, 1, windows.top, windows.left, 0, 0, 1, K, C)

    def work(counter: np.ndarray) -> None:
        _correlate(
            PRODUCT.address, source, last, filters, biases, direct, planes, y, scratch("conv", (memory,), _FLOAT32),
            cut.table, counter, *offsets, sizes, run_length(C), finite,
        )  # fmt: skip

    share_out(work, len(cut.table))
    return [cut.pieces[i] for i in np.flatnonzero(~finite)]


def weight_gradient(dy: np.ndarray, x: np.ndarray, w: np.ndarray, windows: Windows) -> np.ndarray:
    """Return the gradient of the filters (K, C, 3, 3), in which what is not finite may be wrong."""
    N, K, P, Q = dy.shape
    C, H, W = x.shape[1:]
    width = panel_width(K)
    room = -(-K // width) * width
    cut = _tiles(N, P, Q, C, K)
    shares, sums = in_shares(cut, (16, C, room))
    source, last = as_stored(x)
    gradient = stored(x, dy)[0].reshape(-1)
    pitches = apart(C), apart(K)
    memory = _memory(cut, Q, pitches[0], pitches[1], max(C, K)) + (0 if last else max(C * H * W, K * P * Q)) + room
    offsets = _offsets(cut, Q, C, pitches[0])
    sizes = (C, H, W, 1, 1, windows.top, windows.left, 0, 0, 1, K, pitches[0])

    def share(index: int) -> None:
        _add_weight_gradient(
            PRODUCT.address, source, gradient, last, sums[index], scratch("conv", (memory,), _FLOAT32), cut.table,
            *shares[index], *offsets, sizes, (P, Q), pitches[1], width,
        )  # fmt: skip

    for_each(share, range(len(shares)))
    dw = np.empty(w.shape, np.float32)
    for_each(lambda channels: _weight_gradient(sums, dw, *channels), ranges(C, 16))
    return dw


def _transformed_filters(w: np.ndarray, width: int) -> np.ndarray:
    """Return G w G' in panels, (16, panels, C, width)."""
    K, C = w.shape[:2]
    out = np.empty((16, -(-K // width), C, width), np.float32)
    for_each(lambda panel: _transform_filters(w, out, panel), range(out.shape[1]))
    return out


@lru_cache(256)
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


@lru_cache(256)
def _offset_tables(tiles: int, channels: int, pitch: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(tiles, dtype=np.int64) * pitch, np.arange(channels, dtype=np.int64)


def _offsets(cut: Cut, Q: int, C: int, pitch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where tiles lie, and where their channels."""
    images, rows = cut.largest
    return _offset_tables(images * -(-rows // 2) * -(-Q // 2), C, pitch)


@apart_loop
def _pixel_row(d, d0, step, v, v0, v_step, count):
    """B' d of four runs of d."""
    for i in range(count):
        a, b, c, e = d[d0 + i], d[d0 + step + i], d[d0 + 2 * step + i], d[d0 + 3 * step + i]
        v[v0 + i] = a - c
        v[v0 + v_step + i] = b + c
        v[v0 + 2 * v_step + i] = c - b
        v[v0 + 3 * v_step + i] = b - e


@apart_loop
def _pixel_columns(d, even, odd, C, v, v0, v_step, count):
    """B' d of tiles side by side, whose even and odd columns lie in runs of their own."""
    for i in range(count):
        a, b, c, e = d[even + i], d[odd + i], d[even + C + i], d[odd + C + i]
        v[v0 + i] = a - c
        v[v0 + v_step + i] = b + c
        v[v0 + 2 * v_step + i] = c - b
        v[v0 + 3 * v_step + i] = b - e


@apart_loop
def _output_row(m, m0, step, y, y0, y_step, count):
    """A' m of four runs of m."""
    for i in range(count):
        a, b, c, e = m[m0 + i], m[m0 + step + i], m[m0 + 2 * step + i], m[m0 + 3 * step + i]
        y[y0 + i] = a + (b + c)
        y[y0 + y_step + i] = (b - c) - e


@apart_loop
def _middle_rows(y, y0, y1, v, v0, v1, count):
    """The two middle rows of A y; the outer ones are y0 and -y1."""
    for i in range(count):
        a, b = y[y0 + i], y[y1 + i]
        v[v0 + i] = a + b
        v[v1 + i] = a - b


@apart_loop
def _gradient_columns(y, y0, K, v, v0, v_step, count):
    """A y of two runs of y, but for the minus of the last."""
    for i in range(count):
        a, b = y[y0 + i], y[y0 + K + i]
        v[v0 + i] = a
        v[v0 + v_step + i] = a + b
        v[v0 + 2 * v_step + i] = a - b
        v[v0 + 3 * v_step + i] = b


@loop
def _transform_pixels(memory, pixels, n, down, across, C, pitch, v, rows):
    """Fill v (16, tiles, pitch) from a strip (n, 2 down + 2, 2 across + 2, C); all three are pieces of memory.

    rows: memory for (4, 2, across + 1, C), the even and odd columns apart.
    """
    w, half = 2 * across + 2, (across + 1) * C
    place = n * down * across * pitch
    for i in range(n):
        for y in range(down):
            here = pixels + (i * (2 * down + 2) + 2 * y) * w * C
            for x in range(w):
                _pixel_row(memory, here + x * C, w * C, memory, rows + (x % 2) * half + x // 2 * C, 2 * half, C)
            tile = v + (i * down + y) * across * pitch
            for r in range(4):
                even, target = rows + 2 * r * half, tile + 4 * r * place
                if pitch == C:
                    _pixel_columns(memory, even, even + half, C, memory, target, place, across * C)
                else:
                    for x in range(across):
                        _pixel_columns(memory, even + x * C, even + half + x * C, C, memory, target + x * pitch, place, C)


@loop
def _transform_outputs(memory, m, n, down, across, K, out, target, rows):
    """Fill (n, 2 down, 2 across, K) in out from m (16, tiles, K); rows: memory for (4, 2, across, K)."""
    place, half = n * down * across * K, across * K
    for i in range(n):
        for y in range(down):
            tile = m + (i * down + y) * half
            for s in range(4):
                _output_row(memory, tile + s * place, 4 * place, memory, rows + 2 * s * half, half, half)
            for r in range(2):
                here = target + ((i * 2 * down + 2 * y + r) * 2 * across) * K
                for x in range(across):
                    _output_row(memory, rows + r * half + x * K, 2 * half, out, here + 2 * x * K, K, K)


@summing_loop
def _is_finite(values, start, count):
    total = values.dtype.type(0)
    for i in range(count):
        total += values[start + i] - values[start + i]
    return total == 0


@compiled_pass(
    NUMBER, read(1), boolean, read(4), read(1), write(1), write(1), ANY_TARGET, write(1), TABLE, COUNTER, OFFSETS, OFFSETS,
    SIZES, NUMBER, write(1, boolean),
)  # fmt: skip
def _correlate(
    address, x, last, filters, bias, direct, planes, y, memory, blocks, counter, tiles_table, channels_table, sizes, run,
    finite,
):  # fmt: skip
    """Fill the blocks of y that the counter gives; filters (16, panels, C, width); finite: which came out so."""
    C, H, W, _, _, top, left, _, _, _, K, _ = sizes
    P, Q = y.shape[2:]
    count, width = filters.shape[1], filters.shape[3]
    room, across = count * width, (Q + 1) // 2
    while True:
        number = take(counter)
        if number >= len(blocks):
            return
        n0, n1, p0, p1 = blocks[number]
        n, down = n1 - n0, (p1 - p0 + 1) // 2
        tiles = n * down * across
        v = -(-(n * (2 * down + 2) * (2 * across + 2) * C) // LANES) * LANES
        m = v + 16 * tiles * C
        rows = m + 16 * tiles * room
        out = rows + 8 * (across + 1) * max(C, room)
        turned = memory[out + 4 * tiles * room :]
        fill(x, last, (C, H, W), n0, n, C, memory, 0, 2 * down + 2, 2 * across + 2, C, top + p0, left, turned)
        _transform_pixels(memory, 0, n, down, across, C, C, v, rows)
        for place in range(16):  # A' puts place 5 into all four outputs, with a plus: so there goes the bias
            product(
                address, address_of(memory, v + place * tiles * C), address_of(tiles_table, 0),
                address_of(channels_table, 0), address_of(filters, 0) + 4 * place * C * room, C * width, width,
                address_of(memory, m + place * tiles * room), room, tiles, C, count, width // LANES, run,
                address_of(bias, 0 if place == 5 else room), 0,
            )  # fmt: skip
        if len(direct):
            first = (n0 * P + p0) * Q * K
            _transform_outputs(memory, m, n, down, across, room, direct, first, rows)
            finite[number] = _is_finite(direct, first, 4 * tiles * room)
        else:
            _transform_outputs(memory, m, n, down, across, room, memory, out, rows)
            finite[number] = _is_finite(memory, out, 4 * tiles * room)
            empty(memory, out, room, 2 * down, 2 * across, planes, y, n0, n, p0, p1 - p0, 0, K)


@compiled_pass(
    NUMBER, read(1), read(1), boolean, write(3), write(1), TABLE, NUMBER, NUMBER, OFFSETS, OFFSETS, SIZES, PAIR, NUMBER,
    NUMBER,
)  # fmt: skip
def _add_weight_gradient(
    address, x, dy, last, sums, memory, blocks, begin, end, tiles_table, channels_table, sizes, target, K_pitch, width
):
    """Add to sums (16, C, room) the transformed pixels of x times transformed dy, over blocks begin to end.

    Sums in row or column 3 of a tile lack their minus.
    """
    C, H, W, _, _, top, left, _, _, _, K, pitch = sizes
    P, Q = target
    room, across = sums.shape[2], (Q + 1) // 2
    for number in range(begin, end):
        n0, n1, p0, p1 = blocks[number]
        n, down = n1 - n0, (p1 - p0 + 1) // 2
        tiles = n * down * across
        v = -(-(n * (2 * down + 2) * (2 * across + 2) * C) // LANES) * LANES
        g = v + 16 * tiles * pitch
        rows = g + 16 * tiles * K_pitch + room
        gradient = rows + 8 * (across + 1) * max(C, K)
        turned = memory[gradient + 4 * tiles * K :]
        fill(x, last, (C, H, W), n0, n, C, memory, 0, 2 * down + 2, 2 * across + 2, C, top + p0, left, turned)
        _transform_pixels(memory, 0, n, down, across, C, pitch, v, rows)
        fill(dy, last, (K, P, Q), n0, n, K, memory, gradient, 2 * down, 2 * across, K, p0, 0, turned)
        line, place = 2 * across * K, tiles * K_pitch
        for i in range(n):
            for y in range(down):
                high = gradient + (i * 2 * down + 2 * y) * line
                _middle_rows(memory, high, high + line, memory, rows, rows + line, line)
                for x_tile in range(across):
                    to, here = g + ((i * down + y) * across + x_tile) * K_pitch, 2 * x_tile * K
                    _gradient_columns(memory, high + here, K, memory, to, place, K)
                    _gradient_columns(memory, rows + here, K, memory, to + 4 * place, place, K)
                    _gradient_columns(memory, rows + line + here, K, memory, to + 8 * place, place, K)
                    _gradient_columns(memory, high + line + here, K, memory, to + 12 * place, place, K)
        for index in range(16):
            total = address_of(sums, 0) + 4 * index * C * room
            product(
                address, address_of(memory, v + index * tiles * pitch), address_of(channels_table, 0),
                address_of(tiles_table, 0), address_of(memory, g + index * place), width, K_pitch, total, room, C, tiles,
                room // width, width // LANES, 128, total, room,
            )  # fmt: skip


@compiled_pass(ANY, write(4), NUMBER)
def _transform_filters(w, out, panel):
    """Fill panel `panel` of out (16, panels, C, width) with G w G' of its filters; w (K, C, 3, 3), any strides."""
    K, C = w.shape[:2]
    width = out.shape[3]
    half = np.float32(0.5)
    g = np.empty((4, 3), np.float32)
    for c in range(C):
        for lane in range(width):
            k = panel * width + lane
            if k >= K:
                for place in range(16):
                    out[place, panel, c, lane] = 0
                continue
            for s in range(3):
                a, b, d = w[k, c, 0, s], w[k, c, 1, s], w[k, c, 2, s]
                side, middle = (a + d) * half, b * half
                g[0, s], g[1, s], g[2, s], g[3, s] = a, side + middle, side - middle, d
            for r in range(4):
                a, b, d = g[r, 0], g[r, 1], g[r, 2]
                side, middle = (a + d) * half, b * half
                out[4 * r, panel, c, lane] = a
                out[4 * r + 1, panel, c, lane] = side + middle
                out[4 * r + 2, panel, c, lane] = side - middle
                out[4 * r + 3, panel, c, lane] = d


@compiled_pass(read(4), write(4), NUMBER, NUMBER)
def _weight_gradient(sums, dw, first, stop):
    """Fill channels first to stop of dw (K, C, 3, 3) with G' . G of the sums (shares, 16, C, room).

    Sums in row or column 3 lack their minus.
    """
    shares, _, C, room = sums.shape
    K = len(dw)
    half = np.float32(0.5)
    v, g = np.empty((16, room), np.float32), np.empty((3, 4), np.float32)
    for c in range(first, stop):
        for place in range(16):
            for k in range(K):
                v[place, k] = 0
            for share in range(shares):
                for k in range(K):
                    v[place, k] += sums[share, place, c, k]
        for k in range(K):
            for s in range(4):
                a, b, d, e = v[s, k], v[4 + s, k], v[8 + s, k], v[12 + s, k]
                middle = (b + d) * half
                g[0, s], g[1, s], g[2, s] = a + middle, (b - d) * half, middle - e
            for r in range(3):
                middle = (g[r, 1] + g[r, 2]) * half
                dw[k, c, r, 0] = g[r, 0] + middle
                dw[k, c, r, 1] = (g[r, 1] - g[r, 2]) * half
                dw[k, c, r, 2] = middle - g[r, 3]
