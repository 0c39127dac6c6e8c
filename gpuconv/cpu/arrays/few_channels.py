"""The gradient of an input of few channels: a correlation would unfold K values of dy for each of them."""

from __future__ import annotations

import numpy as np

from ...shapes import ConvSizes
from ..layout import accumulator
from ..parallel import for_each, ranges, scratch
from ..product import product
from ..runs import RunningSum
from .unfold import as_matrices

_SCATTER_BYTES = 1024 * 1024


def input_gradient(dy: np.ndarray, w: np.ndarray, z: ConvSizes, dx: np.ndarray) -> None:
    """Fill dx the other way round: what each output sends to each tap of its window, added where the tap lies.

    The better way to few channels, where a correlation would unfold K values to make C.  Nothing is ever multiplied
    with zeros around dy, so infinite and NaN weights stay where they belong.
    """
    kind = accumulator(dy.dtype)
    taps = w.reshape(z.groups, z.K // z.groups, -1).astype(kind).transpose(0, 2, 1)  # (groups, CRS, K)
    height, width = z.padded

    def work(images: tuple[int, int]) -> None:
        part = dy[slice(*images)]
        n = part.shape[0]
        gradients = as_matrices(part, kind).reshape(n, z.groups, z.K // z.groups, -1)  # (n, groups, K, pixels)
        sent = scratch("unfolded", (n, z.groups, taps.shape[1], z.P * z.Q), kind)
        product(taps, gradients, sent)
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
