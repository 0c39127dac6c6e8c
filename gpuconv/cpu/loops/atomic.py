"""Words that several threads read and change at once, one step each: element 0 of an array."""

from __future__ import annotations

import platform

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .jit import loop

COUNTER = types.Array(types.int64, 1, "C")
_ONE = ir.Constant(ir.IntType(64), 1)
_X86 = platform.machine().lower() in ("x86_64", "amd64")


@intrinsic
def take(context, counter):
    """Return a word and add 1 to it: the number of the block to do next, see share_out."""

    def lower(context, builder, signature, arguments):
        return builder.atomic_rmw("add", _address(context, builder, signature, arguments), _ONE, "acq_rel")

    return types.int64(counter), lower


@intrinsic
def load(context, word):
    """Return a word, and see what another thread wrote before it."""

    def lower(context, builder, signature, arguments):
        return builder.load_atomic(_address(context, builder, signature, arguments), "acquire", 8)

    return types.int64(word), lower


@intrinsic
def pause(context):
    """Tell the processor that this thread waits in a loop."""

    def lower(context, builder, signature, arguments):
        if _X86:
            instruction = ir.FunctionType(ir.VoidType(), ())
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), instruction), ())
        return context.get_dummy_value()

    return types.void(), lower


def _address(context, builder, signature, arguments):
    return context.make_array(signature.args[0])(context, builder, arguments[0]).data


@loop
def blocks(counter, total, size):
    """Cut range(total) into pieces of at most `size`, and yield those that fall to this thread."""
    first = take(counter) * size
    while first < total:
        yield slice(first, min(first + size, total))
        first = take(counter) * size
