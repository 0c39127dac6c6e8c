"""Average pooling of a block of images, and over whole images; share is 1 / (pixels averaged) of a window, (P, Q)."""

from __future__ import annotations

import numpy as np
from numba import float64

from ...shapes import PoolSizes, is_channels_last
from ..layout import stored
from ..parallel import scratch
from .jit import PAIR, apart_loop, compiled_pass, read, write
from .pieces import fill, inside

BLOCK = 128 * 1024


def forward(x: np.ndarray, y: np.ndarray, share: np.ndarray, z: PoolSizes) -> None:
    """Fill y with the sums of x over windows, times share (P, Q)."""
    arrays, sizes = stored(y, x, y), ((z.R, z.S), z.stride, z.pad)
    if is_channels_last(y):
        _forward_last(*arrays, share, *sizes)
    else:
        _forward_first(*arrays, share, scratch("line", (z.W,), x.dtype), *sizes)


def backward(dy: np.ndarray, dx: np.ndarray, share: np.ndarray, z: PoolSizes) -> None:
    """Fill dx: each pixel gets the sum of dy times share over the windows it lies in."""
    arrays, sizes = stored(dx, dy, dx), ((z.R, z.S), z.stride, z.pad)
    if is_channels_last(dx):
        _backward_last(*arrays, share, scratch("part", (z.C,), dy.dtype), *sizes)
    else:
        _backward_first(*arrays, share, scratch("part", (z.Q,), dy.dtype), scratch("line", (z.W,), dy.dtype), *sizes)


def global_forward(x: np.ndarray, y: np.ndarray) -> None:
    """Fill y (n, C) with the means of images."""
    (images,) = stored(x, x)
    if is_channels_last(x):
        _global_forward_last(images, y, scratch("total", (x.shape[1],), np.dtype(np.float64)))
    else:
        _global_forward_first(images, y)


def global_backward(dy: np.ndarray, dx: np.ndarray) -> None:
    """Fill each image of dx with its share of dy (n, C)."""
    (images,) = stored(dx, dx)
    run = _global_backward_last if is_channels_last(dx) else _global_backward_first
    run(*stored(dy, dy), images)


@apart_loop
def _add(total, values, step):
    for i in range(len(total)):
        total[i] += values[i * step]


@apart_loop
def _copy(values, out):
    for i in range(len(out)):
        out[i] = values[i]


@apart_loop
def _add_two(total, a, b):
    for i in range(len(total)):
        total[i] += a[i] + b[i]


@apart_loop
def _spread(target, values, step):
    for i in range(len(values)):
        target[i * step] += values[i]


@apart_loop
def _scale(values, factor, out):
    for i in range(len(out)):
        out[i] = values[i] * factor[i]


@apart_loop
def _times(values, factor, out):
    for i in range(len(out)):
        out[i] = values[i] * factor


@apart_loop
def _average_2x2(top, bottom, out, share):
    for q in range(len(out)):
        out[q] = ((top[2 * q] + top[2 * q + 1]) + (bottom[2 * q] + bottom[2 * q + 1])) * share[q]


@compiled_pass(read(4), write(4), read(2), write(1), PAIR, PAIR, PAIR)
def _forward_first(x, y, share, line, window, stride, pad):
    """Channels-first: x (n, C, H, W), y (n, C, P, Q); line (W,): a window's rows, added up."""
    n, C, H, W = x.shape
    P, Q = y.shape[2:]
    simple = window == (2, 2) and stride == (2, 2) and pad == (0, 0)
    for i in range(n):
        for c in range(C):
            for p in range(P):
                out = y[i, c, p]
                if simple:
                    _average_2x2(x[i, c, 2 * p], x[i, c, 2 * p + 1], out, share[p])
                    continue
                fill(line, 0)
                fill(out, 0)
                top = p * stride[0] - pad[0]
                for r in range(max(0, -top), min(window[0], H - top)):
                    _add(line, x[i, c, top + r], 1)
                for s in range(window[1]):
                    first, last = inside(s, W, Q, stride[1], pad[1])
                    _add(out[first:last], line[first * stride[1] - pad[1] + s :], stride[1])
                for q in range(Q):
                    out[q] *= share[p, q]


