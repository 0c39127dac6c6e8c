"""Average pooling, over windows and over whole images; share is 1 / (pixels averaged) of a window, (P, Q)."""

from __future__ import annotations

import numpy as np
from numba import boolean, float64

from ...pool_shapes import PoolSizes
from ...shapes import is_channels_last
from ..layout import stored
from ..parallel import scratch, share_out
from ..taps import column_taps_tile, row_taps_tile
from .atomic import COUNTER, take
from .jit import NUMBER, apart_loop, compiled_pass, read, write
from .pieces import SIZES, fill, part, sizes_of

_BLOCK = 32 * 1024  # elements of the image
_LEAST = 4  # blocks that are worth another thread
_FLOAT64 = np.dtype(np.float64)


def forward(x: np.ndarray, y: np.ndarray, share: np.ndarray, z: PoolSizes) -> None:
    """Fill y with the sums of x over windows, times share (P, Q)."""
    run, channels, line = (_forward_last, z.C, 0) if is_channels_last(y) else (_forward_first, 1, z.W + 2 * z.pad[1])
    images, out = stored(y, x, y)
    simple = (z.R, z.S) == z.stride == (2, 2) and z.pad == (0, 0)
    size = max(1, _BLOCK // (z.stride[0] * z.W * channels))

    def work(counter: np.ndarray) -> None:
        run(counter, size, images, out, share, scratch("line", (line,), x.dtype), simple, sizes_of(z))

    share_out(work, -(-z.N * z.C // channels * z.P // size), _LEAST)


def backward(dy: np.ndarray, dx: np.ndarray, share: np.ndarray, z: PoolSizes) -> None:
    """Fill dx: each pixel gets the sum of dy times share over the windows it lies in."""
    run, channels, line = (_backward_last, z.C, 0) if is_channels_last(dx) else (_backward_first, 1, z.W + 2 * z.pad[1])
    gradient, out = stored(dx, dy, dx)
    tiled = row_taps_tile(z) and column_taps_tile(z) and (channels > 1 or (z.R, z.S) == (2, 2))
    size = max(1, _BLOCK // (z.H * z.W * channels))

    def work(counter: np.ndarray) -> None:
        run(counter, size, gradient, out, share, scratch("line", (line,), dy.dtype), tiled, sizes_of(z))

    share_out(work, -(-z.N * z.C // channels // size), _LEAST)


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


@apart_loop
def _add(total, values, step):
    for i in range(len(total)):
        total[i] += values[i * step]


@apart_loop
def _average_2x2(top, bottom, out, share):
    for q in range(len(out)):
        out[q] = ((top[2 * q] + top[2 * q + 1]) + (bottom[2 * q] + bottom[2 * q + 1])) * share[q]


_ARGUMENTS = COUNTER, NUMBER, read(4), write(4), read(2), write(1), boolean, SIZES


@compiled_pass(*_ARGUMENTS)
def _forward_first(counter, size, x, y, share, line, simple, sizes):
    """Channels-first: x (N, C, H, W), y (N, C, P, Q); line: a window's rows, added up, between padding."""
    H, W = x.shape[2:]
    P, Q = y.shape[2:]
    rows = x.shape[0] * x.shape[1] * P
    R, S, down, across, above, before = sizes
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        for row in range(start, min(start + size, rows)):
            top, image = row % P * down - above, row // P * H
            out, factor = part(y, row * Q, Q), part(share, row % P * Q, Q)
            if simple:
                _average_2x2(part(x, (image + top) * W, W), part(x, (image + top + 1) * W, W), out, factor)
                continue
            fill(line, 0)
            for r in range(max(0, -top), min(R, H - top)):
                _add(part(line, before, W), part(x, (image + top + r) * W, W), 1)
            fill(out, 0)
            for s in range(S):
                _add(out, part(line, s, 0), across)
            for q in range(Q):
                out[q] *= factor[q]


@compiled_pass(*_ARGUMENTS)
def _forward_last(counter, size, x, y, share, line, simple, sizes):
    """Channels-last: x (N, H, W, C), y (N, P, Q, C)."""
    _, H, W, C = x.shape
    P, Q = y.shape[1:3]
    rows = x.shape[0] * P
    R, S, down, across, above, before = sizes
    while True:
        start = take(counter) * size
        if start >= rows:
            return
        for row in range(start, min(start + size, rows)):
            top, image = row % P * down - above, row // P * H
            fill(part(y, row * Q * C, Q * C), 0)
            for q in range(Q):
                left = q * across - before
                out = part(y, (row * Q + q) * C, C)
                last = min(S, W - left)
                for r in range(max(0, -top), min(R, H - top)):
                    pixels = (image + top + r) * W + left
                    s = max(0, -left)
                    while s + 1 < last:
                        a, b = part(x, (pixels + s) * C, C), part(x, (pixels + s + 1) * C, C)
                        for c in range(C):
                            out[c] += a[c] + b[c]
                        s += 2
                    if s < last:
                        _add(out, part(x, (pixels + s) * C, C), 1)
                factor = share[row % P, q]
                for c in range(C):
                    out[c] *= factor


@apart_loop
def _spread_2x2(dy, share, top, bottom):
    for q in range(len(dy)):
        g = dy[q] * share[q]
        top[2 * q] = g
        top[2 * q + 1] = g
        bottom[2 * q] = g
        bottom[2 * q + 1] = g


@apart_loop
def _spread(dy, share, target, step):
    for q in range(len(dy)):
        target[q * step] += dy[q] * share[q]


@compiled_pass(*_ARGUMENTS)
def _backward_first(counter, size, dy, dx, share, line, tiled, sizes):
    """Channels-first: fill dx (N, C, H, W); line: a row of windows, spread over a row of pixels and padding."""
    H, W = dx.shape[2:]
    P, Q = dy.shape[2:]
    planes = dx.shape[0] * dx.shape[1]
    R, S, down, across, above, before = sizes
    while True:
        start = take(counter) * size
        if start >= planes:
            return
        for i in range(start, min(start + size, planes)):
            if not tiled:
                fill(part(dx, i * H * W, H * W), 0)
            for p in range(P):
                g, factor = part(dy, (i * P + p) * Q, Q), part(share, p * Q, Q)
                top = p * down - above
                if tiled:
                    _spread_2x2(g, factor, part(dx, (i * H + top) * W, W), part(dx, (i * H + top + 1) * W, W))
                    continue
                fill(line, 0)
                for s in range(S):
                    _spread(g, factor, part(line, s, 0), across)
                for r in range(max(0, -top), min(R, H - top)):
                    _add(part(dx, (i * H + top + r) * W, W), part(line, before, W), 1)


@compiled_pass(*_ARGUMENTS)
def _backward_last(counter, size, dy, dx, share, line, tiled, sizes):
    """Channels-last: fill dx (N, H, W, C)."""
    N, H, W, C = dx.shape
    P, Q = dy.shape[1:3]
    R, S, down, across, above, before = sizes
    while True:
        start = take(counter) * size
        if start >= N:
            return
        for i in range(start, min(start + size, N)):
            if not tiled:
                fill(part(dx, i * H * W * C, H * W * C), 0)
            for p in range(P):
                top = p * down - above
                for q in range(Q):
                    left = q * across - before
                    g, factor = part(dy, ((i * P + p) * Q + q) * C, C), share[p, q]
                    for r in range(max(0, -top), min(R, H - top)):
                        for s in range(max(0, -left), min(S, W - left)):
                            target = part(dx, ((i * H + top + r) * W + left + s) * C, C)
                            if tiled:
                                for c in range(C):
                                    target[c] = g[c] * factor
                            else:
                                for c in range(C):
                                    target[c] += g[c] * factor


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
