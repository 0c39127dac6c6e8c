"""Convolution with one input channel per group, tap by tap: there is no matrix product to be had.

einsum multiplies and adds in one pass where NumPy's operators need two.  It goes through memory in the order of the
last operand's strides, so all taps of a row of output pixels are added up while that row is in the L1 cache.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..layout import accumulator
from ..parallel import for_each, ranges, scratch
from ..runs import longest_run, run_length
from ..windows import Block, Windows, blocks, shares
from .unfold import strip

# One call does most of a block's work, so that blocks may be small enough for the L2 cache.
_BLOCK_ELEMENTS = 128 * 1024


def correlate(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, y: np.ndarray, windows: Windows) -> None:
    """Fill y[n, c m + j, p, q] with channel c of x under filter c m + j; w: (C m, 1, R, S)."""
    kind = accumulator(x.dtype)
    N, K, P, Q = y.shape
    C = x.shape[1]
    m = K // C
    joined = _joined(windows, Q)
    filters = w.reshape(C, m, windows.R, windows.S).transpose(1, 2, 3, 0).astype(kind)  # (m, R, S, C)
    filters = np.tile(filters, joined)
    biases = None if bias is None else np.tile(bias.reshape(C, m).T, joined)

    run = run_length(windows.R * windows.S)
    runs = [
        (slice(*rows), slice(*columns))
        for rows in ranges(windows.R, max(1, run // windows.S))
        for columns in ranges(windows.S, run)
    ]

    def work(block: Block) -> None:
        taps = _taps(strip(x, block, windows, Q), windows, block.p1 - block.p0, Q, joined)
        target = y[block.n0 : block.n1, :, block.p0 : block.p1].transpose(0, 2, 3, 1)  # (n, p, Q, K)
        direct = m == 1 and y.dtype == kind and target.flags.c_contiguous
        total = target.reshape(taps.shape[2:]) if direct else scratch("total", taps.shape[2:], kind)
        for j in range(m):
            for first, (rows, columns) in enumerate(runs):
                out = total if first == 0 else scratch("run", total.shape, kind)
                np.einsum("rsnpqc,rsc->npqc", taps[rows, columns], filters[j, rows, columns], out=out)
                if first:
                    np.add(total, out, out=total)
            if biases is not None:
                np.add(total, biases[j], out=total)
            if not direct:
                np.copyto(target[..., j::m], total.reshape(*target.shape[:3], C), casting="same_kind")

    for_each(work, blocks(N, P, Q, C, _BLOCK_ELEMENTS))


def weight_gradient(dy: np.ndarray, x: np.ndarray, w: np.ndarray, windows: Windows) -> np.ndarray:
    """Return dw (C, 1, R, S), float64, of a convolution with one filter per channel."""
    kind = accumulator(x.dtype)
    N, C, P, Q = dy.shape
    joined = _joined(windows, Q)
    parts = shares(blocks(N, P, Q, C, _BLOCK_ELEMENTS, longest_run(N * P)), w.size * 8)
    sums = np.zeros((len(parts), windows.R, windows.S, C), dtype=np.float64)

    def share(index: int) -> None:
        for block in parts[index]:
            taps = _taps(strip(x, block, windows, Q), windows, block.p1 - block.p0, Q, joined)
            gradient = scratch("total", taps.shape[2:], kind)
            part = dy[block.n0 : block.n1, :, block.p0 : block.p1].transpose(0, 2, 3, 1)
            np.copyto(gradient.reshape(part.shape), part)
            products = scratch("products", (windows.R, windows.S, *taps.shape[4:]), kind)
            np.einsum("rsnpqc,npqc->rsqc", taps, gradient, out=products)
            sums[index] += products.reshape(windows.R, windows.S, -1, C).sum(axis=2, dtype=np.float64)

    for_each(share, range(len(parts)))
    return sums.sum(axis=0).transpose(2, 0, 1)[:, None]


def _joined(windows: Windows, Q: int) -> int:
    """Return how many pixels of a row are taken together, as one long vector of their channels."""
    return Q if windows.stride[1] == 1 else 1


def _taps(pixels: np.ndarray, windows: Windows, rows: int, columns: int, joined: int) -> np.ndarray:
    """Return what each tap reads, as a view (R, S, n, rows, columns / joined, joined C) of a block's pixels."""
    (sh, sw), (dh, dw) = windows.stride, windows.dilation
    n, _, _, C = pixels.shape
    if joined > 1 and pixels.strides[2] != C * pixels.itemsize:
        pixels = np.ascontiguousarray(pixels)
    a, b, c, d = pixels.strides
    shape = (windows.R, windows.S, n, rows, columns // joined, joined * C)
    return as_strided(pixels, shape, (b * dh, c * dw, a, b * sh, c * sw * joined, d), writeable=False)
