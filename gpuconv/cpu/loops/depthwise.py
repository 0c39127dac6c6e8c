"""Depthwise convolution, one filter for each channel: a vector holds the same place of neighbouring channels.

Windows are read from a strip (see strips.py), whose pixels are filled up to whole vectors of channels.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import boolean, types
from numba.core import cgutils
from numba.extending import intrinsic

from ..layout import stored
from ..parallel import scratch, share_out
from ..runs import longest_run
from ..windows import Windows
from .atomic import COUNTER, blocks, take
from .blocks import (
    EMPTY,
    FILL,
    GEOMETRY,
    OFFSETS,
    TABLE,
    TOOLS,
    Cut,
    Geometry,
    as_stored,
    cut_into,
    geometry,
    in_planes,
    is_direct,
    term_offsets,
)
from .jit import NUMBER, PAIR, callback, compiled_pass, read, write
from .strips import ANY_TARGET
from .tile import run_length
from .vectors import INDEX, LANES, VECTOR, address_of, call, index, load, multiply_add, phi, store

_FLOAT32 = np.dtype(np.float32)
_BLOCK_BYTES = 128 * 1024
_PARTIAL_SUMS = 32
_SLACK = 64


def correlate(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, y: np.ndarray, windows: Windows) -> None:
    """Fill y (N, C, P, Q) with bias and windows of x (N, C, H, W) times filters (C, 1, R, S)."""
    C, H, W = x.shape[1:]
    P, Q = y.shape[2:]
    room = -(-C // LANES) * LANES
    filters, biases = np.zeros((windows.R * windows.S, room), np.float32), np.zeros(room, np.float32)
    filters[:, :C] = w.reshape(C, -1).T
    if bias is not None:
        biases[:C] = bias
    source, last = as_stored(x)
    direct, planes = is_direct(y, room), in_planes(y)
    cut, memory, terms, sizes = _prepared(x, windows, (P, Q), room)
    memory += 0 if last else C * H * W
    # Backwards: what the gradient of the filters read last is still in the cache.
    table = np.ascontiguousarray(cut.table[::-1])

    def work(counter: np.ndarray) -> None:
        _correlate(
            _TOOLS, source, last, filters, biases, direct, planes, y, scratch("conv", (memory,), _FLOAT32), table, counter,
            terms, sizes, run_length(len(filters)),
        )  # fmt: skip

    share_out(work, len(table))


def weight_gradient(dy: np.ndarray, x: np.ndarray, w: np.ndarray, windows: Windows) -> np.ndarray:
    """Return the gradient of the filters (C, 1, R, S)."""
    C, H, W = x.shape[1:]
    P, Q = dy.shape[2:]
    room = -(-C // LANES) * LANES
    source, last = as_stored(x)
    gradient = stored(x, dy)[0].reshape(-1)
    longest = longest_run(len(x) * P)  # rows that are added up in order
    cut, memory, terms, sizes = _prepared(x, windows, (P, Q), room, longest)
    memory += 0 if last else max(C * H * W, C * P * Q)
    share = -(-max(1, len(cut.table)) // max(_PARTIAL_SUMS, -(-len(x) * P // longest)))
    sums = np.zeros((-(-len(cut.table) // share), windows.R * windows.S, room), np.float32)

    def work(counter: np.ndarray) -> None:
        _add_weight_gradient(
            _TOOLS, source, gradient, last, sums, scratch("conv", (memory,), _FLOAT32), cut.table, counter, share,
            terms, sizes, (P, Q), run_length(Q),
        )  # fmt: skip

    share_out(work, len(sums))
    return np.ascontiguousarray(sums.sum(axis=0)[:, :C].T).reshape(w.shape)


def _prepared(
    x: np.ndarray, windows: Windows, outputs: tuple[int, int], room: int, most_rows: int | None = None
) -> tuple[Cut, int, np.ndarray, Geometry]:
    """Return how the batch is cut, the values that a block needs at most, where taps lie, and sizes for the passes."""
    P, Q = outputs
    window_bytes = 4 * room * (1 + windows.stride[0] * windows.stride[1])
    cut = cut_into(len(x), P, Q, window_bytes, _BLOCK_BYTES, most_rows)
    images, rows = cut.largest
    height, across = windows.span(rows, Q)
    memory = images * (height * across + rows * Q) * room + _SLACK
    return cut, memory, term_offsets(windows, 1, across, room), geometry(x, windows, Q, room)


def _weighted(vectors: int, taps: int | None):
    """Return the loop over windows side by side: c[q] = d[q] + sum over taps of a[q step + terms[t]] b[t].

    For so many vectors of channels; with a number of taps, their weights stay in registers.
    """

    @intrinsic
    def row(context, a, step, terms, b, b_tap, n, c, c_step, count, d, d_step):
        def lower(context, builder, signature, args):
            floats = ir.FloatType().as_pointer()
            a, b, c, d = (builder.inttoptr(args[i], floats) for i in (0, 3, 6, 9))
            terms = builder.inttoptr(args[2], INDEX.as_pointer())
            step, b_tap, n, c_step, count, d_step = (args[i] for i in (1, 4, 5, 7, 8, 10))
            lanes = [index(v * LANES) for v in range(vectors)]

            def at(start, place, lane):
                return load(builder, builder.gep(start, [builder.add(place, lane)]))

            zeros = [ir.Constant(VECTOR, [0.0] * LANES)] * vectors
            if taps:
                offsets = [builder.load(builder.gep(terms, [index(t)])) for t in range(taps)]
                weights = [[at(b, builder.mul(b_tap, index(t)), lane) for lane in lanes] for t in range(taps)]
            with cgutils.for_range(builder, count) as each:
                here = builder.mul(each.index, step)
                if taps:
                    sums = zeros
                    for offset, weight in zip(offsets, weights, strict=True):
                        place = builder.add(here, offset)
                        sums = [
                            multiply_add(builder, at(a, place, lane), value, total)
                            for lane, value, total in zip(lanes, weight, sums, strict=True)
                        ]
                else:
                    sums = _sum(builder, n, zeros, lambda t, totals: [
                        multiply_add(
                            builder, at(a, builder.add(here, builder.load(builder.gep(terms, [t]))), lane),
                            at(b, builder.mul(b_tap, t), lane), total,
                        )
                        for lane, total in zip(lanes, totals, strict=True)
                    ])  # fmt: skip
                for lane, run in zip(lanes, sums, strict=True):
                    total = builder.fadd(at(d, builder.mul(each.index, d_step), lane), run)
                    store(builder, total, builder.gep(c, [builder.add(builder.mul(each.index, c_step), lane)]))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 11), lower

    return row


def _sum(builder, n, initial, add):
    """Return totals after add(i, totals) for i < n, n > 0."""
    before = builder.basic_block
    each, done = builder.append_basic_block("each"), builder.append_basic_block("done")
    builder.branch(each)
    builder.position_at_end(each)
    i = phi(builder, (index(0), before))
    totals = [phi(builder, (value, before)) for value in initial]
    results = add(i, totals)
    following = builder.add(i, index(1))
    for node, value in zip([i, *totals], [following, *results], strict=True):
        node.add_incoming(value, each)
    builder.cbranch(builder.icmp_signed("<", following, n), each, done)
    builder.position_at_end(done)
    return results


def _gathered(taps: int):
    """Return the loop that adds to sums of so many taps a row: c[t] += sum over q of a[q step + terms[t]] b[q]."""

    @intrinsic
    def row(context, a, step, terms, b, b_step, count, c, c_tap):
        def lower(context, builder, signature, args):
            floats = ir.FloatType().as_pointer()
            a, b, c = (builder.inttoptr(args[i], floats) for i in (0, 3, 6))
            terms = builder.inttoptr(args[2], INDEX.as_pointer())
            step, b_step, count, c_tap = (args[i] for i in (1, 4, 5, 7))
            offsets = [builder.load(builder.gep(terms, [index(t)])) for t in range(taps)]
            zeros = [ir.Constant(VECTOR, [0.0] * LANES)] * taps

            def add(q, totals):
                gradient, here = load(builder, builder.gep(b, [builder.mul(q, b_step)])), builder.mul(q, step)
                pixels = [load(builder, builder.gep(a, [builder.add(here, offset)])) for offset in offsets]
                return [multiply_add(builder, x, gradient, total) for x, total in zip(pixels, totals, strict=True)]

            for t, total in enumerate(_sum(builder, count, zeros, add)):
                target = builder.gep(c, [builder.mul(c_tap, index(t))])
                store(builder, builder.fadd(load(builder, target), total), target)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), lower

    return row


_nine, _any, _any_wide = _weighted(1, 9), _weighted(1, None), _weighted(4, None)
_gather_nine, _gather_three, _gather_one = (_gathered(taps) for taps in (9, 3, 1))


@callback(10)
def _row(a, step, terms, b, room, n, run, c, count, d):
    """Fill a row of windows, all channels, in runs of so many taps."""
    for first in range(0, n, run):
        taps, offsets, weights = min(run, n - first), terms + 8 * first, b + 4 * first * room
        initial, d_step = (d, 0) if first == 0 else (c, room)
        k = 0
        while k < room:
            here, filters, target, start = a + 4 * k, weights + 4 * k, c + 4 * k, initial + 4 * k
            if taps == 9:
                _nine(here, step, offsets, filters, room, taps, target, room, count, start, d_step)
                k += LANES
            elif room - k >= 4 * LANES:
                _any_wide(here, step, offsets, filters, room, taps, target, room, count, start, d_step)
                k += 4 * LANES
            else:
                _any(here, step, offsets, filters, room, taps, target, room, count, start, d_step)
                k += LANES


@callback(10)
def _add_row(a, step, terms, b, b_step, count, run, c, room, n):
    """Add a row of windows to the sums (n, room) of taps, in runs of so many windows."""
    for first in range(0, count, run):
        windows = min(run, count - first)
        for k in range(0, room, LANES):
            here, gradient = a + 4 * (first * step + k), b + 4 * (first * b_step + k)
            t = 0
            while t < n:
                offsets, total = terms + 8 * t, c + 4 * (t * room + k)
                if n - t >= 9:
                    _gather_nine(here, step, offsets, gradient, b_step, windows, total, room)
                    t += 9
                elif n - t >= 3:
                    _gather_three(here, step, offsets, gradient, b_step, windows, total, room)
                    t += 3
                else:
                    _gather_one(here, step, offsets, gradient, b_step, windows, total, room)
                    t += 1


_TOOLS = np.append(TOOLS, [_row, _add_row])
_ROW, _ADD_ROW = range(len(TOOLS), len(_TOOLS))


@compiled_pass(
    OFFSETS, read(1), boolean, read(2), read(1), boolean, boolean, ANY_TARGET, write(1), TABLE, COUNTER, OFFSETS, GEOMETRY,
    NUMBER,
)  # fmt: skip
def _correlate(tools, x, last, filters, bias, direct, planes, y, memory, blocks, counter, term_table, sizes, run):
    """Fill the blocks of y that the counter gives."""
    C, H, W, sh, sw, top, left, span, across, room = sizes
    P, Q = y.shape[2:]
    image, channel, row, column = y.strides
    weights, biases, terms = address_of(filters, 0), address_of(bias, 0), address_of(term_table, 0)
    while True:
        number = take(counter)
        if number >= len(blocks):
            return
        n0, n1, p0, p1 = blocks[number]
        n, rows = n1 - n0, p1 - p0
        h = (rows - 1) * sh + span
        strip = address_of(memory, 0)
        out = strip + 4 * n * h * across * room
        images, turned = address_of(x, n0 * C * H * W), out + 4 * n * rows * Q * room
        call(tools[FILL], (images, last, C, H, W, n, strip, h, across, room, top + p0 * sh, left, turned))
        target = address_of(y, (n0 * P + p0) * Q * C) if direct else out
        for i in range(n):
            for p in range(rows):
                here, result = strip + 4 * (i * h + p * sh) * across * room, target + 4 * (i * rows + p) * Q * room
                call(tools[_ROW], (here, sw * room, terms, weights, room, len(filters), run, result, Q, biases))
        if not direct:
            here = address_of(y, 0) + n0 * image + p0 * row
            call(tools[EMPTY], (out, n, room, rows, Q, C, planes, here, image, channel, row, column, rows, Q))


@compiled_pass(
    OFFSETS, read(1), read(1), boolean, write(3), write(1), TABLE, COUNTER, NUMBER, OFFSETS, GEOMETRY, PAIR, NUMBER
)
def _add_weight_gradient(tools, x, dy, last, sums, memory, table, counter, share, term_table, sizes, target, run):
    """Add to sums (shares, R S, room) the windows of x times dy, for the shares of blocks that the counter gives."""
    C, H, W, sh, sw, top, left, span, across, room = sizes
    P, Q = target
    taps, terms = sums.shape[1], address_of(term_table, 0)
    for piece in blocks(counter, len(table), share):
        total = address_of(sums, piece.start // share * taps * room)
        for number in range(piece.start, piece.stop):
            n0, n1, p0, p1 = table[number]
            n, rows = n1 - n0, p1 - p0
            h = (rows - 1) * sh + span
            strip = address_of(memory, 0)
            gradient = strip + 4 * n * h * across * room
            images, turned = address_of(x, n0 * C * H * W), gradient + 4 * n * rows * Q * room
            call(tools[FILL], (images, last, C, H, W, n, strip, h, across, room, top + p0 * sh, left, turned))
            if last and room == C:
                gradient = address_of(dy, (n0 * P + p0) * Q * C)
            else:
                images = address_of(dy, n0 * C * P * Q)
                call(tools[FILL], (images, last, C, P, Q, n, gradient, rows, Q, room, p0, 0, turned))
            for i in range(n):
                for p in range(rows):
                    here, row = strip + 4 * (i * h + p * sh) * across * room, gradient + 4 * (i * rows + p) * Q * room
                    call(tools[_ADD_ROW], (here, sw * room, terms, row, room, Q, run, total, room, taps))
