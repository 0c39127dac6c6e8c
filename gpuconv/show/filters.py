"""Filters of a net as pictures."""

from __future__ import annotations

import numpy as np

from .. import nn
from ..backend import asnumpy
from ..png import image


def first_filters(net: nn.Net) -> tuple[str, np.ndarray] | None:
    """Return name and weights (K, C, R, S) of the first convolution that sees the picture; None if there is none."""
    for name, leaf in net.body.leaves():
        weights = leaf.params.get("w", leaf.state.get("w"))
        if weights is None:
            continue
        on_host = asnumpy(weights)
        sees = on_host.ndim == 4 and on_host.shape[1] == net.input_shape[0]
        return (name or "conv", np.asarray(on_host, np.float64)) if sees else None
    return None


def tile(weights: np.ndarray) -> np.ndarray:
    """Return a filter as a picture.   weights: (C, R, S) -> (R, S, 3) uint8 if C is 3, else (R, S)."""
    flat = weights if len(weights) == 3 else weights.mean(axis=0, keepdims=True)
    scale = np.abs(flat).max() or 1.0
    pixels = np.rint(127.5 + 127.5 * flat / scale).astype(np.uint8)
    return image(pixels)
