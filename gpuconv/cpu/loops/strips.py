"""Pixels of a block brought into scratch memory, channels last with their padding in place, and results brought out.

Arrays are flat here but for those of any strides.  An image in scratch memory is (h, w, pitch): pitch may be more than
the channels, so that pixels a power of two apart do not share cache sets, and what is more than `channels` is not read.
"""

from __future__ import annotations

from numba import float32, types

from .jit import apart_loop, loop
from .vectors import LANES, transpose_square

ANY = types.Array(float32, 4, "A", readonly=True)
ANY_TARGET = types.Array(float32, 4, "A")


@apart_loop
def copy(source, s0, target, t0, count):
    for i in range(count):
        target[t0 + i] = source[s0 + i]


@loop
def zero(target, t0, count):
    for i in range(count):
        target[t0 + i] = 0


@loop
def transpose(source, s0, s_row, target, t0, t_row, rows, columns):
    """target[t0 + j t_row + i] = source[s0 + i s_row + j] for i < rows, j < columns."""
    whole_rows, whole_columns = rows // LANES * LANES, columns // LANES * LANES
    for i in range(0, whole_rows, LANES):
        for j in range(0, whole_columns, LANES):
            transpose_square(source, s0 + i * s_row + j, s_row, target, t0 + j * t_row + i, t_row)
    for i in range(rows):
        for j in range(whole_columns if i < whole_rows else 0, columns):
            target[t0 + j * t_row + i] = source[s0 + i * s_row + j]


@loop
def fill(x, last, size, first, images, channels, out, o0, height, width, pitch, top, left, turned):
    """Fill out (images, height, width, pitch) from row top, column left of images of x, 0 where they have no pixel.

    size: (C, H, W) of x, stored (N, H, W, C) where last, else (N, C, H, W); turned: free memory for (H, W, C) values.
    """
    C, H, W = size
    begin, end = max(0, top), min(H, top + height)
    lead, stop = min(max(0, -left), width), max(0, min(width, W - left))
    for i in range(images):
        source, row = x, C * W
        start = (first + i) * C * H * W + (begin * W * C if last else begin * W)
        if not last and begin < end:  # planes of the rows that are read, to pixels
            transpose(x, start, H * W, turned, 0, C, C, (end - begin) * W)
            source, start = turned, 0
        for y in range(height):
            target = o0 + (i * height + y) * width * pitch
            if not begin <= top + y < end or lead >= stop:
                zero(out, target, width * pitch)
                continue
            here = start + (top + y - begin) * row + (left + lead) * C
            zero(out, target, lead * pitch)
            if pitch == C:
                copy(source, here, out, target + lead * C, (stop - lead) * C)
            else:
                for q in range(lead, stop):
                    copy(source, here + (q - lead) * C, out, target + q * pitch, channels)
                    zero(out, target + q * pitch + channels, pitch - channels)
            zero(out, target + stop * pitch, (width - stop) * pitch)


@loop
def empty(out, o0, pitch, height, width, planes, y, first, images, p0, rows, k0, channels):
    """Copy out (images, height, width, pitch) to channels k0, k0 + 1, ... of rows p0, p0 + 1, ... of y (N, K, P, Q).

    planes: y, flat, if it is C-contiguous; else empty, and y may have any strides.
    """
    K, P, Q = y.shape[1:]
    for i in range(images):
        start = o0 + i * height * width * pitch
        if len(planes):
            target = (((first + i) * K + k0) * P + p0) * Q
            if width == Q:
                transpose(out, start, pitch, planes, target, P * Q, rows * Q, channels)
            else:
                for p in range(rows):
                    transpose(out, start + p * width * pitch, pitch, planes, target + p * Q, P * Q, Q, channels)
        elif y.strides[1] < y.strides[3]:
            for p in range(rows):
                for q in range(Q):
                    for k in range(channels):
                        y[first + i, k0 + k, p0 + p, q] = out[start + (p * width + q) * pitch + k]
        else:
            for k in range(channels):
                for p in range(rows):
                    for q in range(Q):
                        y[first + i, k0 + k, p0 + p, q] = out[start + (p * width + q) * pitch + k]
