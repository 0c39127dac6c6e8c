"""Max-pooling tap by tap: R S passes over strided views of a block, no window is ever gathered."""

from __future__ import annotations

import numpy as np

from ..shapes import PoolSizes, is_channels_last
from .layout import empty
from .parallel import for_each, quiet, scratch
from .taps import image_ranges, taps


@quiet
def max_pool_forward(x: np.ndarray, sizes: PoolSizes) -> tuple[np.ndarray, np.ndarray]:
    z = sizes
    channels_last = is_channels_last(x)
    y = empty((z.N, z.C, z.P, z.Q), x.dtype, channels_last=channels_last)
    places = np.dtype(np.uint8 if z.R * z.S <= 256 else np.int32)
    argmax = empty(y.shape, places, channels_last=channels_last)

    def work(images: tuple[int, int]) -> None:
        part = slice(*images)
        has_nan = x.dtype.kind == "f" and bool(np.isnan(x[part].max(initial=-np.inf)))
        best, place = y[part], argmax[part]
        place.fill(0)
        seen = None
        if z.pad != (0, 0):  # some windows miss some taps
            best.fill(-np.inf)
            seen = np.zeros_like(best, dtype=bool)
        for index, source, target in taps(z):
            values, so_far = x[part][source], best[target]
            if index == 0 and seen is None:
                np.copyto(so_far, values)
                continue
            wins = _mask("wins", so_far)
            np.greater(values, so_far, out=wins)
            if has_nan:
                wins |= np.isnan(values) & ~np.isnan(so_far)
            if seen is not None:  # the first tap inside the image wins over -inf, too
                wins |= ~seen[target]
                seen[target] = True
            # Later taps have larger numbers: the maximum of win * number is the last winner.
            number = np.multiply(wins, places.type(index), dtype=places)
            np.maximum(place[target], number, out=place[target])
            # With `so_far` second, equal values (-0 and 0) leave the first one in place.
            np.maximum(values, so_far, out=so_far)

    for_each(work, image_ranges(x))
    return y, argmax


@quiet
def max_pool_backward(dy: np.ndarray, argmax: np.ndarray, sizes: PoolSizes) -> np.ndarray:
    z = sizes
    dx = empty((z.N, z.C, z.H, z.W), dy.dtype, channels_last=is_channels_last(argmax))
    # Windows that tile the image: every pixel is written exactly once, so nothing is cleared or added.
    tiled = z.stride == (z.R, z.S) and z.pad == (0, 0) and (z.P * z.R, z.Q * z.S) == (z.H, z.W)
    bits = np.dtype(f"i{dy.dtype.itemsize}")

    def work(images: tuple[int, int]) -> None:
        part = slice(*images)
        gradient, place, out = dy[part], argmax[part], dx[part]
        if not tiled:
            out.fill(0)
        for index, source, target in taps(z):
            here = place[target]
            mine = _mask("wins", here)
            np.equal(here, index, out=mine)
            # All ones or all zeros: selecting by bits is exact for infinities, where multiplying is not.
            mask = np.negative(mine.view(np.int8)).astype(bits)
            np.bitwise_and(mask, gradient[target].view(bits), out=mask)
            if tiled:
                np.copyto(out[source], mask.view(dy.dtype))
            else:
                out[source] += mask.view(dy.dtype)

    for_each(work, image_ranges(dx))
    return dx


def _mask(slot: str, like: np.ndarray) -> np.ndarray:
    """Return a boolean scratch array of the shape and axis order of `like`."""
    if is_channels_last(like):
        N, C, H, W = like.shape
        return scratch(slot, (N, H, W, C), np.dtype(bool)).transpose(0, 3, 1, 2)
    return scratch(slot, like.shape, np.dtype(bool))
