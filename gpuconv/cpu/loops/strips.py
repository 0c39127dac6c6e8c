"""Pixels of a block brought into scratch memory, channels last with their padding in place, and results brought out.

An image in scratch memory is (height, width, pitch): pitch may be more than the channels, so that pixels a power of two
apart do not share cache sets; what is more than `channels` is 0.
"""

from __future__ import annotations

from numba import float32, types

from .jit import callback, loop
from .vectors import LANES, copy, copy_value, transpose_square, zero

ANY = types.Array(float32, 4, "A", readonly=True)
ANY_TARGET = types.Array(float32, 4, "A")


@loop
def transpose(source, s_row, target, t_row, rows, columns):
    """target[j t_row + i] = source[i s_row + j] for i < rows, j < columns."""
    whole_rows, whole_columns = rows // LANES * LANES, columns // LANES * LANES
    for i in range(0, whole_rows, LANES):
        for j in range(0, whole_columns, LANES):
            transpose_square(source + 4 * (i * s_row + j), s_row, target + 4 * (j * t_row + i), t_row)
    for i in range(rows):
        for j in range(whole_columns if i < whole_rows else 0, columns):
            copy_value(source + 4 * (i * s_row + j), target + 4 * (j * t_row + i))


@callback(6)
def transpose_rows(source, s_row, target, t_row, rows, columns):
    """As transpose."""
    transpose(source, s_row, target, t_row, rows, columns)


@callback(13)
def fill(x, last, C, H, W, images, out, height, width, pitch, top, left, turned):
    """Fill out (images, height, width, pitch) from row top, column left of images at x, 0 where they have no pixel.

    Images are stored (N, H, W, C) where last, else (N, C, H, W); turned: free memory for one.
    """
    begin, end = max(0, top), min(H, top + height)
    lead, stop = min(max(0, -left), width), max(0, min(width, W - left))
    for i in range(images):
        start = x + 4 * (i * C * H * W + (begin * W * C if last else begin * W))
        if not last and begin < end:  # planes of the rows that are read, to pixels
            transpose(start, H * W, turned, C, C, (end - begin) * W)
            start = turned
        for y in range(height):
            target = out + 4 * (i * height + y) * width * pitch
            if not begin <= top + y < end or lead >= stop:
                zero(target, width * pitch)
                continue
            here = start + 4 * ((top + y - begin) * W + left + lead) * C
            zero(target, lead * pitch)
            if pitch == C:
                copy(here, target + 4 * lead * C, (stop - lead) * C)
            else:
                for q in range(stop - lead):
                    copy(here + 4 * q * C, target + 4 * (lead + q) * pitch, C)
                    zero(target + 4 * ((lead + q) * pitch + C), pitch - C)
            zero(target + 4 * stop * pitch, (width - stop) * pitch)


@callback(14)
def empty(out, images, pitch, height, width, channels, planes, y, image, channel, row, column, rows, columns):
    """Copy images (height, width, pitch) at out to `channels` of y, as far as its rows and columns go.

    image, channel, row, column: strides of y, in bytes; planes: each of its planes lies row after row without gaps.
    """
    for i in range(images):
        source, target = out + 4 * i * height * width * pitch, y + i * image
        if planes and width == columns:
            transpose(source, pitch, target, channel // 4, rows * columns, channels)
            continue
        for p in range(rows):
            if planes:
                transpose(source + 4 * p * width * pitch, pitch, target + p * row, channel // 4, columns, channels)
                continue
            for q in range(columns):
                here = source + 4 * (p * width + q) * pitch
                if channel == 4:
                    copy(here, target + p * row + q * column, channels)
                else:
                    for k in range(channels):
                        copy_value(here + 4 * k, target + k * channel + p * row + q * column)
