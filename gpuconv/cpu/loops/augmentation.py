"""Crop, flip, normalise and cut out a block of images, pixel by pixel."""

from __future__ import annotations

import numpy as np
from numba import boolean, float32, intp, types, uint8, uint64

from ..parallel import scratch
from .jit import NUMBER, compiled_pass, loop, read, write

BLOCK = 96 * 1024

_INDEX = np.dtype(np.intp)
_NO_DRAWS = np.zeros(0, np.uint64)


def augment(
    images: np.ndarray,
    draws: np.ndarray | None,
    levels: np.ndarray,
    out: np.ndarray,
    pad: int,
    reflect: bool,
    flip: bool,
    cutout: int,
) -> None:
    """Fill out with the levels (C, 256) of images, moved as their random words say; none (None) move none."""
    H, W = images.shape[2:]
    rows, columns = scratch("rows", (H,), _INDEX), scratch("columns", (W,), _INDEX)
    words = _NO_DRAWS if draws is None else np.require(draws, requirements=("C", "A"))
    _augment(images, words, levels, out, rows, columns, pad, reflect, flip, cutout)


@loop
def _bits(word, first, mask):
    return intp((word >> uint64(first)) & uint64(mask))


@loop
def _find(sources, shift, mirrored, reflect):
    """Fill in from where each row, or column, of a picture comes; -1 is from outside."""
    size = len(sources)
    for i in range(size):
        source = (size - 1 - i if mirrored else i) + shift
        if reflect:
            source = abs(source)
            source = min(source, 2 * (size - 1) - source)
        sources[i] = source if 0 <= source < size else -1


@compiled_pass(
    types.Array(uint8, 4, "A", readonly=True),
    read(1, uint64),
    read(2),
    types.Array(float32, 4, "A"),
    write(1, types.intp),
    write(1, types.intp),
    NUMBER,
    boolean,
    boolean,
    NUMBER,
)
def _augment(images, draws, levels, out, rows, columns, pad, reflect, flip, cutout):
    """rows (H,), columns (W,): from where each comes."""
    n, C, H, W = images.shape
    down = right = intp(0)
    mirrored = False
    for i in range(n):
        if len(draws):
            down = ((_bits(draws[i], 0, 0xFFFF) * (2 * pad + 1)) >> 16) - pad
            right = ((_bits(draws[i], 16, 0xFFFF) * (2 * pad + 1)) >> 16) - pad
            mirrored = flip and _bits(draws[i], 32, 1) == 1
        _find(rows, down, False, reflect)
        _find(columns, right, mirrored, reflect)
        for h in range(H):
            for c in range(C):
                level = levels[c]
                target = out[i, c, h]
                if rows[h] < 0:
                    for w in range(W):
                        target[w] = level[0]
                    continue
                pixels = images[i, c, rows[h]]
                for w in range(W):
                    target[w] = level[pixels[columns[w]] if columns[w] >= 0 else 0]
        if len(draws) and cutout:
            top = ((_bits(draws[i], 33, 0x7FFF) * H) >> 15) - cutout // 2
            left = ((_bits(draws[i], 48, 0x7FFF) * W) >> 15) - cutout // 2
            for c in range(C):
                for h in range(max(top, 0), min(top + cutout, H)):
                    for w in range(max(left, 0), min(left + cutout, W)):
                        out[i, c, h, w] = 0
