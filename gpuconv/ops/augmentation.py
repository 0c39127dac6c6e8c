"""From stored pictures to a training batch in one pass: crop, flip, normalise, cut out.  What the user calls."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import checks
from ..backend import backend_of, on_gpu
from ..errors import ArgTypeError, DTypeError, ParamError, ShapeError
from ..placed import Count
from ..shapes import check_count
from ..typing import AnyArray, Array

PAD_MODES = ("zero", "reflect")


def augment(
    images: Array,
    draws: AnyArray | None = None,
    *,
    mean: npt.ArrayLike,
    std: npt.ArrayLike,
    pad: int = 0,
    pad_mode: str = "zero",
    flip: bool = False,
    cutout: int = 0,
    dtype: npt.DTypeLike = "float32",
    channels_last: bool = False,
) -> Array:
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

    >>> images = np.array([[[[0, 51, 102], [153, 204, 255]]]], np.uint8)
    >>> gpuconv.augment(images, mean=[0.0], std=[0.2])[0, 0]
    array([[0., 1., 2.],
           [3., 4., 5.]], dtype=float32)
    >>> mirrored = np.array([1 << 32], np.uint64)
    >>> gpuconv.augment(images, mirrored, mean=[0.0], std=[0.2], flip=True)[0, 0]
    array([[2., 1., 0.],
           [5., 4., 3.]], dtype=float32)
    """
    checks.given(images=images)
    backend = backend_of(images=images, draws=draws)
    options = _checked(images, draws, mean, std, pad, pad_mode, flip, cutout, dtype, channels_last)
    return backend.augment(images, draws, **options)


def augment_batch(
    images: Any,
    labels: Any,
    order: Any,
    draws: Any = None,
    *,
    place: int | Count,
    count: int,
    out: tuple[Any, Any] | None = None,
    mean: Any,
    std: Any,
    pad: int = 0,
    pad_mode: str = "zero",
    flip: bool = False,
    cutout: int = 0,
    dtype: Any = "float32",
    channels_last: bool = False,
) -> tuple[Any, Any]:
    """Gather and augment a batch of an epoch: augment(images[chosen], draws[chosen]) and labels[chosen], bit for bit.

    chosen = order[place : place + count].   images: (pictures, C, H, W) uint8   labels: (pictures,) int64
    order: int64, an epoch's places in images   draws: (pictures,) uint64 or None   ->   x (count, C, H, W), labels (count,)

    On a GPU it is one launch.  place: a number, or a Count, which is read when the launch runs and not before: nobody
    looks whether that one lies within the order, nor the order within images.
    out: arrays (x, labels) to fill and return, x without gaps in the memory format asked for.
    The other options are those of augment.
    """
    checks.given(images=images, labels=labels, order=order)
    placed = place.at if isinstance(place, Count) else None
    x, out_labels = (None, None) if out is None else out
    backend = backend_of(images=images, labels=labels, order=order, draws=draws, place=placed, x=x, y=out_labels)
    options = _checked(images, draws, mean, std, pad, pad_mode, flip, cutout, dtype, channels_last)
    for name, array in {"labels": labels, "order": order}.items():
        if array.dtype != np.int64:
            msg = f"{name} must be int64, got {array.dtype}"
            raise DTypeError(msg)
    checks.same_shape("labels", labels, (images.shape[0],), "one label per image,")
    checks.ndim("order", order, 1, "(pictures of the epoch,)")
    count = checks.integer("count", count, least=0, most=order.shape[0])
    if not isinstance(place, Count):
        place = checks.integer("place", place, least=0, most=order.shape[0] - count)
    if out is not None:
        shape = count, *images.shape[1:]
        for name, array, wanted, kind in (
            ("x", out[0], shape, options["dtype"]),
            ("y", out[1], (count,), labels.dtype),
        ):
            checks.same_shape(name, array, wanted, "the batch")
            if count:  # strides of nothing say nothing
                checks.writable(name, array)
            if array.dtype != kind:
                msg = f"{name} must be {kind}, got {array.dtype}"
                raise DTypeError(msg)
    if on_gpu(images):
        batch: tuple[Any, Any] = backend.augmentation.augment_batch(
            images, labels, order, draws, place=place, count=count, out=out, **options
        )
        return batch
    first = place.times * int(place.at[0]) + place.plus if isinstance(place, Count) else place
    chosen = order[first : first + count]
    made = augment(images[chosen], None if draws is None else draws[chosen], **options), labels[chosen]
    if out is None:
        return made
    for array, filled in zip(made, out, strict=True):
        filled[...] = array
    return out


def _checked(
    images: Any,
    draws: Any,
    mean: Any,
    std: Any,
    pad: Any,
    pad_mode: Any,
    flip: Any,
    cutout: Any,
    dtype: Any,
    channels_last: Any,
) -> dict[str, Any]:
    """Return the options as backends take them."""
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
    result_dtype = checks.float_dtype(dtype, beside=images)
    mean = [checks.real("mean", value, low=-float("inf")) for value in _sequence("mean", mean)]
    std = [checks.real("std", value, low=0.0, open_low=True) for value in _sequence("std", std)]
    if not len(mean) == len(std) == images.shape[1]:
        msg = f"mean and std must have one entry per channel ({images.shape[1]}), got {len(mean)} and {len(std)}"
        msg += checks.channels_first("images", images, len(mean)) if len(mean) == len(std) else ""
        raise ShapeError(msg)
    return {
        "mean": mean,
        "std": std,
        "pad": pad,
        "pad_mode": pad_mode,
        "flip": flip,
        "cutout": cutout,
        "dtype": result_dtype,
        "channels_last": channels_last,
    }


def _sequence(name: str, values: Any) -> list[Any]:
    numbers = None
    if not isinstance(values, (AbstractSet, Mapping)):  # which number belongs to which channel?
        with suppress(Exception):  # what somebody's own class, or an array without axes on a GPU, may raise
            numbers = list(values)
    if numbers is None:
        msg = f"{name} must be a sequence of one number per channel, got {checks.shown(values)}"
        raise ArgTypeError(msg)
    return numbers
