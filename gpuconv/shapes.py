"""Sizes of one operator call, computed and checked once, before any backend runs.

One alphabet everywhere: N batch, C input channels, H W input, K filters, R S window, P Q output.  Pairs are
(vertical, horizontal).  Volumes have a depth before: D H W input, T R S window, Z P Q output (the letters of CUTLASS),
and triples (depth, vertical, horizontal).  Signals (N, C, L) are images of one row.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import prod
from typing import Any

from . import checks
from .errors import ParamError, ShapeError, SizeLimitError
from .plural import counted

_MOST_ELEMENTS = 2**60 - 1  # NumPy counts bytes up to 2^63 - 1, eight of them in a float64


@dataclass(frozen=True, slots=True)
class ConvSizes:
    """Sizes of one convolution.  pad is what lies before the image; what lies behind it only makes P and Q larger."""

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    P: int
    Q: int
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def image(self) -> tuple[int, int, int, int]:
        """The shape of x."""
        return self.N, self.C, self.H, self.W

    @property
    def window(self) -> tuple[int, int]:
        """The taps along each axis."""
        return self.R, self.S

    @property
    def out(self) -> tuple[int, int, int, int]:
        """The shape of y."""
        return self.N, self.K, self.P, self.Q

    @property
    def padded(self) -> tuple[int, ...]:
        """How far the image with its padding reaches along each axis: over all pixels, and all that windows read."""
        return _padded(self)


@dataclass(frozen=True, slots=True)
class VolumeConvSizes:
    """Sizes of one convolution of volumes."""

    N: int
    C: int
    D: int
    H: int
    W: int
    K: int
    T: int
    R: int
    S: int
    Z: int
    P: int
    Q: int
    stride: tuple[int, int, int]
    pad: tuple[int, int, int]
    dilation: tuple[int, int, int]
    groups: int

    @property
    def image(self) -> tuple[int, int, int, int, int]:
        """The shape of x."""
        return self.N, self.C, self.D, self.H, self.W

    @property
    def window(self) -> tuple[int, int, int]:
        """The taps along each axis."""
        return self.T, self.R, self.S

    @property
    def out(self) -> tuple[int, int, int, int, int]:
        """The shape of y."""
        return self.N, self.K, self.Z, self.P, self.Q

    @property
    def padded(self) -> tuple[int, ...]:
        """How far the volume with its padding reaches along each axis: over all pixels, and all that windows read."""
        return _padded(self)


# What x may be where its pixels are of any number of axes, by the number of its own; what is meant most comes first.
SPATIAL = {4: "(N, C, H, W)", 3: "(N, C, L)", 5: "(N, C, D, H, W)"}

# The axes of images after batch and channels, of filters after theirs, by their number.
IMAGE_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}
_FILTER_AXES = {1: "S", 2: "R, S", 3: "T, R, S"}


def _padded(z: ConvSizes | VolumeConvSizes) -> tuple[int, ...]:
    axes = zip(z.image[2:], z.out[2:], z.window, z.stride, z.pad, z.dilation, strict=True)
    return tuple(max(n + p, (q - 1) * s + d * (r - 1) + 1) for n, q, r, s, p, d in axes)


def out_size(
    size: int, window: int, stride: int, pad: int | tuple[int, int], dilation: int = 1, *, ceil: bool = False
) -> int:
    """Return the number of window positions along one axis; a last partial step is dropped (floor).

    pad: on either side, or (before, after).   ceil: it is kept, unless its window would begin behind the image: where
    the padding behind it begins, or later, which is PyTorch's rule
    """
    before, after = pad if isinstance(pad, tuple) else (pad, pad)
    steps = size + before + after - dilation * (window - 1) - 1
    if not ceil:
        return steps // stride + 1
    last = -(-steps // stride)
    return last if last * stride >= size + before else last + 1


def sides_of(pad: Any, window: Any, stride: Any, dilation: Any) -> tuple[tuple[int, int], ...]:
    """Return the padding (before, after) along each axis.

    pad: what checks.each_side takes, or "same", which leaves the size of the image as it is: of an odd number of zeros
    the last one lies behind, as in PyTorch.   window, stride, dilation: along each axis
    """
    if not (isinstance(pad, str) and pad == "same"):
        return checks.each_side("pad", pad, len(window))
    if max(stride) > 1:
        msg = f'pad="same" needs stride=1, since no size stays the same under another, got stride={stride}'
        raise ParamError(msg)
    spans = (d * (r - 1) for r, d in zip(window, dilation, strict=True))
    return tuple((span // 2, span - span // 2) for span in spans)


def plain_sides(sides: tuple[tuple[int, int], ...]) -> tuple[int | tuple[int, int], ...]:
    """Return padding as a user would write it: an int for an axis with as much on both sides."""
    return tuple(before if before == after else (before, after) for before, after in sides)


def conv_sizes(
    x: Any, w: Any, b: Any, *, stride: Any = 1, pad: Any = 0, dilation: Any = 1, groups: Any = 1
) -> ConvSizes | VolumeConvSizes:
    """Return the sizes of conv_forward(x, w, b, ...), or raise what is wrong with its arguments.

    Those of a signal are the sizes of an image of one row.
    """
    axes, stride, sides, dilation, groups = _conv_options(x, w, b, "(K, C / groups", stride, pad, dilation, groups)
    (N, C, *size), (K, C_w, *window) = x.shape, w.shape
    entries = K if b is None else b.shape[0]
    hint = ""
    if axes == 2 and (C_w * groups != C or entries != K):
        hint = _other_order(x.shape, w.shape, None if b is None else entries, sides, dilation, groups)
    if C % groups or K % groups:
        msg = f"groups must divide the channels of x and the filters of w, got groups={groups}, C={C}, K={K}{hint}"
        raise ParamError(msg)
    if C_w * groups != C:
        times = f" in each of {groups} groups" if groups > 1 else ""
        msg = f"x has {counted(C, 'channel')} but w expects {C_w}{times}: x {tuple(x.shape)}, w {tuple(w.shape)}{hint}"
        raise ShapeError(msg)
    if entries != K:
        both = f"w has {counted(K, 'filter')} but b has {counted(entries, 'entry', 'entries')}"
        msg = f"{both}: w {tuple(w.shape)}, b {tuple(b.shape)}{hint}"
        raise ShapeError(msg)
    out = [out_size(*axis) for axis in zip(size, window, stride, sides, dilation, strict=True)]
    padded = [n + sum(both) for n, both in zip(size, sides, strict=True)]
    if min(out) < 1:
        reach = [d * (n - 1) + 1 for n, d in zip(window, dilation, strict=True)]
        dilated = f" (dilated to {spoken(reach)})" if max(dilation) > 1 else ""
        msg = f"filter {spoken(window)}{dilated} does not fit the padded input {spoken(padded)}"
        raise ShapeError(msg)
    given = plain_sides(sides)[0] if axes == 1 else plain_sides(sides)
    pad = tuple(before for before, _ in sides)
    check_count("y", (N, K, *out), f"pad={given}")
    check_count("the padded x", (N, C, *padded), f"pad={given}")
    return _sizes((N, C, *size), (K, *window), out, stride, pad, dilation, groups)


def conv_transpose_sizes(
    x: Any, w: Any, b: Any, *, stride: Any = 1, pad: Any = 0, output_pad: Any = 0, dilation: Any = 1, groups: Any = 1
) -> ConvSizes | VolumeConvSizes:
    """Return the sizes of the convolution that conv_transpose_forward(x, w, b, ...) turns round, or raise what is wrong.

    Its input is y and its output x: C counts the channels of y, K those of x.
    """
    axes, stride, sides, dilation, groups = _conv_options(x, w, b, "(C, K / groups", stride, pad, dilation, groups)
    more = checks.each_axis("output_pad", output_pad, axes, least=0)
    (N, C, *size), (C_w, K_w, *window) = x.shape, w.shape
    K = K_w * groups
    if C_w != C:
        msg = f"x has {counted(C, 'channel')} but w has filters for {C_w}: x {tuple(x.shape)}, w {tuple(w.shape)}"
        raise ShapeError(msg)
    if C % groups:
        msg = f"groups must divide the channels of x, got groups={groups}, C={C}"
        raise ParamError(msg)
    if b is not None and b.shape[0] != K:
        times = f" in {groups} groups" if groups > 1 else ""
        msg = f"w makes {counted(K, 'channel')}{times} but b has {counted(b.shape[0], 'entry', 'entries')}: w {tuple(w.shape)}, b {tuple(b.shape)}"
        raise ShapeError(msg)
    if any(m >= max(s, d) for m, s, d in zip(more, stride, dilation, strict=True)):
        msg = (
            f"output_pad must be less than stride or dilation: output_pad={more}, stride={stride}, dilation={dilation}"
        )
        raise ParamError(msg)
    padded = [
        (n - 1) * s + d * (r - 1) + m + 1 for n, s, d, r, m in zip(size, stride, dilation, window, more, strict=True)
    ]
    out = [n - sum(both) for n, both in zip(padded, sides, strict=True)]
    if min(out) < 1:
        msg = f"pad must leave something of the output, {spoken(padded)} before it is cut: pad={plain_sides(sides)}"
        raise ParamError(msg)
    check_count("y", (N, K, *out), f"x {tuple(x.shape)} and stride={stride}")
    check_count("y before pad is cut off", (N, K, *padded), f"x {tuple(x.shape)} and stride={stride}")
    pad = tuple(before for before, _ in sides)
    return _sizes((N, K, *out), (C, *window), size, stride, pad, dilation, groups)


def _conv_options(
    x: Any, w: Any, b: Any, w_letters: str, stride: Any, pad: Any, dilation: Any, groups: Any
) -> tuple[int, tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...], int]:
    """Return the number of spatial axes, and stride, padding, dilation and groups as they are meant for them."""
    axes = _conv_axes(x, w)
    x_letters = f"(N, C, {IMAGE_AXES[axes]})"
    checks.ndim("x", x, axes + 2, x_letters)
    checks.ndim("w", w, axes + 2, f"{w_letters}, {_FILTER_AXES[axes]})")
    if b is not None:
        checks.ndim("b", b, 1, "(K,)")
    stride = checks.each_axis("stride", stride, axes, least=1)
    dilation = checks.each_axis("dilation", dilation, axes, least=1)
    sides = sides_of(pad, w.shape[2:], stride, dilation)
    groups = checks.integer("groups", groups, least=1)
    checks.not_empty("x", x, x_letters)
    if 0 in w.shape:
        msg = f"w must have no axis of size 0, got shape {tuple(w.shape)}"
        raise ShapeError(msg)
    return axes, stride, sides, dilation, groups


def _sizes(image: Any, filters: Any, out: Any, stride: Any, pad: Any, dilation: Any, groups: int) -> Any:
    """Return sizes of an image (N, C, ...), filters (K, ...) and an output; those of a signal as of an image of one row."""
    if len(out) == 3:
        return VolumeConvSizes(*image, *filters, *out, stride, pad, dilation, groups)  # type: ignore[call-arg]
    if len(out) == 1:
        (N, C, L), (K, S) = image, filters
        return ConvSizes(N, C, 1, L, K, 1, S, 1, *out, (1, *stride), (0, *pad), (1, *dilation), groups)  # type: ignore[call-arg]
    return ConvSizes(*image, *filters, *out, stride, pad, dilation, groups)  # type: ignore[call-arg]


def _conv_axes(x: Any, w: Any) -> int:
    """Return how many spatial axes a convolution is meant to have: 2 where x or w has as many, or neither has 1 or 3."""
    return next((axes for axes in (2, 1, 3) if axes + 2 in (x.ndim, w.ndim)), 2)


def spoken(sizes: Any) -> str:
    """Return sizes as they are spoken: 3x3."""
    return "x".join(map(str, sizes))


def _other_order(
    x: tuple[int, ...],
    w: tuple[int, ...],
    entries: int | None,
    sides: tuple[tuple[int, int], ...],
    dilation: tuple[int, int],
    groups: int,
) -> str:
    """Return which of two shapes that do not fit may have its axes in another order, if they would fit in ours; else "".

    Filters are read in the other order only if that makes their window square, and so rather than as a window that is not.
    """
    images = {"": x[1:], "x is N H W C? x.transpose(0, 3, 1, 2)": (x[3], *x[1:3])}
    filters = {"": w}
    if w[0] == w[1]:
        filters["w is H W I O? w.transpose(3, 2, 0, 1)"] = (w[3], w[2], *w[:2])
    fitting = [
        (R != S, ", ".join(filter(None, (of_x, of_w))))
        for of_x, (C, H, W) in images.items()
        for of_w, (K, C_w, R, S) in filters.items()
        if C_w * groups == C and K % groups == 0 and entries in (None, K)
        if H + sum(sides[0]) > dilation[0] * (R - 1) and W + sum(sides[1]) > dilation[1] * (S - 1)
    ]
    return f" ({min(fitting)[1]})" if fitting else ""


_MANY_FILTERS = 8


def warn_of_turned_filters(w: Any, *, stacklevel: int) -> None:
    """Warn of filters that fit as they are, but hardly are what is meant: (3, 3, 3, 16), as Keras and JAX store 16 of 3 x 3."""
    K, C, R, S = w.shape
    if K == C == R >= 3 and S >= _MANY_FILTERS and S != R:
        msg = (
            f"w {(K, C, R, S)} is read as {K} filters of {R} x {S}; is it H W I O, {S} filters of {K} x {C}? "
            "w.transpose(3, 2, 0, 1)"
        )
        warnings.warn(msg, stacklevel=stacklevel + 1)


def check_images(name: str, x: Any) -> None:
    """Check that these are images, for what knows no signals and volumes."""
    checks.ndim(name, x, 4, "(N, C, H, W)")


def check_count(name: str, shape: tuple[int, ...], why: str) -> None:
    """Raise SizeLimitError if an array would have more elements than memory has addresses; why: where its shape comes from."""
    if prod(shape) > _MOST_ELEMENTS:
        msg = f"{name} would be {shape} with {why}, and an array holds fewer than 2^60 elements"
        raise SizeLimitError(msg)


def is_channels_last(x: Any) -> bool:
    """True if (N, C, H, W) or (N, C, D, H, W) is stored with its channels together, C last; its output is then too.

    Of a view that is neither, the axis with the smaller step decides: channels or columns.
    """
    if x.flags.c_contiguous:
        return False
    if x.transpose(0, *range(2, x.ndim), 1).flags.c_contiguous:
        return True
    return x.shape[1] > 1 and abs(x.strides[1]) < abs(x.strides[-1])


def image_of_signal(x: Any) -> Any:
    """Return a view of a signal (N, C, L) as an image of one row, (N, C, 1, L), which sizes of signals are those of."""
    return x[:, :, None]


def signal_of_image(x: Any) -> Any:
    """Return a view of an image of one row, (N, C, 1, L), as a signal (N, C, L)."""
    return x[:, :, 0]


def as_image(array: Any) -> Any:
    """Return a signal as an image of one row, as the backends take it; images, volumes and None as they are."""
    return image_of_signal(array) if array is not None and array.ndim == 3 else array


def with_axes_of(array: Any, result: Any) -> Any:
    """Return a result of a backend, or None, with the axes of the array that it belongs to."""
    return signal_of_image(result) if array.ndim == 3 and result is not None else result


def folded(x: Any) -> Any:
    """Return an array with its pixels on two axes, as (N, C, H, W): signals in one row, volumes with D and H as one axis.

    For what asks of pixels only which channel they are of.  A view wherever x has no gaps; rows and images as they are.
    """
    if x.ndim == 3:
        return image_of_signal(x)
    if x.ndim != 5:
        return x
    N, C, D, H, W = x.shape
    if is_channels_last(x):
        return x.transpose(0, 2, 3, 4, 1).reshape(N, D * H, W, C).transpose(0, 3, 1, 2)
    return x.reshape(N, C, D * H, W)


def unfolded(result: Any, shape: tuple[int, ...]) -> Any:
    """Return a view of what a backend made of a folded array in the shape that it had."""
    return result if result.ndim == len(shape) else result.reshape(shape)
