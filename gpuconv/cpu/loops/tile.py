"""The matrix product under every convolution, which reads its left side where it lies.

    c[m, k] = d[m, k] + sum over i < n of  a[rows[m] + terms[i]] * b[i, k]

Pixels are not unfolded: a window's place in memory is one table of offsets, rows, and the places of its taps and
channels another, terms.  For the gradient of the filters the tables change places.

A tile of sums stays in vector registers until a run of terms is added: for each vector of b that is loaded, as many
products are made as the tile has rows.  Its shape follows the registers: 12 of AVX2's 16 hold sums, two a row of b and
one a value of a.  Of the 32 in AVX-512 and on arm64, 16 hold sums, as many as four units that multiply and add in four
cycles can have in hand, for 10 loads: more rows would save few of those.  Runs are short enough for the tolerance rule
(see runs.py), and for a run of b to stay in the L1 cache while all rows pass by.  The order of a sum does not depend on
the tile that a row falls into.

It is compiled once, and called by address: other passes would each hold a copy of its own.
"""

from __future__ import annotations

import functools
from itertools import product
from math import isqrt

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .jit import callback, loop
from .vectors import ARM, INDEX, LANES, VECTOR, index, load, multiply_add, phi, spread, store

WIDTH = 2 * LANES  # of a panel of b: two vectors
# The heights of tiles, above that of one row: 32 registers hold 8 rows.
_HEIGHTS = (6, 4, 3, 2) if LANES == 8 or (LANES == 4 and not ARM) else (8, 4, 3, 2)
_LONGEST_RUN = 256