@compiled_pass(read(4), write(4), read(2), PAIR, PAIR, PAIR)
def _forward_last(x, y, share, window, stride, pad):
    """Channels-last: x (n, H, W, C), y (n, P, Q, C)."""
    n, H, W, C = x.shape
    P, Q = y.shape[1:3]
    for i in range(n):
        for p in range(P):
            top = p * stride[0] - pad[0]
            for q in range(Q):
                left = q * stride[1] - pad[1]
                out = y[i, p, q]
                s0, s1 = max(0, -left), min(window[1], W - left)
                fill(out, 0)
                for r in range(max(0, -top), min(window[0], H - top)):
                    if s1 - s0 == 2:
                        _add_two(out, x[i, top + r, left + s0], x[i, top + r, left + s0 + 1])
                        continue
                    for s in range(s0, s1):
                        _add(out, x[i, top + r, left + s], 1)
                for c in range(C):
                    out[c] *= share[p, q]


@apart_loop
def _spread_2x2(dy, share, top, bottom):
    for q in range(len(dy)):
        g = dy[q] * share[q]
        top[2 * q] = g
        top[2 * q + 1] = g
        bottom[2 * q] = g
        bottom[2 * q + 1] = g


@compiled_pass(read(4), write(4), read(2), write(1), write(1), PAIR, PAIR, PAIR)
def _backward_first(dy, dx, share, part, line, window, stride, pad):
    """Channels-first: fill dx (n, C, H, W); part (Q,), line (W,): a row of windows, spread over a row of pixels."""
    n, C, H, W = dx.shape
    P, Q = dy.shape[2:]
    tiled = window == (2, 2) and stride == (2, 2) and pad == (0, 0) and (H, W) == (2 * P, 2 * Q)
    for i in range(n):
        for c in range(C):
            if not tiled:
                fill(dx[i, c].reshape(-1), 0)
            for p in range(P):
                if tiled:
                    _spread_2x2(dy[i, c, p], share[p], dx[i, c, 2 * p], dx[i, c, 2 * p + 1])
                    continue
                _scale(dy[i, c, p], share[p], part)
                fill(line, 0)
                for s in range(window[1]):
                    first, last = inside(s, W, Q, stride[1], pad[1])
                    _spread(line[first * stride[1] - pad[1] + s :], part[first:last], stride[1])
                top = p * stride[0] - pad[0]
                for r in range(max(0, -top), min(window[0], H - top)):
                    _add(dx[i, c, top + r], line, 1)


@compiled_pass(read(4), write(4), read(2), write(1), PAIR, PAIR, PAIR)
def _backward_last(dy, dx, share, part, window, stride, pad):
    """Channels-last: fill dx (n, H, W, C); part (C,): the share of one window."""
    n, H, W = dx.shape[:3]
    P, Q = dy.shape[1:3]
    tiled = window == stride and pad == (0, 0) and window[0] * P == H and window[1] * Q == W
    for i in range(n):
        if not tiled:
            fill(dx[i].reshape(-1), 0)
        for p in range(P):
            top = p * stride[0] - pad[0]
            for q in range(Q):
                left = q * stride[1] - pad[1]
                _times(dy[i, p, q], share[p, q], part)
                for r in range(max(0, -top), min(window[0], H - top)):
                    for s in range(max(0, -left), min(window[1], W - left)):
                        target = dx[i, top + r, left + s]
                        if tiled:
                            _copy(part, target)
                        else:
                            _add(target, part, 1)


@compiled_pass(read(4), write(2), sums=True)
def _global_forward_first(x, y):
    """Channels-first: x (n, C, H, W)."""
    n, C, H, W = x.shape
    for i in range(n):
        for c in range(C):
            total = 0.0
            plane = x[i, c].reshape(-1)
            for j in range(len(plane)):
                total += float64(plane[j])
            y[i, c] = total / (H * W)


@compiled_pass(read(4), write(2), write(1, float64))
def _global_forward_last(x, y, total):
    """Channels-last: x (n, H, W, C); total (C,)."""
    n, H, W, C = x.shape
    for i in range(n):
        fill(total, 0)
        for h in range(H):
            for w in range(W):
                values = x[i, h, w]
                for c in range(C):
                    total[c] += float64(values[c])
        for c in range(C):
            y[i, c] = total[c] / (H * W)


@compiled_pass(read(2), write(4))
def _global_backward_first(dy, dx):
    """Channels-first: dx (n, C, H, W)."""
    n, C, H, W = dx.shape
    for i in range(n):
        for c in range(C):
            fill(dx[i, c].reshape(-1), dy[i, c] / dx.dtype.type(H * W))


@compiled_pass(read(2), write(4))
def _global_backward_last(dy, dx):
    """Channels-last: dx (n, H, W, C)."""
    n, H, W, C = dx.shape
    for i in range(n):
        for h in range(H):
            for w in range(W):
                target = dx[i, h, w]
                for c in range(C):
                    target[c] = dy[i, c] / dx.dtype.type(H * W)
