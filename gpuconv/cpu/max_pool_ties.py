"""The gradient of max-pooling for all of a window's equal maxima: two passes over the taps, to count and to add."""

from __future__ import annotations

import numpy as np

from ..shapes import PoolSizes, is_channels_last
from .layout import accumulator, empty, scratch_like
from .parallel import for_each, quiet
from .runs import RunningSum
from .taps import image_ranges, taps

_BOOL = np.dtype(bool)


@quiet
def max_pool_backward_ties(
    dy: np.ndarray, x: np.ndarray, y: np.ndarray, sizes: PoolSizes, *, split: bool
) -> np.ndarray:
    z, kind = sizes, accumulator(dy.dtype)
    dx = empty((z.N, z.C, z.H, z.W), dy.dtype, channels_last=is_channels_last(x))

    def work(images: tuple[int, int]) -> None:
        part = slice(*images)
        pixels, best, out = x[part], y[part], dx[part]
        total = scratch_like("total", out, kind)
        total.fill(0)
        share = scratch_like("share", best, kind)
        np.copyto(share, dy[part])
        if split:
            count = scratch_like("count", best, kind)
            count.fill(0)
            for _, source, target in taps(z):
                hit = scratch_like("hit", best[target], _BOOL)
                np.equal(pixels[source], best[target], out=hit)
                np.add(count[target], hit, out=count[target])
            np.divide(share, count, out=share, where=count > 0)  # NaN equals nothing
        added = RunningSum(total, z.R * z.S)
        for _, source, target in taps(z):
            hit = scratch_like("hit", best[target], _BOOL)
            np.equal(pixels[source], best[target], out=hit)
            here = added.next()[source]
            np.add(here, share[target], out=here, where=hit)
        added.close()
        np.copyto(out, total, casting="same_kind")

    for_each(work, image_ranges(dx))
    return dx
