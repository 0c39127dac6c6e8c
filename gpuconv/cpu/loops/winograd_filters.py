"""Filters in Winograd's F(2x2, 3x3): to 4x4 places each, and their gradient back from there."""

from __future__ import annotations

import numpy as np
from numba import boolean

from ..parallel import for_each, ranges, scratch
from .blocks import OFFSETS, TOOLS, TRANSPOSE
from .jit import NUMBER, compiled_pass, loop, read, write
from .strips import ANY
from .vectors import absolute, address_of, along, call, constant, copy, zero

_FLOAT32 = np.dtype(np.float32)


def transformed_filters(w: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return G w G' in panels, (16, panels, C, width), the sizes of taps (9, K) and their squares (K,)."""
    K, C = w.shape[:2]
    backwards = w.strides[2:] == (-12, -4)
    if not backwards and w.strides[2:] != (12, 4):
        w = np.ascontiguousarray(w)
    out = np.empty((16, -(-K // width), C, width), np.float32)
    room = out.shape[1] * width
    parts = ranges(C, 16)
    sizes = np.zeros((len(parts), 10, room), np.float32)

    def work(part: int) -> None:
        _transform_filters(TOOLS, w, backwards, out, scratch("conv", (9 * room,), _FLOAT32), sizes[part], *parts[part])

    for_each(work, range(len(parts)), blas=False)
    totals = sizes.sum(axis=0, dtype=np.float64)[:, :K]
    return out, totals[:9], totals[9]


def filter_gradient(sums: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return G' . G of sums (shares, 16, C, room), which lack the minus of row and column 3, as dw of a shape (K, C, 3, 3)."""
    C, room = sums.shape[2:]
    dw = np.empty(shape, np.float32)

    def work(channels: tuple[int, int]) -> None:
        _weight_gradient(TOOLS, sums, dw, scratch("conv", (25 * room,), _FLOAT32), *channels)

    for_each(work, ranges(C, 16), blas=False)
    return dw


@loop
def four(first, step):
    """Return four addresses, so many values apart."""
    return first, first + 4 * step, first + 8 * step, first + 12 * step


def _side(builder, a, b, c, *, half):
    """G of three values: a, (a + b + c) / 2, (a - b + c) / 2, c."""
    side, middle = builder.fmul(builder.fadd(a, c), half), builder.fmul(b, half)
    return a, builder.fadd(side, middle), builder.fsub(side, middle), c


def _back(builder, a, b, c, d, *, half):
    """G' of four values, the last without its minus."""
    middle = builder.fmul(builder.fadd(b, c), half)
    return builder.fadd(a, middle), builder.fmul(builder.fsub(b, c), half), builder.fsub(middle, d)


def _filter_formula(builder, *w):
    """G w G' of nine values."""
    half = constant(w[0].type, 0.5)
    columns = [_side(builder, *w[s::3], half=half) for s in range(3)]
    return [value for r in range(4) for value in _side(builder, *(column[r] for column in columns), half=half)]


def _back_formula(builder, *v):
    """G' v G of sixteen values."""
    half = constant(v[0].type, 0.5)
    columns = [_back(builder, *v[s::4], half=half) for s in range(4)]
    return [value for r in range(3) for value in _back(builder, *(column[r] for column in columns), half=half)]


def _size_formula(builder, value, total, squares):
    """A sum of absolute values and one of squares, each with one more."""
    size = absolute(builder, value)
    return builder.fadd(total, size), builder.fadd(squares, builder.fmul(value, value))


_size_row = along(3, 2, _size_formula)
_filter_row, _back_row = along(9, 16, _filter_formula), along(16, 9, _back_formula)
_add_row = along(2, 1, lambda builder, a, b: [builder.fadd(a, b)])


@loop
def _nine(first, step):
    """Return nine addresses, so many values apart."""
    s = 4 * step
    return (
        first,
        first + s,
        first + 2 * s,
        first + 3 * s,
        first + 4 * s,
        first + 5 * s,
        first + 6 * s,
        first + 7 * s,
        first + 8 * s,
    )


@loop
def _sixteen(first, step):
    """Return sixteen addresses, so many values apart."""
    s = 16 * step
    return (*four(first, step), *four(first + s, step), *four(first + 2 * s, step), *four(first + 3 * s, step))


@compiled_pass(OFFSETS, ANY, boolean, write(4), write(1), write(2), NUMBER, NUMBER)
def _transform_filters(tools, w, backwards, out, memory, sizes, first, stop):
    """Fill channels first to stop of out (16, panels, C, width) with G w G' of filters w (K, C, 3, 3).

    The nine taps lie side by side, or backwards; memory: for nine rows of panels; sizes: to its first nine rows are added
    the absolute values of each tap, to the last the squares of all.
    """
    K = len(w)
    _, panels, C, width = out.shape
    room, rows = panels * width, address_of(memory, 0)
    taps = address_of(w, 0) - (32 if backwards else 0)
    zero(rows, 9 * room)
    for c in range(first, stop):
        source = taps + c * w.strides[1]
        call(tools[TRANSPOSE], (source, w.strides[0] // 4, rows, room, K, 9))
        for tap in range(9):  # as they lie: whether backwards makes no difference
            total = address_of(sizes, tap * room)
            square, row = address_of(sizes, 9 * room), rows + 4 * tap * room
            _size_row((row, total, square, total, square), room)
        for panel in range(panels):
            here = rows + 4 * panel * width
            nine = _nine(here + 32 * room, -room) if backwards else _nine(here, room)
            _filter_row((*nine, *_sixteen(address_of(out, 0) + 4 * (panel * C + c) * width, C * room)), width)


@compiled_pass(OFFSETS, read(4), write(4), write(1), NUMBER, NUMBER)
def _weight_gradient(tools, sums, dw, memory, first, stop):
    """Fill channels first to stop of dw (K, C, 3, 3) with G' . G of the sums (shares, 16, C, room).

    Sums in row or column 3 lack their minus; memory: for 25 rows.
    """
    shares, _, C, room = sums.shape
    total, rows = address_of(memory, 0), address_of(memory, 0) + 64 * room
    for c in range(first, stop):
        for place in range(16):
            row = total + 4 * place * room
            copy(address_of(sums, (place * C + c) * room), row, room)
            for share in range(1, shares):
                _add_row((row, address_of(sums, ((share * 16 + place) * C + c) * room), row), room)
        _back_row((*_sixteen(total, room), *_nine(rows, room)), room)
        call(tools[TRANSPOSE], (rows, room, address_of(dw, 9 * c), 9 * C, 9, len(dw)))
