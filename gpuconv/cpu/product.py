"""Matrix products whose sums stay accurate, whatever order BLAS adds them up in.

For large products OpenBLAS adds up parts of some hundred terms; for small ones on processors with AVX-512, and for a
matrix times a vector on any, it adds up a whole sum in order: of n equal terms n / 4 u of it may be lost (runs.py).
"""

from __future__ import annotations

import numpy as np

from .parallel import ranges
from .runs import longest_run

# The longest sum that BLAS makes in one go: of a large product it adds up 16 sums side by side or more, 1024 terms each.
_LONGEST = 16 * 1024
# Products of so many multiplications or fewer may be summed in order: OpenBLAS's own limit is 100^3.
_SMALL = 2**20


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Write the product of matrices, or of stacks of them, into an array that shares no memory with them."""
    terms = a.shape[-1]
    length = longest(a.shape[-2], terms, b.shape[-1])
    np.matmul(a[..., :length], b[..., :length, :], out=out)
    for first, last in ranges(terms, length)[1:]:
        out += np.matmul(a[..., first:last], b[..., first:last, :])


def longest(rows: int, terms: int, columns: int) -> int:
    """Return how many terms of each sum BLAS may add up in one go: L of them in order, then n / L parts, lose (L + n / L) / 4 u."""
    in_order = min(rows, columns) == 1 or rows * terms * columns <= _SMALL
    return longest_run(terms) if in_order else _LONGEST
