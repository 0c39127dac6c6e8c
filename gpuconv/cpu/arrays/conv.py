"""Convolution as matrix products over blocks of unfolded windows, a few hundred pixels at a time."""

from __future__ import annotations

import numpy as np

from ..layout import accumulator
from ..memory import zero_array
from ..parallel import for_each, scratch
from ..product import product
from ..runs import FEW
from ..windows import Block, Windows, blocks, shares
from .unfold import as_matrices, contiguous, prefers_planar, unfold, unfold_planar

# Bytes of unfolded windows in one block: they stay in the L2 cache (1 MB a core on current servers).
_BLOCK_BYTES = 512 * 1024


def correlate(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    windows: Windows,
    groups: int,
    pieces: list[Block] | None = None,
) -> None:
    """Fill y (N, K, P, Q), or pieces of it, with the bias and the sums of w times the taps of windows of x."""
    kind = accumulator(x.dtype)
    N, K, P, Q = y.shape
    if pieces is None:
        pieces = blocks(N, P, Q, w[0].size * groups * kind.itemsize, _BLOCK_BYTES)
    if groups == 1 and prefers_planar(x, windows, Q):
        filters = w.reshape(K, -1).astype(kind)  # (K, CRS)

        def planar(block: Block) -> None:
            target = y[block.n0 : block.n1, :, block.p0 : block.p1]  # (n, K, p, Q)
            columns = unfold_planar(x, block, windows, Q)  # (n, CRS, pixels)
            direct = y.dtype == kind and target[0, 0].flags.c_contiguous
            flat = (*target.shape[:2], columns.shape[2])
            out = target.reshape(flat) if direct else scratch("out", flat, kind)
            product(filters, columns, out)
            if bias is not None:
                np.add(out, bias[:, None], out=out)
            if not direct:
                np.copyto(target, out.reshape(target.shape), casting="same_kind")

        for_each(planar, pieces)
        return

    # (groups, RSC, K): one matrix a group, its rows in the order of a channels-last window.
    by_group = w.reshape(groups, K // groups, -1, *w.shape[2:]).transpose(0, 3, 4, 2, 1)
    matrices = np.ascontiguousarray(by_group, dtype=kind).reshape(groups, -1, K // groups)

    def channels_last(block: Block) -> None:
        target = y[block.n0 : block.n1, :, block.p0 : block.p1].transpose(0, 2, 3, 1)  # (n, p, Q, K)
        rows = unfold(x, block, windows, Q, groups)  # (groups, pixels, RSC)
        direct = groups == 1 and y.dtype == kind and target.flags.c_contiguous
        out = target.reshape(1, -1, K) if direct else scratch("out", (groups, rows.shape[1], K // groups), kind)
        product(rows, matrices, out)
        if bias is not None:
            out += bias.reshape(groups, 1, -1)
        if not direct:
            by_pixel = out.transpose(1, 0, 2).reshape(target.shape)  # a view where groups == 1
            np.copyto(target, by_pixel, casting="same_kind")

    for_each(channels_last, pieces)


def weight_gradient(dy: np.ndarray, x: np.ndarray, w: np.ndarray, windows: Windows, groups: int) -> np.ndarray:
    """Return dw (K, C / groups, R, S) of filters w, in the accumulator's dtype."""
    kind = accumulator(x.dtype)
    N, K, P, Q = dy.shape
    planar = groups == 1 and prefers_planar(x, windows, Q)
    pieces = blocks(N, P, Q, w[0].size * groups * kind.itemsize, _BLOCK_BYTES)
    parts = shares(pieces, w.size * kind.itemsize)
    shape = (groups, K // groups, w[0].size)
    sums = zero_array((len(parts), *shape), kind)

    def share(index: int) -> None:
        block_sums = scratch("product", shape, kind)
        for block in parts[index]:
            part = dy[block.n0 : block.n1, :, block.p0 : block.p1]
            if planar:
                columns = unfold_planar(x, block, windows, Q)  # (n, CRS, pixels)
                terms = np.empty((len(part), K, w[0].size), kind)
                product(as_matrices(part, kind), columns.transpose(0, 2, 1), terms)
                block_sums[0] = np.sum(terms, axis=0, dtype=kind if len(terms) <= FEW else np.float64)
            else:
                gradient = contiguous(kind, "gradient", part.transpose(0, 2, 3, 1)).reshape(-1, groups, K // groups)
                product(gradient.transpose(1, 2, 0), unfold(x, block, windows, Q, groups), block_sums)
            sums[index] += block_sums

    for_each(share, range(len(parts)))
    total = sums.sum(axis=0)
    if planar:
        return total.reshape(w.shape)
    return total.reshape(K, windows.R, windows.S, -1).transpose(0, 3, 1, 2)
