"""Vectors of this processor, and what Numba has no words for: written in LLVM's own language.

LANES float32 values fill one register: 16 with AVX-512, 8 with AVX2, else 4.  Arrays here are flat, and places in
them are counted in elements.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

TRIPLE, _PROCESSOR, _FEATURES = cpu_target.target_context.codegen().magic_tuple()
_HAS = set(_FEATURES.split(","))
ARM = TRIPLE.startswith(("aarch64", "arm64"))
LANES = 16 if "+avx512f" in _HAS else 8 if {"+avx2", "+fma"} <= _HAS else 4

INDEX, _NUMBER = ir.IntType(64), ir.IntType(32)
VECTOR = ir.VectorType(ir.FloatType(), LANES)


def index(value: int) -> ir.Constant:
    """Return a constant number of elements."""
    return ir.Constant(INDEX, value)


def start_of(context, builder, signature, args, array: int):
    """Return the address of element args[array + 1] of the array args[array]."""
    data = context.make_array(signature.args[array])(context, builder, args[array]).data
    return builder.gep(data, [args[array + 1]])


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
    """Return a vector of one value."""
    undefined = ir.Constant(VECTOR, ir.Undefined)
    lane = builder.insert_element(undefined, value, _NUMBER(0))
    return builder.shuffle_vector(lane, undefined, _lanes([0] * LANES))


def multiply_add(builder, a, b, c):
    """Return a b + c, rounded once."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32"), [a, b, c])


def phi(builder, *incoming):
    """Return a value that depends on which block came before."""
    node = builder.phi(incoming[0][0].type)
    for value, block in incoming:
        node.add_incoming(value, block)
    return node


def _lanes(numbers):
    return ir.Constant(ir.VectorType(_NUMBER, LANES), numbers)


@intrinsic
def address_of(context, array, place):
    """Return the address of array[place] as a number."""

    def lower(context, builder, signature, args):
        return builder.ptrtoint(start_of(context, builder, signature, args, 0), INDEX)

    return types.intp(array, types.intp), lower


@intrinsic
def transpose_square(context, source, s0, s_row, target, t0, t_row):
    """Write LANES rows of LANES values of source as columns of target, in steps that swap blocks of half the size."""
    number = types.intp

    def lower(context, builder, signature, args):
        def rows(array: int):
            first, step = start_of(context, builder, signature, args, array), args[array + 2]
            return [builder.gep(first, [builder.mul(step, index(i))]) for i in range(LANES)]

        values = [load(builder, row) for row in rows(0)]
        size = LANES // 2
        while size:
            low = _lanes([i if not i & size else i - size + LANES for i in range(LANES)])
            high = _lanes([i + size if not i & size else i + LANES for i in range(LANES)])
            for i in range(LANES):
                if not i & size:
                    a, b = values[i], values[i + size]
                    values[i], values[i + size] = (builder.shuffle_vector(a, b, lanes) for lanes in (low, high))
            size //= 2
        for row, value in zip(rows(3), values, strict=True):
            store(builder, value, row)
        return context.get_dummy_value()

    return types.void(source, number, number, target, number, number), lower


@intrinsic
def prefetch(context, array, place):
    """Ask for the cache line of array[place], which may lie outside, to be in the L2 cache soon."""

    def lower(context, builder, signature, args):
        address = builder.bitcast(start_of(context, builder, signature, args, 0), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [address.type, _NUMBER, _NUMBER, _NUMBER])
        call = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(call, [address, _NUMBER(0), _NUMBER(2), _NUMBER(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), lower


@intrinsic
def stream(context, source, s0, target, t0, count):
    """Copy count values, whole vectors, past the caches: target[t0] begins a cache line.

    An ordinary store first reads the line it writes; worth it where a result is larger than the last cache anyway.
    """
    number = types.intp

    def lower(context, builder, signature, args):
        here, there = (start_of(context, builder, signature, args, array) for array in (0, 2))
        flag = builder.module.add_metadata([_NUMBER(1)])
        with cgutils.for_range(builder, builder.sdiv(args[4], index(LANES))) as each:
            place = builder.mul(each.index, index(LANES))
            value = load(builder, builder.gep(here, [place]))
            target_vector = vector_at(builder, builder.gep(there, [place]))
            builder.store(value, target_vector, align=4 * LANES).set_metadata("nontemporal", flag)
        return context.get_dummy_value()

    return types.void(source, number, target, number, number), lower
