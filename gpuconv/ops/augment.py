"""From stored pictures to a training batch in one pass: crop, flip, normalise.  What the user calls."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks
from ..backend import backend_of
from ..errors import ArgTypeError, DTypeError, ShapeError


def augment(
    images: Any,
    draws: Any = None,
    *,
    mean: Any,
    std: Any,
    pad: int = 0,
    flip: bool = False,
    dtype: Any = "float32",
    channels_last: bool = False,
) -> Any:
    """Return images as normalised floats, each shifted by up to pad pixels and mirrored at random.

    images: (N, C, H, W) uint8   draws: (N,) uint64 or None   ->   (N, C, H, W) of dtype

    Every value becomes (v / 255 - mean[c]) / std[c], mean and std being sequences of C numbers; pixels shifted in from
    outside are black (value 0) before that.  Of an image's random word d, bits 0-15 choose its vertical shift, bits
    16-31 the horizontal one, bit 32 whether it is mirrored: a pure function of d, the same on every backend.
    draws=None leaves the pictures where they are.  channels_last chooses the memory format of the result.
    """
    checks.given(images=images)
    backend = backend_of(images=images, draws=draws)
    if images.dtype != np.uint8:
        msg = f"images must be uint8, got {images.dtype}"
        raise DTypeError(msg)
    checks.ndim("images", images, 4, "(N, C, H, W)")
    checks.not_empty("images", images, "(N, C, H, W)")
    if draws is not None:
        if draws.dtype != np.uint64:
            msg = f"draws must be uint64, got {draws.dtype}"
            raise DTypeError(msg)
        checks.same_shape("draws", draws, (images.shape[0],), "one word per image,")
    pad = checks.integer("pad", pad, least=0)
    flip = checks.flag("flip", flip)
    channels_last = checks.flag("channels_last", channels_last)
    try:
        result_dtype = np.dtype(dtype)
    except TypeError:
        msg = f"dtype must name an array element type, got {dtype!r}"
        raise ArgTypeError(msg) from None
    if result_dtype not in checks.FLOATS:
        msg = f"dtype must be float16, float32 or float64, got {result_dtype}"
        raise DTypeError(msg)
    mean = [checks.real("mean", value, low=-float("inf")) for value in _sequence("mean", mean)]
    std = [checks.real("std", value, low=0.0, open_low=True) for value in _sequence("std", std)]
    if not len(mean) == len(std) == images.shape[1]:
        msg = f"mean and std must have one entry per channel ({images.shape[1]}), got {len(mean)} and {len(std)}"
        raise ShapeError(msg)
    return backend.augment(
        images, draws, mean=mean, std=std, pad=pad, flip=flip, dtype=result_dtype, channels_last=channels_last
    )


def _sequence(name: str, values: Any) -> list[Any]:
    try:
        return list(values)
    except TypeError:
        msg = f"{name} must be a sequence of one number per channel, got {values!r}"
        raise ArgTypeError(msg) from None
