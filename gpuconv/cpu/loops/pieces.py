"""What several operators' passes are made of."""

from __future__ import annotations

from numba import float64, types
from numba.core import cgutils
from numba.extending import intrinsic

from ...pool_shapes import PoolSizes, VolumePoolSizes
from .jit import apart_loop, loop, summing_loop

# Of pooling, of planes, rows and columns each: the windows' taps, their steps, the padding before them, and how far apart taps are.
WINDOWS = types.UniTuple(types.intp, 12)


def windows_of(z: PoolSizes | VolumePoolSizes) -> tuple[int, ...]:
    """Return the windows of pooling as passes take them; of images they have one plane."""
    if isinstance(z, PoolSizes):
        return 1, *z.window, 1, *z.stride, 0, *z.pad, 1, *z.dilation
    return (*z.window, *z.stride, *z.pad, *z.dilation)


def shapes(z: PoolSizes | VolumePoolSizes, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of x and of y as volumes of so many channels."""
    N, (D, Z) = z.N * z.C // channels, (1, 1) if isinstance(z, PoolSizes) else (z.D, z.Z)
    return (N, D, z.H, z.W, channels), (N, Z, z.P, z.Q, channels)


@intrinsic
def part(context, array, start, length):
    """Return so many elements of an array from one on, counted in order of storage: a slice with nothing to check."""
    flat = types.Array(array.dtype, 1, "C", readonly=not array.mutable)

    def lower(context, builder, signature, arguments):
        values = context.make_array(array)(context, builder, arguments[0])
        run = context.make_array(flat)(context, builder)
        context.populate_array(
            run,
            data=builder.gep(values.data, [arguments[1]]),
            shape=cgutils.pack_array(builder, [arguments[2]]),
            strides=cgutils.pack_array(builder, [values.itemsize]),
            itemsize=values.itemsize,
            meminfo=None,
        )
        return run._getvalue()

    return flat(array, types.intp, types.intp), lower


@apart_loop
def fill(values, value):
    for i in range(len(values)):
        values[i] = value


@loop
def ceiling(a, b):
    """Return a / b, rounded up; at once for 1, which is what b mostly is."""
    return a if b == 1 else -(-a // b)


# Sums for statistics, in float64


@summing_loop
def add_up(values, pivot):
    """Return the sum of what deviates from a pivot, and of its square."""
    first = second = 0.0
    for j in range(len(values)):
        d = float64(values[j]) - pivot
        first += d
        second += d * d
    return first, second


@summing_loop
def add_products(dy, x, centre):
    """Return the sum of dy, and of dy (x - centre)."""
    total = weighted = 0.0
    for j in range(len(dy)):
        g = float64(dy[j])
        total += g
        weighted += g * (float64(x[j]) - centre)
    return total, weighted


# The same side by side, into vectors of sums


@apart_loop
def add_row(x, pivot, first, second):
    """Add what deviates from pivots, and its squares."""
    for j in range(len(x)):
        d = float64(x[j]) - float64(pivot[j])
        first[j] += d
        second[j] += d * d


@apart_loop
def add_row_products(dy, x, centre, total, weighted):
    """Add dy, and dy (x - centre)."""
    for j in range(len(dy)):
        g = float64(dy[j])
        total[j] += g
        weighted[j] += g * (float64(x[j]) - float64(centre[j]))
