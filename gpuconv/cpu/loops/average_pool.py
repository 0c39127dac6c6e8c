"""Average pooling, over windows and over whole images; share is 1 / (pixels averaged) of a window, by its place.

Windows are added up row by row, and then column by column; gradients spread out over columns, and then over rows.  There every
array is one of volumes, (N, D, H, W, C): images have one plane, and what is stored channels-first one channel each.
"""

from __future__ import annotations

import functools
from math import prod
from typing import Any

import numpy as np
from numba import boolean, float64, types

from ...shapes import is_channels_last
from ..layout import stored
from ..parallel import scratch, share_out
from ..runs import FEW, run_length
from ..taps import Sizes, meeting, windows_tile
from .atomic import COUNTER, take
from .jit import NUMBER, PAIR, TRIPLE, apart_loop, compiled_pass, loop, read, write
from .pieces import WINDOWS, ceiling, fill, part, shapes, windows_of

_BLOCK = 32 * 1024  # elements of the image
_LEAST = 4  # blocks that are worth another thread
_ROOMS = types.UniTuple(types.intp, 4)
_FLOAT64 = np.dtype(np.float64)


def forward(x: np.ndarray, y: np.ndarray, share: np.ndarray, z: Sizes) -> None:
    """Fill y with the sums of x over windows, times share."""
    before, after, count, size, room, options = _forward_plan(z, z.C if is_channels_last(y) else 1)
    images, out = stored(y, x, y)
    arrays = images.reshape(before), out.reshape(after), share.reshape(-1)

    def work(counter: np.ndarray) -> None:
        _forward(counter, size, *arrays, scratch("rows", (room,), x.dtype), *options)

    share_out(work, count, _LEAST)


def backward(dy: np.ndarray, dx: np.ndarray, share: np.ndarray, z: Sizes) -> None:
    """Fill dx: each pixel gets the sum of dy times share over the windows it lies in."""
    before, after, count, size, room, options = _backward_plan(z, z.C if is_channels_last(dx) else 1)
    gradient, out = stored(dx, dy, dx)
    arrays = gradient.reshape(after), out.reshape(before), share.reshape(-1)

    def work(counter: np.ndarray) -> None:
        _backward(counter, size, *arrays, scratch("rows", (room,), dy.dtype), *options)

    share_out(work, count, _LEAST)


# What both have in common: shapes of x and y, how many blocks there are, of how many rows or pieces, the memory that a thread
# needs, and what else their passes take.
_Plan = tuple[tuple[int, ...], tuple[int, ...], int, int, int, tuple[Any, ...]]


