"""Sizes of one pooling call, computed and checked once, before any backend runs; the alphabet is that of shapes.py."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from . import checks
from .errors import ParamError, ShapeError, SizeLimitError
from .shapes import IMAGE_AXES, check_count, check_images, out_size, plain_sides, sides_of, spoken

_MOST_IN_WINDOW = 2**31 - 1


@dataclass(frozen=True, slots=True)
class PoolSizes:
    """Sizes of one pooling call.  pad is what lies before the image, behind what lies behind it.

    Windows may stick out of either: the last ones where ceil wants them.  Each has a tap in the image.
    """

    N: int
    C: int
    H: int
    W: int
    R: int
    S: int
    P: int
    Q: int
    stride: tuple[int, int]
    pad: tuple[int, int]
    behind: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

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
        return self.N, self.C, self.P, self.Q

    @property
    def places(self) -> int:
        """How many pixels a window has."""
        return self.R * self.S


@dataclass(frozen=True, slots=True)
class VolumePoolSizes:
    """Sizes of one pooling call on volumes; as PoolSizes."""

    N: int
    C: int
    D: int
    H: int
    W: int
    T: int
    R: int
    S: int
    Z: int
    P: int
    Q: int
    stride: tuple[int, int, int]
    pad: tuple[int, int, int]
    behind: tuple[int, int, int] = (0, 0, 0)
    dilation: tuple[int, int, int] = (1, 1, 1)

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
        return self.N, self.C, self.Z, self.P, self.Q

    @property
    def places(self) -> int:
        """How many pixels a window has."""
        return self.T * self.R * self.S


def pool_sizes(
    x: Any, *, window: Any, stride: Any, pad: Any, dilation: Any = 1, ceil: Any = False
) -> PoolSizes | VolumePoolSizes:
    """Return the sizes of a pooling call on x; stride=None means the window.

    Those of a signal, where the window has to be a tuple of one, are the sizes of an image of one row: with an int it
    may be an image that lacks its batch axis.
    """
    axes = _pool_axes(x, window)
    letters = f"(N, C, {IMAGE_AXES[axes]})"
    _check_axes(x, axes, letters, "window")
    window = checks.each_axis("window", window, axes, least=1)
    if prod(window) > _MOST_IN_WINDOW:
        msg = f"window must have at most 2^31 - 1 elements, which is how far places in it are counted, got window={window}"
        raise SizeLimitError(msg)
    stride = window if stride is None else checks.each_axis("stride", stride, axes, least=1)
    dilation = checks.each_axis("dilation", dilation, axes, least=1)
    sides = sides_of(pad, window, stride, dilation)
    ceil = checks.flag("ceil", ceil)
    checks.not_empty("x", x, letters)
    N, C, *size = x.shape
    reach = [d * (n - 1) + 1 for n, d in zip(window, dilation, strict=True)]
    dilated = f" (dilated to {spoken(reach)})" if max(dilation) > 1 else ""
    if any(max(both) >= n for both, n in zip(sides, reach, strict=True)):
        of = f"pad={plain_sides(sides)}, window={window}{dilated}"
        msg = f"pad must be less than the window, so that no window lies in the padding: {of}"
        raise ParamError(msg)
    out = [out_size(*axis, ceil=ceil) for axis in zip(size, window, stride, sides, dilation, strict=True)]
    if min(out) < 1:
        padded = [n + sum(both) for n, both in zip(size, sides, strict=True)]
        msg = f"window {spoken(window)}{dilated} does not fit the padded input {spoken(padded)}"
        raise ShapeError(msg)
    check_count("y", (N, C, *out), f"x {tuple(x.shape)}")
    pad, behind = zip(*sides, strict=True)
    if any(_astride(*axis) for axis in zip(size, out, stride, pad, dilation, strict=True)):
        of = f"x {tuple(x.shape)}, dilation={dilation}, pad={plain_sides(sides)}"
        msg = f"a window would have the whole image between its taps, and all of them in the padding: {of}"
        raise ParamError(msg)
    return _sizes((N, C), size, window, out, stride, pad, behind, dilation)


def pool_sizes_of(
    x: tuple[int, ...], y: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...]
) -> PoolSizes | VolumePoolSizes | None:
    """Return the sizes of pooling x into y, of which these are the shapes; None where a window would be padding alone.

    There may be fewer windows than fit, and behind x as much padding as the last one needs.
    """
    axes = list(zip(x[2:], y[2:], window, stride, pad, strict=True))
    behind = tuple((windows - 1) * step + taps - size - before for size, windows, taps, step, before in axes)
    beside = any(max(both) >= taps for *both, taps in zip(pad, behind, window, strict=True))
    if beside or not prod(x) or not prod(y) or prod(window) > _MOST_IN_WINDOW:
        return None
    return _sizes(x[:2], x[2:], window, y[2:], stride, pad, tuple(max(0, n) for n in behind), (1,) * len(window))


def _sizes(images: Any, size: Any, window: Any, out: Any, *options: tuple[int, ...]) -> PoolSizes | VolumePoolSizes:
    """Return sizes, of signals as of images of one row; options are stride, pad, behind and dilation."""
    if len(window) == 3:
        return VolumePoolSizes(*images, *size, *window, *out, *options)
    if len(window) == 1:
        size, window, out = (1, *size), (1, *window), (1, *out)
        options = tuple((alone, *sides) for alone, sides in zip((1, 0, 0, 1), options, strict=True))
    return PoolSizes(*images, *size, *window, *out, *options)


def _astride(size: int, windows: int, stride: int, pad: int, dilation: int) -> bool:
    """Return whether a window that begins before the image has no tap in it, where that is narrower than a step of taps."""
    before = range(min(windows, -(-pad // stride)))
    return size < dilation and any((p * stride - pad) % dilation >= size for p in before)


def image_pool_sizes(x: Any, **options: Any) -> PoolSizes:
    """Return the sizes of a pooling call for what knows images alone; x of other axes is refused."""
    check_images("x", x)
    sizes = pool_sizes(x, **options)
    assert isinstance(sizes, PoolSizes)
    return sizes


@dataclass(frozen=True, slots=True)
class AdaptiveSizes:
    """Sizes of one adaptive pooling call: the shapes of x, `image`, and of y, `out`.

    Of n pixels along an axis, window p of P has those from floor(p n / P) to before ceil((p + 1) n / P).
    """

    image: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def even(self) -> bool:
        """True if the windows are of one size and lie side by side."""
        return all(n % p == 0 for n, p in zip(self.image[2:], self.out[2:], strict=True))

    @property
    def whole(self) -> bool:
        """True if there is one window, all of the image."""
        return set(self.out[2:]) == {1}

    @property
    def windows(self) -> PoolSizes | VolumePoolSizes:
        """The same call as one of average pooling, where the windows are even."""
        size, out = self.image[2:], self.out[2:]
        window = tuple(n // p for n, p in zip(size, out, strict=True))
        nothing = (0,) * len(out)
        return _sizes(self.image[:2], size, window, out, window, nothing, nothing, (1,) * len(out))


def adaptive_sizes(x: Any, size: Any) -> AdaptiveSizes:
    """Return the sizes of pooling x to a size: an int, or one for each axis, where None leaves an axis as it is.

    Those of a signal are the sizes of an image of one row; size has to be a tuple of one there, as pool_sizes says.
    """
    axes = _pool_axes(x, size)
    letters = f"(N, C, {IMAGE_AXES[axes]})"
    _check_axes(x, axes, letters, "size")
    entries = size if isinstance(size, (tuple, list)) else (size,) * axes
    kept = [entry is None and entries is size for entry in entries]
    numbers = checks.each_axis(
        "size", tuple(1 if keep else n for n, keep in zip(entries, kept, strict=True)), axes, least=1
    )
    checks.not_empty("x", x, letters)
    N, C, *image = x.shape
    out = [n if keep else p for n, p, keep in zip(image, numbers, kept, strict=True)]
    check_count("y", (N, C, *out), f"size={checks.shown(size)}")
    if axes == 1:
        image, out = [1, *image], [1, *out]
    return AdaptiveSizes((N, C, *image), (N, C, *out))


def _check_axes(x: Any, axes: int, letters: str, option: str) -> None:
    """Check the axes of x; option: what says of signals that they are meant."""
    if x.ndim != axes + 2:
        signal = f", or, to pool (N, C, L), {option} must be a tuple of one, as in (2,)" if x.ndim == 3 else ""
        msg = f"x must be {letters}, got shape {tuple(x.shape)}{signal}"
        raise ShapeError(msg)


def _pool_axes(x: Any, window: Any) -> int:
    """Return how many spatial axes pooling is meant to have."""
    if x.ndim == 3 and isinstance(window, (tuple, list)) and len(window) == 1:
        return 1
    return 3 if x.ndim == 5 else 2
