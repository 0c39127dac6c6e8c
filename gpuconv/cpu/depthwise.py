"""Convolution with one input channel per group, tap by tap: there is no matrix product to be had.

Multiplications by a row of channels, (n, rows, columns, C) times (C,), are contiguous; blocks stay in the L2 cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .layout import accumulator
from .parallel import for_each, ranges, scratch
from .reduce import Rows
from .unfold import Block, Windows, blocks, strip

_PARTIAL_SUMS = 16


def correlate_depthwise(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, y: np.ndarray, windows: Windows) -> None:
    """Fill y[n, c m + j, p, q] with channel c of x under filter c m + j; w: (C m, 1, R, S)."""
    kind = accumulator(x.dtype)
    N, K, P, Q = y.shape
    C = x.shape[1]
    taps = np.ascontiguousarray(w.reshape(C, K // C, windows.R, windows.S).transpose(2, 3, 0, 1), dtype=kind)

    def work(block: Block) -> None:
        pixels = strip(x, block, windows, Q)
        target = y[block.n0 : block.n1, :, block.p0 : block.p1].transpose(0, 2, 3, 1)  # (n, p, Q, K)
        total = scratch("total", (*target.shape[:3], C, K // C), kind)
        term = scratch("term", total.shape, kind)
        for index, (tap, values) in enumerate(_taps(pixels, windows, target.shape[1], Q)):
            np.multiply(values[..., None], taps[tap], out=term if index else total)
            if index:
                np.add(total, term, out=total)
        flat = total.reshape(target.shape)
        if bias is not None:
            flat += bias
        np.copyto(target, flat, casting="same_kind")

    for_each(work, blocks(N, P, Q, 3 * K * kind.itemsize))


def weight_gradient_depthwise(dy: np.ndarray, x: np.ndarray, w: np.ndarray, windows: Windows) -> np.ndarray:
    """Return dw (C, 1, R, S) of a convolution with one filter per channel."""
    kind = accumulator(x.dtype)
    N, C, P, Q = dy.shape
    pieces = blocks(N, P, Q, 3 * C * kind.itemsize)
    shares = [pieces[first:last] for first, last in ranges(len(pieces), -(-max(1, len(pieces)) // _PARTIAL_SUMS))]
    sums = np.zeros((len(shares), windows.R, windows.S, C), dtype=np.float64)

    def share(index: int) -> None:
        for block in shares[index]:
            pixels = strip(x, block, windows, Q)
            gradient = dy[block.n0 : block.n1, :, block.p0 : block.p1].transpose(0, 2, 3, 1)
            term = scratch("term", gradient.shape, kind)
            for tap, values in _taps(pixels, windows, gradient.shape[1], Q):
                np.multiply(values, gradient, out=term)
                sums[index][tap] += Rows(C, 1).sums(term.reshape(-1, C))

    for_each(share, range(len(shares)))
    return np.ascontiguousarray(sums.sum(axis=0).transpose(2, 0, 1)[:, None], dtype=w.dtype)


def _taps(
    pixels: np.ndarray, windows: Windows, rows: int, columns: int
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Yield ((r, s), the pixels that tap reads, (n, rows, columns, C)) for every tap."""
    (sh, sw), (dh, dw) = windows.stride, windows.dilation
    for r in range(windows.R):
        for s in range(windows.S):
            top, left = r * dh, s * dw
            yield (r, s), pixels[:, top : top + (rows - 1) * sh + 1 : sh, left : left + (columns - 1) * sw + 1 : sw]