@functools.lru_cache(maxsize=64)
def _forward_plan(z: Sizes, channels: int) -> _Plan:
    before, after = shapes(z, channels)
    windows = windows_of(z)
    T, R, S, back, down, across, _, *pads, _, lower, aside = windows
    inside = not any(pads) and 2 * z.P <= z.H and 2 * z.Q <= z.W
    simple = channels == 1 and T <= FEW and inside and (R, S) == (down, across) == (2, 2) and (lower, aside) == (1, 1)
    size = max(1, _BLOCK // (back * down * z.W * channels))
    line, total = _rows(z, channels)
    longest = run_length(T * R), run_length(S)
    rooms = line, total, 0 if longest == (T * R, S) else max(line, total)
    return before, after, -(-prod(after[:3]) // size), size, sum(rooms), (rooms, simple, longest, windows)


@functools.lru_cache(maxsize=64)
def _backward_plan(z: Sizes, channels: int) -> _Plan:
    before, after = shapes(z, channels)
    windows = windows_of(z)
    tiled = windows_tile(z) and (channels > 1 or z.R == z.S == 2)
    depth = after[1]
    # Where no plane is between the first and the last of two windows, each may be done alone.
    planes = 1 if (windows[0] - 1) * windows[9] < windows[3] else depth
    pieces = before[0] * (depth // planes)
    size = max(1, _BLOCK * pieces // max(1, prod(before)))
    line, total = _rows(z, channels)
    *rows, columns = meeting(z)
    longest = run_length(z.R) if rows[-1] > FEW else z.P, run_length(z.S) if columns > FEW else z.S
    rooms = line, total, line if longest[1] < z.S else 0, prod(before[1:]) if prod(rows) > FEW else 0
    return before, after, -(-pieces // size), size, sum(rooms), (rooms, planes, tiled, longest, windows)


def _rows(z: Sizes, channels: int) -> tuple[int, int]:
    """Return how many values a row of the image has under all its windows, and a row of the output."""
    across, before, aside = z.stride[-1], z.pad[-1], z.dilation[-1]
    return max(before + z.W, (z.Q - 1) * across + (z.S - 1) * aside + 1) * channels, z.Q * channels


def global_forward(x: np.ndarray, y: np.ndarray) -> None:
    """Fill y (N, C) with the means of images."""
    N, C, H, W = x.shape
    (images,) = stored(x, x)
    size = max(1, _BLOCK // (C * H * W))

    def work(counter: np.ndarray) -> None:
        if is_channels_last(x):
            _global_forward_last(counter, size, images, y, scratch("total", (C,), _FLOAT64))
        else:
            _global_forward_first(counter, size, images, y)

    share_out(work, -(-N // size), _LEAST)


def global_backward(dy: np.ndarray, dx: np.ndarray) -> None:
    """Fill each image of dx with its share of dy (N, C)."""
    N, C, H, W = dx.shape
    run = _global_backward_last if is_channels_last(dx) else _global_backward_first
    (images,), (gradient,) = stored(dx, dx), stored(dy, dy)
    size = max(1, _BLOCK // (C * H * W))
    share_out(lambda counter: run(counter, size, gradient, images), -(-N // size), _LEAST)


# Rows


@apart_loop
def _put(target, values):
    for i in range(len(target)):
        target[i] = values[i]


@apart_loop
def _put_two(target, first, second):
    for i in range(len(target)):
        target[i] = first[i] + second[i]


@apart_loop
def _add(total, values):
    for i in range(len(total)):
        total[i] += values[i]


@apart_loop
def _add_picked(total, values, step):
    for i in range(len(total)):
        total[i] += values[i * step]


@apart_loop
def _add_apart(target, values, factor, step):
    for i in range(len(values)):
        target[i * step] += values[i] * factor[i]


@apart_loop
def _scale(values, factor, target):
    """Multiply each window's channels by a factor of its own."""
    C = len(values) // len(factor)
    if C == 1:
        for q in range(len(factor)):
            target[q] = values[q] * factor[q]
        return
    for q in range(len(factor)):
        run, into = part(values, q * C, C), part(target, q * C, C)
        for c in range(C):
            into[c] = run[c] * factor[q]


@loop
def _runs(Q, across, C):
    """Return what a row of windows falls into: how many runs, of how many values, and the step between these in a row of pixels."""
    if C == 1:
        return 1, Q, across
    if across == 1:
        return 1, Q * C, 1
    return Q, C, 1


# Windows over images and volumes


@apart_loop
def _average_2x2(top, bottom, out, share):
    for q in range(len(out)):
        out[q] = ((top[2 * q] + top[2 * q + 1]) + (bottom[2 * q] + bottom[2 * q + 1])) * share[q]


@apart_loop
def _add_2x2(top, bottom, out, share):
    for q in range(len(out)):
        out[q] += ((top[2 * q] + top[2 * q + 1]) + (bottom[2 * q] + bottom[2 * q + 1])) * share[q]


@compiled_pass(COUNTER, NUMBER, read(5), write(5), read(1), write(1), TRIPLE, boolean, PAIR, WINDOWS)
def _forward(counter, size, x, y, share, memory, rooms, simple, longest, windows):
    """x (N, D, H, W, C), y (N, Z, P, Q, C), share (Z P Q,).

    memory: for the rows under a row of windows, added up, between padding; for these windows; and for either, or nothing, where
    there is more to add up than the longest run of rows or columns.
    """
    D, H, W = x.shape[1:4]
    Z, P, Q, C = y.shape[1:]
    T, R, S, back, down, across, front, above, before, deeper, lower, aside = windows
    rows, (runs, length, step) = x.shape[0] * Z * P, _runs(Q, across, C)
    line, total = part(memory, 0, rooms[0]), part(memory, rooms[0], rooms[1])
    spare = part(memory, rooms[0] + rooms[1], rooms[2])
    fill(line, 0)
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        row, stop = start, min(start + size, rows)
        while row < stop:
            o, first = row // P % Z, row % P
            deep, image = o * back - front, row // P // Z * D * H
            nearest, farthest = ceiling(max(0, -deep), deeper), min(T, ceiling(D - deep, deeper))
            for p in range(first, min(P, first + stop - row)):
                top, out, factor = p * down - above, part(y, row * Q * C, Q * C), part(share, (o * P + p) * Q, Q)
                row += 1
                if simple:
                    for t in range(nearest, farthest):
                        begin = (image + (deep + t * deeper) * H + top) * W
                        if t == nearest:
                            _average_2x2(part(x, begin, W), part(x, begin + W, W), out, factor)
                        else:
                            _add_2x2(part(x, begin, W), part(x, begin + W, W), out, factor)
                    continue
                highest, lowest = ceiling(max(0, -top), lower), min(R, ceiling(H - top, lower))
                pixels, terms = part(line, before * C, W * C), 0
                fill(spare, 0)
                for t in range(nearest, farthest):
                    r = highest
                    while r < lowest:
                        begin = (image + (deep + t * deeper) * H + top + r * lower) * W * C
                        values = part(x, begin, W * C)
                        if terms == longest[0]:
                            _add(part(spare, 0, W * C), pixels)
                            terms = 0
                        if terms:
                            _add(pixels, values)
                        elif r + 1 < lowest:
                            _put_two(pixels, values, part(x, begin + lower * W * C, W * C))
                            terms, r = 1, r + 1
                        else:
                            _put(pixels, values)
                        terms, r = terms + 1, r + 1
                if len(spare):
                    _add(pixels, part(spare, 0, W * C))
                fill(total, 0)
                fill(spare, 0)
                for i in range(runs):
                    sums, terms = part(total, i * length, length), 0
                    for s in range(S):
                        column = part(line, (i * across + s * aside) * C, length)
                        if terms == longest[1]:
                            _add(part(spare, i * length, length), sums)
                            fill(sums, 0)
                            terms = 0
                        if step > 1:
                            _add_picked(sums, column, step)
                        else:
                            _add(sums, column)
                        terms += 1
                if len(spare):
                    _add(total, part(spare, 0, Q * C))
                _scale(total, factor, out)


@apart_loop
def _spread_2x2(dy, share, top, bottom):
    for q in range(len(dy)):
        g = dy[q] * share[q]
        top[2 * q] = g
        top[2 * q + 1] = g
        bottom[2 * q] = g
        bottom[2 * q + 1] = g


@apart_loop
def _spread_tiles(dy, share, target, R, S, W):
    """Fill R rows of pixels (W, C) with those of windows that tile them."""
    C = len(dy) // len(share)
    for q in range(len(share)):
        g = part(dy, q * C, C)
        for r in range(R):
            for s in range(S):
                pixel = part(target, ((r * W) + q * S + s) * C, C)
                for c in range(C):
                    pixel[c] = g[c] * share[q]


@compiled_pass(COUNTER, NUMBER, read(5), write(5), read(1), write(1), _ROOMS, NUMBER, boolean, PAIR, WINDOWS)
def _backward(counter, size, dy, dx, share, memory, rooms, planes, tiled, longest, windows):
    """dy (N, Z, P, Q, C), dx (N, D, H, W, C), share (Z P Q,): in pieces of so many planes of dy, `size` of them at once.

    memory: for a row of windows, times share, spread over a row of pixels and padding; for these windows; and for a row and a
    volume, or nothing, where there is more to add up than the longest run of columns or rows.
    """
    Z, P, Q, C = dy.shape[1:]
    D, H, W = dx.shape[1:4]
    T, R, S, back, down, across, front, above, before, deeper, lower, aside = windows
    pieces, (runs, length, step) = dx.shape[0] * (Z // planes), _runs(Q, across, C)
    line, total = part(memory, 0, rooms[0]), part(memory, rooms[0], rooms[1])
    spare, room = part(memory, rooms[0] + rooms[1], rooms[2]), part(memory, rooms[0] + rooms[1] + rooms[2], rooms[3])
    # Rows of a lone plane are met in order: the first time they are filled.
    lone = D == Z == lower == 1 and not len(room)
    fill(room, 0)
    while True:
        start = take(counter) * size
        if start >= pieces:
            return
        for piece in range(start, min(start + size, pieces)):
            n, o = piece * planes // Z, piece * planes % Z
            # Its own planes of dx are those up to where the next piece begins, and all that are left of the last.
            first = min(D, max(0, o * back - front)) if o else 0
            last = min(D, max(0, (o + planes) * back - front)) if o + planes < Z else D
            if tiled:
                for row in range(o * T * P, (o + 1) * T * P):
                    p, pixels = o * P + row % P, (n * D * H + row * R) * W * C
                    g, factor = part(dy, (n * Z * P + p) * Q * C, Q * C), part(share, p * Q, Q)
                    if C == 1:
                        _spread_2x2(g, factor, part(dx, pixels, W), part(dx, pixels + W, W))
                    else:
                        _spread_tiles(g, factor, part(dx, pixels, R * W * C), R, S, W)
                continue
            if not lone:
                fill(part(dx, (n * D + first) * H * W * C, (last - first) * H * W * C), 0)
            volume, done = part(dx, n * D * H * W * C, D * H * W * C), 0
            for plane in range(o, o + planes):
                deep, met = plane * back - front, 0
                nearest, farthest = ceiling(max(0, -deep), deeper), min(T, ceiling(D - deep, deeper))
                for p in range(P):
                    g = part(dy, ((n * Z + plane) * P + p) * Q * C, Q * C)
                    factor, top = part(share, (plane * P + p) * Q, Q), p * down - above
                    if step == 1:
                        _scale(g, factor, total)
                    fill(line, 0)
                    fill(spare, 0)
                    terms = 0
                    for s in range(S):
                        if terms == longest[1]:
                            _add(spare, line)
                            fill(line, 0)
                            terms = 0
                        if step > 1:
                            _add_apart(part(line, s * aside, 0), g, factor, step)
                        else:
                            for i in range(runs):
                                into = part(line, (i * across + s * aside) * C, length)
                                _add(into, part(total, i * length, length))
                        terms += 1
                    if len(spare):
                        _add(line, spare)
                    row = part(line, before * C, W * C)
                    highest, lowest = ceiling(max(0, -top), lower), min(R, ceiling(H - top, lower))
                    if lone:  # rows between windows
                        fill(part(volume, done * W * C, max(0, top + highest - done) * W * C), 0)
                    for t in range(nearest, farthest):
                        for r in range(highest, lowest):
                            h = top + r * lower
                            pixels = ((deep + t * deeper) * H + h) * W * C
                            if lone and h >= done:
                                _put(part(volume, pixels, W * C), row)
                            else:
                                _add(part(room if len(room) else volume, pixels, W * C), row)
                    done, met = max(done, top + lowest), met + 1
                    if len(room) and (met == longest[0] or p + 1 == P):
                        begin = (deep + nearest * deeper) * H * W * C
                        count = ((farthest - 1 - nearest) * deeper + 1) * H * W * C
                        _add(part(volume, begin, count), part(room, begin, count))
                        fill(part(room, begin, count), 0)
                        met = 0
            if lone:
                fill(part(volume, done * W * C, (H - done) * W * C), 0)


# Whole images


@compiled_pass(COUNTER, NUMBER, read(4), write(2), sums=True)
def _global_forward_first(counter, size, x, y):
    """Channels-first: x (N, C, H, W)."""
    N, C, H, W = x.shape
    while True:
        start = take(counter) * size
        if start >= N:
            return
        for i in range(start * C, min(start + size, N) * C):
            plane, total = part(x, i * H * W, H * W), 0.0
            for j in range(len(plane)):
                total += float64(plane[j])
            y[i // C, i % C] = total / (H * W)


@compiled_pass(COUNTER, NUMBER, read(4), write(2), write(1, float64))
def _global_forward_last(counter, size, x, y, total):
    """Channels-last: x (N, H, W, C); total (C,)."""
    N, H, W, C = x.shape
    while True:
        start = take(counter) * size
        if start >= N:
            return
        for i in range(start, min(start + size, N)):
            fill(total, 0)
            for j in range(H * W):
                values = part(x, (i * H * W + j) * C, C)
                for c in range(C):
                    total[c] += float64(values[c])
            for c in range(C):
                y[i, c] = total[c] / (H * W)


@compiled_pass(COUNTER, NUMBER, read(2), write(4))
def _global_backward_first(counter, size, dy, dx):
    """Channels-first: dx (N, C, H, W)."""
    N, C, H, W = dx.shape
    while True:
        start = take(counter) * size
        if start >= N:
            return
        for i in range(start * C, min(start + size, N) * C):
            fill(part(dx, i * H * W, H * W), dy[i // C, i % C] / dx.dtype.type(H * W))


@compiled_pass(COUNTER, NUMBER, read(2), write(4))
def _global_backward_last(counter, size, dy, dx):
    """Channels-last: dx (N, H, W, C)."""
    N, H, W, C = dx.shape
    count = dx.dtype.type(H * W)
    while True:
        start = take(counter) * size
        if start >= N:
            return
        for i in range(start, min(start + size, N)):
            g = part(dy, i * C, C)
            for j in range(H * W):
                target = part(dx, (i * H * W + j) * C, C)
                for c in range(C):
                    target[c] = g[c] / count
