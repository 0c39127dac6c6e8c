"""Arrays seen as blocks with their channels on one axis, and sums over everything but the channels.

Sums are accurate and reproducible: at most a few hundred values are added in one running float32 sum (a thousand of them side by
side), the rest in float64, in an order that depends on the shape alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ..shapes import is_channels_last
from .layout import accumulator
from .parallel import BLOCK_ELEMENTS, for_each, ranges

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
        return self._fold(np.add.reduce(wide, axis=0)) + rest.sum(axis=0, dtype=np.float64)

    def product_sums(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the sum per channel of a * b, float64 (C,)."""
        wide_a, rest_a = self._split(a.reshape(-1, self.channels))
        wide_b, rest_b = self._split(b.reshape(-1, self.channels))
        rest = np.multiply(rest_a, rest_b).sum(axis=0, dtype=np.float64)
        return self._fold(np.einsum("ij,ij->j", wide_a, wide_b)) + rest

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

    def _fold(self, wide: np.ndarray) -> np.ndarray:
        return wide.reshape(-1, self.channels).sum(axis=0, dtype=np.float64)


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
        return np.vecdot(piece, np.ones(piece.shape[2], dtype=piece.dtype)).sum(axis=0, dtype=np.float64)

    def product_sums(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the sum per channel of a * b, float64 (C,)."""
        return np.vecdot(a, b).sum(axis=0, dtype=np.float64)

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
    return bool(np.isfinite(x).all())


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