def run_length(terms: int) -> int:
    """Return how many of so many terms are added in one running sum: 8 sqrt(terms) at most.

    Then a run of equal terms is off by 2 sqrt(terms) u, the sum of the runs by some u, and the rule allows
    (4 + 2 sqrt(terms)) u.
    """
    longest = min(_LONGEST_RUN, max(16, 8 * isqrt(terms)))
    return -(-terms // max(1, -(-terms // longest)))


def _tile(rows: int, vectors: int, *, scattered: bool = False):
    """Return the loop for a tile of so many rows and vectors: all arguments are addresses, counts or steps in elements.

    scattered: rows of b lie where a third table says, b + steps[i], and not b_term apart.
    """

    @intrinsic
    def tile(context, a, rows_at, terms, b, b_term, c, c_row, n, d, d_row):
        return types.void(*[types.intp] * 10), _lower(rows, vectors, scattered)

    return tile


def _lower(rows: int, vectors: int, scattered: bool):
    def lower(context, builder, signature, args):
        floats, numbers = ir.FloatType().as_pointer(), INDEX.as_pointer()
        a, b, c, d = (builder.inttoptr(args[i], floats) for i in (0, 3, 5, 8))
        rows_at, terms = (builder.inttoptr(args[i], numbers) for i in (1, 2))
        steps = builder.inttoptr(args[4], numbers)
        b_term, c_row, n, d_row = args[4], args[6], args[7], args[9]
        lanes = [index(v * LANES) for v in range(vectors)]
        starts = [builder.gep(a, [builder.load(builder.gep(rows_at, [index(m)]))]) for m in range(rows)]

        before = builder.basic_block
        each, done = builder.append_basic_block("each"), builder.append_basic_block("done")
        builder.branch(each)
        builder.position_at_end(each)
        zero = ir.Constant(VECTOR, [0.0] * LANES)
        i, b_i = (phi(builder, (index(0), before)) for _ in range(2))
        # The shorter side is held and the longer passes by: 12 sums, 3 values and a vector are all of 16 registers.
        places = sorted(product(range(rows), range(vectors)), key=lambda place: place[rows < vectors])
        sums = {place: phi(builder, (zero, before)) for place in places}
        term = builder.load(builder.gep(terms, [i]))
        b_here = builder.load(builder.gep(steps, [i])) if scattered else b_i
        value = functools.cache(lambda m: spread(builder, builder.load(builder.gep(starts[m], [term]))))
        vector = functools.cache(lambda v: load(builder, builder.gep(b, [builder.add(b_here, lanes[v])])))
        results = {(m, v): multiply_add(builder, value(m), vector(v), sums[m, v]) for m, v in places}
        following = [builder.add(i, index(1)), b_i if scattered else builder.add(b_i, b_term)]
        for node, result in zip([i, b_i, *sums.values()], following + list(results.values()), strict=True):
            node.add_incoming(result, each)
        _keep_rolled(builder, builder.cbranch(builder.icmp_signed("<", following[0], n), each, done))

        builder.position_at_end(done)
        for m in range(rows):
            for v, lane in enumerate(lanes):
                initial = load(builder, builder.gep(d, [builder.add(builder.mul(d_row, index(m)), lane)]))
                target = builder.gep(c, [builder.add(builder.mul(c_row, index(m)), lane)])
                store(builder, builder.fadd(initial, results[m, v]), target)
        return context.get_dummy_value()

    return lower


def _keep_rolled(builder, branch):
    """Tell LLVM not to unroll a loop: the tile fills the registers, and copies of it side by side would spill."""
    hint = builder.module.add_metadata([ir.MetaDataString(builder.module, "llvm.loop.unroll.disable")])
    loop_name = builder.module.add_metadata([hint, hint])
    loop_name.operands = (loop_name, hint)  # a loop's metadata begins with itself
    branch.set_metadata("llvm.loop", loop_name)


def _all_rows(vectors: int):
    """Return the loop over the rows of a panel of so many vectors: tall tiles, and low ones for what is left."""
    tall, high, middle, low = _HEIGHTS
    tall_tile, high_tile, middle_tile, low_tile = (_tile(height, vectors) for height in (tall, high, middle, low))
    single = _tile(1, vectors)

    @loop
    def multiply_rows(a, rows, terms, b, b_term, c, c_row, m, n, d, d_row):
        i = 0
        while i < m:
            left = m - i
            here, target, initial = rows + 8 * i, c + 4 * i * c_row, d + 4 * i * d_row
            if left >= tall and not (tall == 6 and left in (7, 8, 11)):  # 4 and 3, not 6 and 1
                tall_tile(a, here, terms, b, b_term, target, c_row, n, initial, d_row)
                i += tall
            elif left >= high:
                high_tile(a, here, terms, b, b_term, target, c_row, n, initial, d_row)
                i += high
            elif left >= middle:
                middle_tile(a, here, terms, b, b_term, target, c_row, n, initial, d_row)
                i += middle
            elif left >= low:
                low_tile(a, here, terms, b, b_term, target, c_row, n, initial, d_row)
                i += low
            else:
                single(a, here, terms, b, b_term, target, c_row, n, initial, d_row)
                i += 1

    return multiply_rows


_wide, _narrow = _all_rows(2), _all_rows(1)


@callback(15)
def multiply(a, rows, terms, b, b_panel, b_term, c, c_row, m, n, panels, vectors, run, d, d_row):
    """Fill m rows of c, WIDTH or LANES values of each for every panel of b, in runs of so many terms.

    a, rows, terms, b, c, d are addresses; steps (b_panel, b_term, c_row, d_row) are counted in elements.
    """
    width = vectors * LANES
    for first in range(0, n, run):
        count = min(run, n - first)
        for panel in range(panels):
            here, target = b + 4 * (panel * b_panel + first * b_term), c + 4 * panel * width
            initial, step = (d + 4 * panel * width, d_row) if first == 0 else (target, c_row)
            if vectors == 2:
                _wide(a, rows, terms + 8 * first, here, b_term, target, c_row, m, count, initial, step)
            else:
                _narrow(a, rows, terms + 8 * first, here, b_term, target, c_row, m, count, initial, step)


# Few channels against long rows of pixels: the vectors of b lie where a table says.
_three, _one = _tile(3, 4, scattered=True), _tile(1, 4, scattered=True)


@callback(10)
def multiply_scattered(a, rows, terms, b, steps, c, c_row, m, n, run):
    """Add to m rows of c, 4 LANES values of each, the products of a[rows[m] + terms[i]] and b[steps[i], ...], i < n."""
    for first in range(0, n, run):
        count, i = min(run, n - first), 0
        while i < m:
            here, target = rows + 8 * i, c + 4 * i * c_row
            if m - i >= 3:
                _three(a, here, terms + 8 * first, b, steps + 8 * first, target, c_row, count, target, c_row)
                i += 3
            else:
                _one(a, here, terms + 8 * first, b, steps + 8 * first, target, c_row, count, target, c_row)
                i += 1
