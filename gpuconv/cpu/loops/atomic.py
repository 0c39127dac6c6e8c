"""Words that several threads change at once."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

COUNTER = types.Array(types.int64, 1, "C")


@intrinsic
def take(context, counter):
    """Return counter[0] and add 1 to it, in one step: the number of the block to do next, see share_out."""

    def lower(context, builder, signature, arguments):
        return builder.atomic_rmw("add", _address(context, builder, signature, arguments), _ONE, "acq_rel")

    return types.int64(counter), lower


_ONE = ir.Constant(ir.IntType(64), 1)


def _address(context, builder, signature, arguments):
    """Return where the first element of the first argument lies."""
    return context.make_array(signature.args[0])(context, builder, arguments[0]).data
