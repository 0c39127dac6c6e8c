"""From stored pictures to a training batch in one pass: crop, flip, normalise, cut out.  What the user calls."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any

import numpy as np

from .. import checks
from ..backend import backend_of
from ..errors import ArgTypeError, DTypeError, ParamError, ShapeError
from ..shapes import check_count

PAD_MODES = ("zero", "reflect")


def augment(
    images: Any,
    draws: Any = None,
    *,
    mean: Any,
    std: Any,
    pad: int = 0,
    pad_mode: str = "zero",
    flip: bool = False,
    cutout: int = 0,
    dtype: Any = "float32",
    channels_last: bool = False,
) -> Any:
    """Return images as normalised floats, each shifted by up to pad pixels, mirrored and cut into at random.

    images: (N, C, H, W) uint8   draws: (N,) uint64 or None   ->   (N, C, H, W) of dtype

    Every value becomes (v / 255 - mean[c]) / std[c], mean and std being sequences of C numbers.  Pixels shifted in
    from outside are black (value 0) before that, or with pad_mode="reflect" those inside as the border mirrors them,
    the border itself not repeated.  Last, cutout=N sets a square of N x N pixels to 0, the mean: its centre is any
    pixel of the result, and what would stick out over the border is left off, so that some pictures lose less.

    Of an image's random word d, bits 0-15 choose its vertical shift, bits 16-31 the horizontal one, bit 32 whether it
    is mirrored, bits 33-47 the row of the square's centre, bits 48-62 its column; bit 63 chooses nothing.  The result
    is a pure function of d, the same on every backend.  draws=None leaves the pictures as they are.  channels_last
    chooses the memory format of the result.
    Source of cutout: DeVries and Taylor, Improved Regularization of CNNs with Cutout (arXiv 1708.04552).
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
    pad_mode = checks.choice("pad_mode", pad_mode, PAD_MODES)
    size = f"images are {images.shape[2]} x {images.shape[3]}"
    if pad_mode == "reflect" and pad >= min(images.shape[2:]):
        msg = f'pad must be less than the height and width of images for pad_mode="reflect", got pad={pad}, {size}'
        raise ParamError(msg)
    N, C, H, W = images.shape
    check_count("the framed images", (N, C, H + 2 * pad, W + 2 * pad), f"pad={pad}")
    flip = checks.flag("flip", flip)
    cutout = checks.integer("cutout", cutout, least=0)
    if cutout > min(images.shape[2:]):
        msg = f"cutout must be at most the height and width of images, got cutout={cutout}, {size}"
        raise ParamError(msg)
    channels_last = checks.flag("channels_last", channels_last)
    result_dtype = checks.float_dtype(dtype)
    mean = [checks.real("mean", value, low=-float("inf")) for value in _sequence("mean", mean)]
    std = [checks.real("std", value, low=0.0, open_low=True) for value in _sequence("std", std)]
    if not len(mean) == len(std) == images.shape[1]:
        msg = f"mean and std must have one entry per channel ({images.shape[1]}), got {len(mean)} and {len(std)}"
        msg += checks.channels_first("images", images, len(mean)) if len(mean) == len(std) else ""
        raise ShapeError(msg)
    return backend.augment(
        images,
        draws,
        mean=mean,
        std=std,
        pad=pad,
        pad_mode=pad_mode,
        flip=flip,
        cutout=cutout,
        dtype=result_dtype,
        channels_last=channels_last,
    )


def _sequence(name: str, values: Any) -> list[Any]:
    numbers = None
    if not isinstance(values, (AbstractSet, Mapping)):  # which number belongs to which channel?
        with suppress(Exception):  # what somebody's own class, or an array without axes on a GPU, may raise
            numbers = list(values)
    if numbers is None:
        msg = f"{name} must be a sequence of one number per channel, got {checks.shown(values)}"
        raise ArgTypeError(msg)
    return numbers
