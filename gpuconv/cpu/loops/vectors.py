"""Vectors of this processor, and what Numba has no words for: written in LLVM's own language.

LANES float32 values fill one register: 16 with AVX-512, 8 with AVX2, else 4.
"""

from __future__ import annotations

import functools

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from .jit import vector_bits

ARM = cpu_target.target_context.codegen().magic_tuple()[0].startswith(("aarch64", "arm64"))
LANES = vector_bits() // 32

INDEX, _NUMBER = ir.IntType(64), ir.IntType(32)
VECTOR = ir.VectorType(ir.FloatType(), LANES)
_BITS, _FLAGS = ir.VectorType(_NUMBER, LANES), ir.VectorType(ir.IntType(1), LANES)
_ALL_BUT_SIGN = 0x7FFFFFFF


def index(value: int) -> ir.Constant:
    """Return a constant number of elements."""
    return ir.Constant(INDEX, value)


def constant(kind, value: float) -> ir.Constant:
    """Return a float, or a vector of one value."""
    return ir.Constant(kind, [value] * LANES if kind == VECTOR else value)


def vector_at(builder, address):
    """Return an address of a float as that of a vector."""
    return builder.bitcast(address, VECTOR.as_pointer())


def load(builder, address):
    """Load a vector from any address."""
    return builder.load(vector_at(builder, address), align=4)


def store(builder, value, address):
    """Store a vector at any address."""
    builder.store(value, vector_at(builder, address), align=4)


def spread(builder, value):
    """Return a vector of one value, a float or a whole number of 32 bits."""
    undefined = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    lane = builder.insert_element(undefined, value, _NUMBER(0))
    return builder.shuffle_vector(lane, undefined, _lanes([0] * LANES))


