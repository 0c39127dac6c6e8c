"""Arrays seen as blocks with their channels on one axis, and sums over everything but the channels.

Sums are accurate and reproducible, at any size: in float32 at most 32 values are added in one running sum, the rest in
float64, in an order that depends on the shape alone.  Each addition rounds by at most u = 2^-24 of the sum so far.  If
all errors had one sign and that size, a running sum of n values of one sign would be off by (n / 2 + 1) u, 17 u here.
Equal values come nearest, with n / 4 + 1 = 9 u, the 8 u and the u of the result that the rule allows; of n values
at random 0.25 sqrt(n) u = 1.4 u is left, and less with every further sum that is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ..shapes import is_channels_last
from .compiled import passes
from .layout import accumulator, stored_order
from .parallel import BLOCK_ELEMENTS, for_each, quiet, ranges

# The longest running sum in float32.
_RUN = 32
# The longest product of two rows by BLAS, which adds up at least 32 sums side by side (of AVX registers; NEON has 16).
_DOT = 32 * _RUN
# Rows shorter than this are joined, so that a vector of one entry per channel is applied in long inner loops.
_WIDE = 1024


@dataclass(frozen=True, slots=True)
class Rows:
    """Channels-last storage, or (N, C): a matrix of one pixel per row."""

    channels: int
    per_piece: int

    @property
    def sample(self) -> int:
        """How much of a view's first axis gives a first idea of the mean: a few rows of joined pixels."""
        return 8 * max(1, _WIDE // self.channels)

    def view(self, array: np.ndarray) -> np.ndarray:
        """Return an array of the layout's shape as (pixels, C); a copy if it is stored otherwise."""
        turned = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
        return np.ascontiguousarray(turned).reshape(-1, self.channels)

    def spread(self, vector: np.ndarray, piece: np.ndarray) -> np.ndarray:
        """Return one value per channel in the form that broadcasts against widen(piece)."""
        return np.tile(vector, self._joined(piece))

    def widen(self, piece: np.ndarray) -> np.ndarray:
        """Return the piece with several pixels to a row."""
        return piece.reshape(-1, self._joined(piece) * self.channels)

    def sums(self, piece: np.ndarray) -> np.ndarray:
        """Return the sum per channel, float64 (C,)."""
        wide, rest = self._split(piece)
        runs = [np.add.reduce(run, axis=1) for run in _runs(wide)]
        return self._fold(runs) + rest.sum(axis=0, dtype=np.float64)

    def product_sums(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the sum per channel of a * b, float64 (C,)."""
        wide_a, rest_a = self._split(a.reshape(-1, self.channels))
        wide_b, rest_b = self._split(b.reshape(-1, self.channels))
        rest = np.multiply(rest_a, rest_b).sum(axis=0, dtype=np.float64)
        pairs = zip(_runs(wide_a), _runs(wide_b), strict=True)
        return self._fold([np.einsum("gij,gij->gj", *pair) for pair in pairs]) + rest

    def first(self, piece: np.ndarray) -> np.ndarray:
        """Return the first pixel of a piece, (C,)."""
        return piece[0]

    def _joined(self, piece: np.ndarray) -> int:
        joined = max(1, _WIDE // self.channels)
        return joined if piece.shape[0] % joined == 0 else 1

    def _split(self, piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the piece with several pixels to a row, and the pixels left over."""
        joined = max(1, _WIDE // self.channels)
        whole = piece.shape[0] // joined * joined
        return piece[:whole].reshape(-1, joined * self.channels), piece[whole:]

    def _fold(self, runs: list[np.ndarray]) -> np.ndarray:
        total = sum(run.sum(axis=0, dtype=np.float64) for run in runs)
        return np.asarray(total).reshape(-1, self.channels).sum(axis=0)


def _runs(wide: np.ndarray) -> list[np.ndarray]:
    """Cut rows into groups that may be added up in float32, (groups, rows, width): of _RUN rows, and what is left."""
    whole = len(wide) // _RUN * _RUN
    return [wide[:whole].reshape(-1, _RUN, wide.shape[1]), wide[None, whole:]]


@dataclass(frozen=True, slots=True)
class Planes:
    """Channels-first storage: (N, C, pixels)."""

    channels: int
    per_piece: int
    sample = 1  # an image gives a first idea of the mean

    def view(self, array: np.ndarray) -> np.ndarray:
        """Return an array of the layout's shape as (N, C, pixels); a copy if it is stored otherwise."""
        return np.ascontiguousarray(array).reshape(array.shape[0], self.channels, prod(array.shape[2:]))

    def spread(self, vector: np.ndarray, piece: np.ndarray) -> np.ndarray:
        """Return one value per channel in the form that broadcasts against widen(piece)."""
        return vector[:, None]

    def widen(self, piece: np.ndarray) -> np.ndarray:
        """Return the piece: its rows are long already."""
        return piece

    def sums(self, piece: np.ndarray) -> np.ndarray:
        """Return the sum per channel, float64 (C,)."""
        return self.product_sums(piece, np.ones(piece.shape[2], dtype=piece.dtype))

    def product_sums(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the sum per channel of a * b, float64 (C,); b may be one row for all of them."""
        pixels = a.shape[-1]
        if pixels <= _DOT or a.dtype == np.float64:
            return np.vecdot(a, b).sum(axis=0, dtype=np.float64)
        parts = -(-pixels // _DOT)
        whole = pixels // parts * parts
        cut_a, cut_b = (row[..., :whole].reshape(*row.shape[:-1], parts, -1) for row in (a, b))
        total = np.vecdot(cut_a, cut_b).sum(axis=(0, 2), dtype=np.float64)
        if whole < pixels:  # fewer than there are parts
            total += np.multiply(a[..., whole:], b[..., whole:]).sum(axis=(0, 2), dtype=np.float64)
        return total

    def first(self, piece: np.ndarray) -> np.ndarray:
        """Return the first pixel of a piece, (C,)."""
        return piece[0, :, 0]


def channel_layout(x: np.ndarray) -> Rows | Planes:
    """Return how to walk over x, (N, C) or (N, C, H, W), without copying where its storage allows it."""
    C = x.shape[1]
    if x.ndim == 2 or is_channels_last(x):
        joined = max(1, _WIDE // C)
        return Rows(C, -(-max(1, BLOCK_ELEMENTS // C) // joined) * joined)
    return Planes(C, max(1, BLOCK_ELEMENTS // prod(x.shape[1:])))


def pieces(view: np.ndarray, layout: Rows | Planes) -> list[tuple[int, slice]]:
    """Return the numbered blocks of a view."""
    return [(i, slice(*piece)) for i, piece in enumerate(ranges(view.shape[0], layout.per_piece))]


def finite_flags(x: np.ndarray) -> np.ndarray:
    """Return whether no element is NaN or infinite, as one flag (1,)."""
    return np.array([all_finite(x)])


def all_finite(x: np.ndarray) -> bool:
    """Return whether no element is NaN or infinite."""
    return bool(_of_blocks("finite", x, np.dtype(bool)).all())


def square_sum(x: np.ndarray) -> float:
    """Return the sum of the squares of all elements, added up in float64."""
    return float(_of_blocks("square_sum", x, np.dtype(np.float64)).sum())


@quiet
def _of_blocks(function: str, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return what a pass, function(x, result), says of each block."""
    run = passes("reduce", x.dtype)
    one_pass = getattr(run, function)
    (flat,) = stored_order(np.require(x, requirements="A")) or [np.ascontiguousarray(x).reshape(-1)]
    if 0 < flat.size <= run.BLOCK:  # nothing to share
        result = np.empty(1, dtype)
        one_pass(flat, result)
        return result
    blocks = ranges(flat.size, run.BLOCK)
    results = np.empty(len(blocks), dtype)

    def work(index: int) -> None:
        one_pass(flat[slice(*blocks[index])], results[index : index + 1])

    for_each(work, range(len(blocks)))
    return results


def channel_sums(x: np.ndarray) -> np.ndarray:
    """Return the sums of (N, C) or (N, C, H, W) over all axes but the second, float64 (C,)."""
    layout = channel_layout(x)
    view, kind = layout.view(x), accumulator(x.dtype)
    parts = pieces(view, layout)
    sums = np.zeros((len(parts), layout.channels))

    def work(part: tuple[int, slice]) -> None:
        index, where = part
        sums[index] = layout.sums(view[where].astype(kind, copy=False))

    for_each(work, parts)
    return sums.sum(axis=0)
