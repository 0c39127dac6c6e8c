"""Where in the image each maximum of a pool lies, from what max_pool_forward keeps: others' indices of a max-pool."""

from __future__ import annotations

from typing import Any

import numpy as np


def pool_indices(argmax: np.ndarray, sizes: Any, order: str = "C") -> np.ndarray:
    """Return the place of each maximum in its image, counted row by row (order "F": column by column).

    argmax and sizes: of the cache of max_pool_forward; argmax as a NumPy array
    """
    taps = np.unravel_index(argmax.reshape(sizes.out), sizes.window)
    axes = zip(taps, np.indices(sizes.out)[2:], sizes.stride, sizes.pad, sizes.dilation, strict=True)
    pixels = tuple(window * stride - pad + tap * dilation for tap, window, stride, pad, dilation in axes)
    return np.ravel_multi_index(pixels, sizes.image[2:], order=order).reshape(argmax.shape)  # type: ignore[call-overload]
