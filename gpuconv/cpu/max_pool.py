"""Max-pooling: sizes, results, and gradients that ties share; the other passes over memory are in arrays/ and loops/."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pool_shapes import PoolSizes, VolumePoolSizes
from ..shapes import is_channels_last
from .compiled import passes
from .layout import accumulator, empty, places_type, scratch_like
from .parallel import BLOCK_ELEMENTS, for_each, quiet
from .runs import RunningSum
from .taps import image_ranges, taps

_BOOL = np.dtype(bool)


@quiet
def max_pool_forward(x: np.ndarray, sizes: PoolSizes | VolumePoolSizes) -> tuple[np.ndarray, np.ndarray]:
    z, channels_last = sizes, is_channels_last(x)
    run = passes("max_pool", x.dtype)
    y = empty(z.out, x.dtype, channels_last=channels_last)
    argmax = empty(y.shape, places_type(z.places), channels_last=channels_last)
    run.forward(x, y, argmax, z)
    return y, argmax


@quiet
def max_pool_backward(
    dy: np.ndarray,
    argmax: Any,
    sizes: PoolSizes | VolumePoolSizes,
    *,
    ties: str = "first",
    x: Any = None,
    y: Any = None,
) -> np.ndarray:
    if ties != "first":
        return _shared(dy, x, y, sizes, split=ties == "split")
    z = sizes
    run = passes("max_pool", dy.dtype)
    dx = empty(z.image, dy.dtype, channels_last=is_channels_last(argmax))
    run.backward(dy, argmax, dx, z)
    return dx


def _shared(dy: np.ndarray, x: np.ndarray, y: np.ndarray, z: PoolSizes | VolumePoolSizes, *, split: bool) -> np.ndarray:
    """Return the gradient of which all of a window's equal maxima have a part: two passes, to count and to add."""
    kind = accumulator(dy.dtype)
    dx = empty(z.image, dy.dtype, channels_last=is_channels_last(x))

    def work(part: slice) -> None:
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
        added = RunningSum(total, z.places)
        for _, source, target in taps(z):
            hit = scratch_like("hit", best[target], _BOOL)
            np.equal(pixels[source], best[target], out=hit)
            here = added.next()[source]
            np.add(here, share[target], out=here, where=hit)
        added.close()
        np.copyto(out, total, casting="same_kind")

    for_each(work, image_ranges(dx, BLOCK_ELEMENTS))
    return dx