def multiply_add(builder, a, b, c):
    """Return a b + c, rounded once; twice on processors that have no such instruction, and would call a function."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32"), [a, b, c])


def absolute(builder, value, mask=None):
    """Return the absolute value of a float or of a vector, of which a mask may leave 0 in some lanes."""
    kind = _BITS if value.type == VECTOR else _NUMBER
    if mask is None:
        mask = ir.Constant(kind, [_ALL_BUT_SIGN] * LANES if kind == _BITS else _ALL_BUT_SIGN)
    return builder.bitcast(builder.and_(builder.bitcast(value, kind), mask), value.type)


def phi(builder, *incoming):
    """Return a value that depends on which block came before."""
    node = builder.phi(incoming[0][0].type)
    for value, block in incoming:
        node.add_incoming(value, block)
    return node


def _lanes(numbers):
    return ir.Constant(ir.VectorType(_NUMBER, LANES), numbers)


# Memory by address: a number of bytes; steps and counts are in elements.  Loops over places that Numba cannot prove to
# be at least 0 would look at their sign each time, and not become vectors.


def _pointer(builder, address):
    return builder.inttoptr(address, ir.FloatType().as_pointer())


@intrinsic
def address_of(context, array, place):
    """Return the address of array[place], of a flat or any contiguous array."""

    def lower(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(builder.gep(data, [args[1]]), INDEX)

    return types.intp(array, types.intp), lower


@intrinsic
def copy_value(context, source, target):
    """Copy one value."""

    def lower(context, builder, signature, args):
        builder.store(builder.load(_pointer(builder, args[0])), _pointer(builder, args[1]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), lower


@intrinsic
def copy(context, source, target, count):
    """Copy count values."""

    def lower(context, builder, signature, args):
        source, target = (_pointer(builder, address) for address in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], 4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), lower


@intrinsic
def zero(context, target, count):
    """Set count values to 0."""

    def lower(context, builder, signature, args):
        cgutils.memset(builder, _pointer(builder, args[0]), builder.mul(args[1], index(4)), 0)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 2), lower


def along(inputs: int, outputs: int, formula):
    """Return a loop over rows, f(addresses of inputs and outputs, count): outputs = formula(builder, *inputs).

    A formula adds, subtracts and so on by the builder, vectors first, and what is left value by value.
    """

    @intrinsic
    def row(context, addresses, count):
        def lower(context, builder, signature, args):
            places = [_pointer(builder, each) for each in cgutils.unpack_tuple(builder, args[0], inputs + outputs)]
            whole = builder.sdiv(args[1], index(LANES))
            with cgutils.for_range(builder, whole) as each:
                at = [builder.gep(place, [builder.mul(each.index, index(LANES))]) for place in places]
                values = formula(builder, *(load(builder, address) for address in at[:inputs]))
                for value, address in zip(values, at[inputs:], strict=True):
                    store(builder, value, address)
            with cgutils.for_range(builder, builder.srem(args[1], index(LANES))) as each:
                rest = builder.add(builder.mul(whole, index(LANES)), each.index)
                at = [builder.gep(place, [rest]) for place in places]
                values = formula(builder, *(builder.load(address) for address in at[:inputs]))
                for value, address in zip(values, at[inputs:], strict=True):
                    builder.store(value, address)
            return context.get_dummy_value()

        return types.void(types.UniTuple(types.intp, inputs + outputs), types.intp), lower

    return row


@intrinsic
def transpose_square(context, source, s_row, target, t_row):
    """Write LANES rows of LANES values of source as columns of target, in steps that swap blocks of half the size."""

    def lower(context, builder, signature, args):
        def rows(start, step):
            first = _pointer(builder, start)
            return [builder.gep(first, [builder.mul(step, index(i))]) for i in range(LANES)]

        values = [load(builder, row) for row in rows(*args[:2])]
        size = LANES // 2
        while size:
            low = _lanes([i if not i & size else i - size + LANES for i in range(LANES)])
            high = _lanes([i + size if not i & size else i + LANES for i in range(LANES)])
            for i in range(LANES):
                if not i & size:
                    a, b = values[i], values[i + size]
                    values[i], values[i + size] = (builder.shuffle_vector(a, b, lanes) for lanes in (low, high))
            size //= 2
        for row, value in zip(rows(*args[2:]), values, strict=True):
            store(builder, value, row)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), lower


@intrinsic
def prefetch(context, address):
    """Ask for the cache line of an address, which may lie outside, to be in the L2 cache soon."""

    def lower(context, builder, signature, args):
        place = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, _NUMBER, _NUMBER, _NUMBER])
        call = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(call, [place, _NUMBER(0), _NUMBER(2), _NUMBER(1)])
        return context.get_dummy_value()

    return types.void(types.intp), lower


@intrinsic
def stream(context, source, target, count):
    """Copy count values, whole vectors, past the caches: target begins a cache line.

    An ordinary store first reads the line it writes; worth it where a result is larger than the last cache anyway.
    """

    def lower(context, builder, signature, args):
        source, target = (_pointer(builder, address) for address in args[:2])
        flag = builder.module.add_metadata([_NUMBER(1)])
        with cgutils.for_range(builder, builder.sdiv(args[2], index(LANES))) as each:
            place = builder.mul(each.index, index(LANES))
            value = load(builder, builder.gep(source, [place]))
            written = builder.store(value, vector_at(builder, builder.gep(target, [place])), align=4 * LANES)
            written.set_metadata("nontemporal", flag)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), lower


def _add_sizes(builder, values, total, squares):
    """Add the absolute values of a vector to one sum, and their squares to another."""
    builder.store(builder.fadd(builder.load(total), values), total)
    builder.store(multiply_add(builder, values, values, builder.load(squares)), squares)


def _sums_of_lanes(builder, values):
    """Return a vector of the sums of each of LANES vectors, added in steps that swap blocks of half the size."""
    size = LANES // 2
    while size:
        low = _lanes([i if not i & size else i - size + LANES for i in range(LANES)])
        high = _lanes([i + size if not i & size else i + LANES for i in range(LANES)])
        pairs = zip(values[:size], values[size:], strict=True)
        values = [builder.fadd(*(builder.shuffle_vector(a, b, lanes) for lanes in (low, high))) for a, b in pairs]
        size //= 2
    return values[0]


@intrinsic
def add_channels(context, source, count, channels, totals, squares):
    """Fill totals with the sums of the absolute values of each of `count` pixels, and squares with those of squares.

    channels: LANES at least.  Pixels come by half a vector: memory lies behind each array for as many more.
    """
    group = LANES // 2

    def lower(context, builder, signature, args):
        source, totals, squares = (_pointer(builder, args[i]) for i in (0, 3, 4))
        channels = args[2]
        zeros, half = ir.Constant(VECTOR, [0.0] * LANES), ir.VectorType(ir.FloatType(), group)
        sums = [cgutils.alloca_once(builder, VECTOR) for _ in range(LANES)]
        beyond = builder.srem(channels, index(LANES))
        whole = builder.sdiv(channels, index(LANES))
        # What is left is the end of a vector whose first lanes were counted before.
        first = spread(builder, builder.trunc(builder.sub(index(LANES), beyond), _NUMBER))
        left = builder.icmp_signed(">=", ir.Constant(_BITS, list(range(LANES))), first)
        mask = builder.select(left, ir.Constant(_BITS, [_ALL_BUT_SIGN] * LANES), ir.Constant(_BITS, [0] * LANES))
        groups = builder.sdiv(builder.add(args[1], index(group - 1)), index(group))
        with cgutils.for_range(builder, groups) as each:
            begin = builder.mul(each.index, index(group))
            pixels = [builder.gep(source, [builder.mul(builder.add(begin, index(i)), channels)]) for i in range(group)]
            for one in sums:
                builder.store(zeros, one)
            with cgutils.for_range(builder, whole) as vector:
                lane = builder.mul(vector.index, index(LANES))
                for i, pixel in enumerate(pixels):
                    values = absolute(builder, load(builder, builder.gep(pixel, [lane])))
                    _add_sizes(builder, values, sums[i], sums[group + i])
            with builder.if_then(builder.icmp_signed(">", beyond, index(0))):
                lane = builder.sub(channels, index(LANES))
                for i, pixel in enumerate(pixels):
                    values = absolute(builder, load(builder, builder.gep(pixel, [lane])), mask)
                    _add_sizes(builder, values, sums[i], sums[group + i])
            result = _sums_of_lanes(builder, [builder.load(one) for one in sums])
            for target, lanes in ((totals, range(group)), (squares, range(group, LANES))):
                some = ir.Constant(ir.VectorType(_NUMBER, group), list(lanes))
                place = builder.bitcast(builder.gep(target, [begin]), half.as_pointer())
                builder.store(builder.shuffle_vector(result, result, some), place, align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), lower


@intrinsic
def add_pixels(context, source, count, pitch, vectors, totals, squares):
    """Add to totals the sums over `count` pixels of the absolute values of each channel, to squares those of squares.

    count: a multiple of 4; vectors: how many of them hold the channels.
    """

    def lower(context, builder, signature, args):
        source, totals, squares = (_pointer(builder, args[i]) for i in (0, 4, 5))
        zeros = ir.Constant(VECTOR, [0.0] * LANES)
        sums = [cgutils.alloca_once(builder, VECTOR) for _ in range(8)]  # of 4 pixels: an addition takes 4 cycles
        with cgutils.for_range(builder, args[3]) as vector:
            lane = builder.mul(vector.index, index(LANES))
            for one in sums:
                builder.store(zeros, one)
            with cgutils.for_range(builder, builder.sdiv(args[1], index(4))) as each:
                for i in range(4):
                    pixel = builder.add(builder.mul(each.index, index(4)), index(i))
                    place = builder.gep(source, [builder.add(builder.mul(pixel, args[2]), lane)])
                    _add_sizes(builder, absolute(builder, load(builder, place)), sums[i], sums[4 + i])
            for target, some in ((totals, sums[:4]), (squares, sums[4:])):
                a, b, c, d = (builder.load(one) for one in some)
                place = builder.gep(target, [lane])
                result = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
                store(builder, builder.fadd(load(builder, place), result), place)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), lower


@intrinsic
def are_even(context, totals, squares, width, count, least, smallest, largest):
    """Return whether each of `count` 3x3 windows side by side is even, from sums of the pixels of rows of a width.

    Even is one whose total is 0, or has a square of at least `least` times the sum of the squares and at least
    `smallest`, where that sum is at most `largest`.  Memory lies behind each array for a vector more.
    """

    def lower(context, builder, signature, args):
        width, count = args[2:4]
        least, smallest, largest = (spread(builder, value) for value in args[4:])
        zeros = ir.Constant(VECTOR, [0.0] * LANES)
        result = cgutils.alloca_once_value(builder, ir.Constant(_FLAGS, [1] * LANES))
        vectors = builder.sdiv(builder.add(count, index(LANES - 1)), index(LANES))
        with cgutils.for_range(builder, vectors) as each:
            begin = builder.mul(each.index, index(LANES))
            sums = []
            for start in args[:2]:
                first = builder.gep(_pointer(builder, start), [begin])
                rows = [builder.gep(first, [builder.mul(width, index(r))]) for r in range(3)]
                values = [load(builder, builder.gep(row, [index(s)])) for row in rows for s in range(3)]
                sums.append(functools.reduce(builder.fadd, values))
            total, square = sums
            enough = builder.fadd(builder.fmul(least, square), smallest)
            even = builder.fcmp_ordered(">=", builder.fmul(total, total), enough)
            even = builder.or_(even, builder.fcmp_ordered("==", total, zeros))
            even = builder.and_(even, builder.fcmp_ordered("<=", square, largest))
            left = spread(builder, builder.trunc(builder.sub(count, begin), _NUMBER))
            beyond = builder.icmp_signed(">=", ir.Constant(_BITS, list(range(LANES))), left)
            builder.store(builder.and_(builder.load(result), builder.or_(even, beyond)), result)
        bits = builder.bitcast(builder.load(result), ir.IntType(LANES))
        return builder.icmp_unsigned("==", bits, ir.Constant(ir.IntType(LANES), -1))

    return types.boolean(*[types.intp] * 4, *[types.float32] * 3), lower


@intrinsic
def call(context, function, arguments):
    """Call a callback (see jit.py) by its address, with a tuple of numbers."""

    def lower(context, builder, signature, args):
        numbers = cgutils.unpack_tuple(builder, args[1], signature.args[1].count)
        kind = ir.FunctionType(ir.VoidType(), [INDEX] * len(numbers))
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), numbers)
        return context.get_dummy_value()

    return types.void(types.intp, types.UniTuple(types.intp, len(arguments))), lower
