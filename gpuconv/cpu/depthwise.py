"""Convolution with one input channel per group, tap by tap: there is no matrix product to be had.

A row of channels-last pixels times a row of filter taps is one long contiguous loop; blocks stay in the L3 cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .layout import accumulator
from .parallel import BLOCK_ELEMENTS, for_each, ranges, scratch
from .unfold import Block, Windows, blocks, strip

_PARTIAL_SUMS = 16


def correlate_depthwise(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, y: np.ndarray, windows: Windows) -> None:
    """Fill y[n, c m + j, p, q] with channel c of x under filter c m + j; w: (C m, 1, R, S)."""
    kind = accumulator(x.dtype)
    N, K, P, Q = y.shape
    C = x.shape[1]
    m = K // C
    # One row of output pixels at a time under one tap, so that inner loops are Q C long: (R, S, m, Q C).
    filters = w.reshape(C, m, windows.R, windows.S).transpose(2, 3, 1, 0).astype(kind)
    filters = np.tile(filters, Q)
    biases = None if bias is None else np.tile(bias.reshape(C, m).T, Q)  # (m, Q C)

    def work(block: Block) -> None:
        pixels = strip(x, block, windows, Q)
        target = y[block.n0 : block.n1, :, block.p0 : block.p1].transpose(0, 2, 3, 1)  # (n, p, Q, K)
        n, p = target.shape[:2]
        total = scratch("total", (n, p, Q * C), kind)
        term = scratch("term", (n, p, Q * C), kind)
        for j in range(m):
            for index, ((r, s), values) in enumerate(_taps(pixels, windows, p, Q)):
                np.multiply(values, filters[r, s, j], out=term if index else total)
                if index:
                    np.add(total, term, out=total)
            if biases is not None:
                total += biases[j]
            np.copyto(target[..., j::m], total.reshape(n, p, Q, C), casting="same_kind")

    for_each(work, blocks(N, P, Q, C, BLOCK_ELEMENTS))


def weight_gradient_depthwise(dy: np.ndarray, x: np.ndarray, w: np.ndarray, windows: Windows) -> np.ndarray:
    """Return dw (C, 1, R, S) of a convolution with one filter per channel."""
    kind = accumulator(x.dtype)
    N, C, P, Q = dy.shape
    pieces = blocks(N, P, Q, C, BLOCK_ELEMENTS)
    shares = [pieces[first:last] for first, last in ranges(len(pieces), -(-max(1, len(pieces)) // _PARTIAL_SUMS))]
    sums = np.zeros((len(shares), windows.R, windows.S, C), dtype=np.float64)

    def share(index: int) -> None:
        for block in shares[index]:
            pixels = strip(x, block, windows, Q)
            part = dy[block.n0 : block.n1, :, block.p0 : block.p1].transpose(0, 2, 3, 1)
            n, p = part.shape[:2]
            gradient = scratch("total", (n, p, Q, C), kind)
            np.copyto(gradient, part)
            gradient = gradient.reshape(n, p, Q * C)
            for (r, s), values in _taps(pixels, windows, p, Q):
                products = np.einsum("npi,npi->i", values, gradient)
                sums[index, r, s] += products.reshape(Q, C).sum(axis=0, dtype=np.float64)

    for_each(share, range(len(shares)))
    return np.ascontiguousarray(sums.sum(axis=0).transpose(2, 0, 1)[:, None], dtype=w.dtype)


def _taps(
    pixels: np.ndarray, windows: Windows, rows: int, columns: int
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Yield ((r, s), the pixels that tap reads, (n, rows, columns C)) for every tap."""
    (sh, sw), (dh, dw) = windows.stride, windows.dilation
    n, _, _, C = pixels.shape
    for r in range(windows.R):
        for s in range(windows.S):
            top, left = r * dh, s * dw
            values = pixels[:, top : top + (rows - 1) * sh + 1 : sh, left : left + (columns - 1) * sw + 1 : sw]
            if sw == 1 and values.strides[2] == C * values.itemsize:
                a, b, _, d = values.strides
                yield (r, s), as_strided(values, (n, rows, columns * C), (a, b, d), writeable=False)
            else:
                yield (r, s), values.reshape(n, rows, columns * C)
