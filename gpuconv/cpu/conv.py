"""Convolution as matrix products over blocks of unfolded windows, a few hundred pixels at a time.

Forward and both gradients are built from two loops over blocks: `_correlate` (windows times filters) and
`_weight_gradient` (windows times dy).  The gradient of the input is a correlation too, of dy with the filters turned
round: one for each phase of the stride, so that no zero is ever multiplied.  What a call adds in memory is a few
megabytes a thread, whatever the batch.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from ..shapes import ConvSizes, is_channels_last
from . import winograd
from .depthwise import correlate_depthwise, weight_gradient_depthwise
from .layout import accumulator, empty
from .memory import zero_array
from .parallel import for_each, quiet, ranges, scratch
from .reduce import channel_sums
from .runs import FEW, RunningSum
from .unfold import Block, Windows, blocks, prefers_planar, unfold, unfold_planar

# Partial sums of the weight gradient: their number depends on sizes alone, so the order of adding never changes.
_PARTIAL_SUMS = 16
_PARTIAL_BYTES = 32 * 1024 * 1024
# Up to this many input channels, the gradient of the input is scattered instead of gathered.
_FEW_CHANNELS = 4
_SCATTER_BYTES = 1024 * 1024


def conv_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, sizes: ConvSizes) -> np.ndarray:
    z = sizes
    y = empty((z.N, z.K, z.P, z.Q), x.dtype, channels_last=is_channels_last(x))
    _correlate(x, w, b, y, _forward_windows(z), z.groups)
    return y


@quiet
def conv_backward(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, sizes: ConvSizes, *, input_grad: bool, bias_grad: bool
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
    dw = _weight_gradient(dy, x, w, _forward_windows(sizes), sizes.groups)
    db = channel_sums(dy).astype(w.dtype) if bias_grad else None
    dx = _data_gradient(dy, x, w, sizes) if input_grad else None
    return dx, dw, db


def _forward_windows(z: ConvSizes) -> Windows:
    return Windows(z.R, z.S, -z.pad[0], -z.pad[1], z.stride, z.dilation)


# Gradient of the input ----------------------------------------------------------------------------------------------


def _data_gradient(dy: np.ndarray, x: np.ndarray, w: np.ndarray, z: ConvSizes) -> np.ndarray:
    dx = empty((z.N, z.C, z.H, z.W), x.dtype, channels_last=is_channels_last(x))
    if (z.groups == 1 and z.C <= _FEW_CHANNELS) or not np.isfinite(w).all():
        _scatter_data_gradient(dy, w, z, dx)
        return dx
    # (K, C / groups, R, S) -> (C, K / groups, R, S): in each group, filters and channels change places.
    grouped = w.reshape(z.groups, z.K // z.groups, z.C // z.groups, z.R, z.S)
    swapped = grouped.swapaxes(1, 2).reshape(z.C, z.K // z.groups, z.R, z.S)
    for i in range(min(z.stride[0], z.H)):
        rows = _phase(i, z.R, z.stride[0], z.pad[0], z.dilation[0])
        for j in range(min(z.stride[1], z.W)):
            columns = _phase(j, z.S, z.stride[1], z.pad[1], z.dilation[1])
            target = dx[:, :, i :: z.stride[0], j :: z.stride[1]]
            if rows is None or columns is None:  # no window ever reads these pixels
                target[...] = 0
                continue
            taps = swapped[:, :, rows[0], columns[0]]
            windows = Windows(taps.shape[2], taps.shape[3], rows[1], columns[1], (1, 1), (rows[2], columns[2]))
            _correlate(dy, taps, None, target, windows, z.groups)
    return dx


def _phase(i: int, taps: int, stride: int, pad: int, dilation: int) -> tuple[slice, int, int] | None:
    """Return the taps that read pixels i, i + stride, ... of one axis, the first place in dy, and the step there.

    Tap r of output p reads pixel p stride - pad + r dilation.  For pixel h that is p = (h + pad - r dilation) / stride,
    where it is whole: for every `step`-th tap.  Taken backwards, those taps correlate dy with a dilation of its own.
    """
    step = stride // gcd(stride, dilation)
    first = next((r for r in range(min(step, taps)) if (i + pad - r * dilation) % stride == 0), None)
    if first is None:
        return None
    last = first + (taps - 1 - first) // step * step
    backwards = slice(last, first - 1 if first else None, -step)
    return backwards, (i + pad - last * dilation) // stride, step * dilation // stride


def _scatter_data_gradient(dy: np.ndarray, w: np.ndarray, z: ConvSizes, dx: np.ndarray) -> None:
    """Fill dx the other way round: what each output sends to each tap of its window, added where the tap lies.

    The better way to few channels, where a correlation would unfold K values to make C.  Nothing is ever multiplied
    with zeros around dy, so infinite and NaN weights stay where they belong.
    """
    kind = accumulator(dy.dtype)
    taps = w.reshape(z.groups, z.K // z.groups, -1).astype(kind).transpose(0, 2, 1)  # (groups, CRS, K)
    height, width = z.H + 2 * z.pad[0], z.W + 2 * z.pad[1]

    def work(images: tuple[int, int]) -> None:
        part = dy[slice(*images)]
        n = part.shape[0]
        gradients = _as_matrices(part, kind).reshape(n, z.groups, z.K // z.groups, -1)  # (n, groups, K, pixels)
        sent = scratch("unfolded", (n, z.groups, taps.shape[1], z.P * z.Q), kind)
        np.matmul(taps, gradients, out=sent)
        by_tap = sent.reshape(n, z.C, z.R, z.S, z.P, z.Q)
        padded = scratch("strip", (n, z.C, height, width), kind)
        padded.fill(0)
        added = RunningSum(padded, z.R * z.S)
        for r in range(z.R):
            top = r * z.dilation[0]
            rows = slice(top, top + (z.P - 1) * z.stride[0] + 1, z.stride[0])
            for s in range(z.S):
                left = s * z.dilation[1]
                columns = slice(left, left + (z.Q - 1) * z.stride[1] + 1, z.stride[1])
                added.next()[:, :, rows, columns] += by_tap[:, :, r, s]
        added.close()
        inside = padded[:, :, z.pad[0] : z.pad[0] + z.H, z.pad[1] : z.pad[1] + z.W]
        np.copyto(dx[slice(*images)], inside, casting="same_kind")

    image_bytes = w[0].size * z.groups * z.P * z.Q * kind.itemsize
    for_each(work, ranges(z.N, max(1, _SCATTER_BYTES // image_bytes)))


# The two loops over blocks ------------------------------------------------------------------------------------------


def _correlate(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, windows: Windows, groups: int
) -> None:
    """Fill y[n, k, p, q] with b[k] + the sum over c, r, s of w[k, c, r, s] times tap (r, s) of window (p, q) of x.

    Pixels outside x are 0.  x and y may have any strides.
    """
    kind = accumulator(x.dtype)
    N, K, P, Q = y.shape
    bias = None if b is None else b.astype(kind)
    if w.shape[1] == 1 and groups > 1:
        correlate_depthwise(x, w, bias, y, windows)
        return
    pixel_bytes = w[0].size * groups * kind.itemsize
    pieces = blocks(N, P, Q, pixel_bytes)
    if groups == 1 and winograd.serves(x, w, N * P * Q, windows):
        pieces = winograd.correlate(x, w, bias, y, windows)  # what infinities and NaN spoiled is done again, exactly
        if not pieces:
            return

    if groups == 1 and prefers_planar(x, windows, Q):
        filters = w.reshape(K, -1).astype(kind)  # (K, CRS)
        with_ones = bias is not None and not windows.one_pixel()
        if bias is not None and with_ones:
            filters = np.column_stack([filters, bias])

        def planar(block: Block) -> None:
            target = y[block.n0 : block.n1, :, block.p0 : block.p1]  # (n, K, p, Q)
            columns = unfold_planar(x, block, windows, Q, ones=with_ones)  # (n, CRS, pixels)
            last = target.transpose(0, 2, 3, 1)  # (n, p, Q, K)
            if y.dtype == kind and last[0].flags.c_contiguous:
                out = last.reshape(len(last), -1, K)
                np.matmul(columns.transpose(0, 2, 1), filters.T, out=out)
                direct = True
            else:
                direct = y.dtype == kind and target[0, 0].flags.c_contiguous
                flat = (*target.shape[:2], columns.shape[2])
                by_filter = target.reshape(flat) if direct else scratch("out", flat, kind)
                np.matmul(filters, columns, out=by_filter)
                out = by_filter.transpose(0, 2, 1)  # (n, pixels, K)
            if bias is not None and not with_ones:
                np.add(out, bias, out=out)
            if not direct:
                np.copyto(last, out.reshape(last.shape), casting="same_kind")

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
        np.matmul(rows, matrices, out=out)
        if bias is not None:
            out += bias.reshape(groups, 1, -1)
        if not direct:
            by_pixel = out.transpose(1, 0, 2).reshape(target.shape)  # a view where groups == 1
            np.copyto(target, by_pixel, casting="same_kind")

    for_each(channels_last, pieces)


def _weight_gradient(dy: np.ndarray, x: np.ndarray, w: np.ndarray, windows: Windows, groups: int) -> np.ndarray:
    """Return dw[k, c, r, s]: the sum over n, p, q of dy[n, k, p, q] times tap (r, s) of window (p, q) of x."""
    kind = accumulator(x.dtype)
    N, K, P, Q = dy.shape
    if w.shape[1] == 1 and groups == K:
        return weight_gradient_depthwise(dy, x, w, windows)
    if groups == 1 and winograd.serves(x, w, N * P * Q, windows):
        dw = winograd.weight_gradient(dy, x, windows, _partial_sums(16 * w[:, :, 0, 0].size * kind.itemsize))
        if np.isfinite(dw).all():
            return np.ascontiguousarray(dw, dtype=w.dtype)
    planar = groups == 1 and prefers_planar(x, windows, Q)
    pieces = blocks(N, P, Q, w[0].size * groups * kind.itemsize)
    parts = _partial_sums(w.size * kind.itemsize)
    shares = [pieces[first:last] for first, last in ranges(len(pieces), -(-max(1, len(pieces)) // parts))]
    shape = (groups, K // groups, w[0].size)
    sums = zero_array((len(shares), *shape), kind)

    def share(index: int) -> None:
        product = scratch("product", shape, kind)
        for block in shares[index]:
            part = dy[block.n0 : block.n1, :, block.p0 : block.p1]
            if planar:
                columns = unfold_planar(x, block, windows, Q)  # (n, CRS, pixels)
                terms = np.matmul(_as_matrices(part, kind), columns.transpose(0, 2, 1))  # (n, K, CRS)
                product[0] = np.sum(terms, axis=0, dtype=kind if len(terms) <= FEW else np.float64)
            else:
                gradient = _as(kind, "gradient", part.transpose(0, 2, 3, 1)).reshape(-1, groups, K // groups)
                np.matmul(gradient.transpose(1, 2, 0), unfold(x, block, windows, Q, groups), out=product)
            sums[index] += product

    for_each(share, range(len(shares)))
    total = sums.sum(axis=0)
    if planar:
        return total.reshape(w.shape).astype(w.dtype, copy=False)
    by_tap = total.reshape(K, windows.R, windows.S, -1).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(by_tap, dtype=w.dtype)


def _partial_sums(nbytes: int) -> int:
    """Return into how many partial sums of so many bytes a weight gradient is parted."""
    return min(_PARTIAL_SUMS, max(1, _PARTIAL_BYTES // nbytes))


def _as(kind: np.dtype, slot: str, part: np.ndarray) -> np.ndarray:
    """Return part itself if it is contiguous and of the given dtype, else a copy that is, in scratch memory."""
    if part.dtype == kind and part.flags.c_contiguous:
        return part
    copy = scratch(slot, part.shape, kind)
    np.copyto(copy, part)
    return copy


def _as_matrices(part: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Return (n, K, p, Q) as (n, K, pixels) of the given dtype, without a copy for either memory format."""
    n, K = part.shape[:2]
    last = part.transpose(0, 2, 3, 1)
    if part.dtype == kind and last[0].flags.c_contiguous:
        return last.reshape(n, -1, K).transpose(0, 2, 1)
    if part.dtype == kind and part[0, 0].flags.c_contiguous:
        return part.reshape(n, K, -1)
    return _as(kind, "gradient", part).reshape(n, K, -1)
