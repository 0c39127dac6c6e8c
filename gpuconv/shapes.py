"""Sizes of one operator call, computed and checked once, before any backend runs.

One alphabet everywhere: N batch, C input channels, H W input, K filters, R S window, P Q output.  Pairs are
(vertical, horizontal).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from . import checks
from .errors import ParamError, ShapeError, SizeLimitError
from .plural import counted

_MOST_ELEMENTS = 2**60 - 1  # NumPy counts bytes up to 2^63 - 1, eight of them in a float64

_MOST_IN_WINDOW = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ConvSizes:
    """Sizes of one convolution."""

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


@dataclass(frozen=True, slots=True)
class PoolSizes:
    """Sizes of one pooling call."""

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


def out_size(size: int, window: int, stride: int, pad: int, dilation: int = 1) -> int:
    """Return the number of window positions along one axis; a last partial step is dropped (floor)."""
    return (size + 2 * pad - dilation * (window - 1) - 1) // stride + 1


def conv_sizes(
    x: Any, w: Any, b: Any, *, stride: Any = 1, pad: Any = 0, dilation: Any = 1, groups: Any = 1
) -> ConvSizes:
    """Return the sizes of conv_forward(x, w, b, ...), or raise what is wrong with its arguments."""
    checks.ndim("x", x, 4, "(N, C, H, W)")
    checks.ndim("w", w, 4, "(K, C / groups, R, S)")
    if b is not None:
        checks.ndim("b", b, 1, "(K,)")
    stride = checks.pair("stride", stride, least=1)
    pad = checks.pair("pad", pad, least=0)
    dilation = checks.pair("dilation", dilation, least=1)
    groups = checks.integer("groups", groups, least=1)
    checks.not_empty("x", x, "(N, C, H, W)")
    if 0 in w.shape:
        msg = f"w must have no axis of size 0, got shape {tuple(w.shape)}"
        raise ShapeError(msg)
    (N, C, H, W), (K, C_w, R, S) = x.shape, w.shape
    entries = K if b is None else b.shape[0]
    hint = ""
    if C_w * groups != C or entries != K:
        hint = _other_order(x.shape, w.shape, None if b is None else entries, pad, dilation, groups)
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
    P = out_size(H, R, stride[0], pad[0], dilation[0])
    Q = out_size(W, S, stride[1], pad[1], dilation[1])
    if P < 1 or Q < 1:
        reach = f"{dilation[0] * (R - 1) + 1}x{dilation[1] * (S - 1) + 1}"
        dilated = f" (dilated to {reach})" if dilation != (1, 1) else ""
        msg = f"filter {R}x{S}{dilated} does not fit the padded input {H + 2 * pad[0]}x{W + 2 * pad[1]}"
        raise ShapeError(msg)
    check_count("y", (N, K, P, Q), f"pad={pad}")
    check_count("the padded x", (N, C, H + 2 * pad[0], W + 2 * pad[1]), f"pad={pad}")
    return ConvSizes(N, C, H, W, K, R, S, P, Q, stride, pad, dilation, groups)


def _other_order(
    x: tuple[int, ...],
    w: tuple[int, ...],
    entries: int | None,
    pad: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> str:
    """Return which of two shapes that do not fit may have its axes in another order, if they would fit in ours; else "".

    Filters are read in the other order only if that makes their window square, and so rather than as a window that is not.
    """
    images = {"": x, "x is N H W C? x.transpose(0, 3, 1, 2)": (x[0], x[3], *x[1:3])}
    filters = {"": w}
    if w[0] == w[1]:
        filters["w is H W I O? w.transpose(3, 2, 0, 1)"] = (w[3], w[2], *w[:2])
    fitting = [
        (R != S, ", ".join(filter(None, (of_x, of_w))))
        for of_x, (_, C, H, W) in images.items()
        for of_w, (K, C_w, R, S) in filters.items()
        if C_w * groups == C and K % groups == 0 and entries in (None, K)
        if out_size(H, R, 1, pad[0], dilation[0]) > 0 and out_size(W, S, 1, pad[1], dilation[1]) > 0
    ]
    return f" ({min(fitting)[1]})" if fitting else ""


def pool_sizes(x: Any, *, window: Any, stride: Any, pad: Any) -> PoolSizes:
    """Return the sizes of a pooling call on x; stride=None means the window."""
    checks.ndim("x", x, 4, "(N, C, H, W)")
    window = checks.pair("window", window, least=1)
    if prod(window) > _MOST_IN_WINDOW:
        msg = f"window must have at most 2^31 - 1 elements, which is how far places in it are counted, got window={window}"
        raise SizeLimitError(msg)
    stride = window if stride is None else checks.pair("stride", stride, least=1)
    pad = checks.pair("pad", pad, least=0)
    checks.not_empty("x", x, "(N, C, H, W)")
    N, C, H, W = x.shape
    if 2 * pad[0] > window[0] or 2 * pad[1] > window[1]:
        msg = f"pad must be at most half the window, so that no window lies in the padding: pad={pad}, window={window}"
        raise ParamError(msg)
    P = out_size(H, window[0], stride[0], pad[0])
    Q = out_size(W, window[1], stride[1], pad[1])
    if P < 1 or Q < 1:
        msg = f"window {window[0]}x{window[1]} does not fit the padded input {H + 2 * pad[0]}x{W + 2 * pad[1]}"
        raise ShapeError(msg)
    check_count("y", (N, C, P, Q), f"x {tuple(x.shape)}")
    return PoolSizes(N, C, H, W, window[0], window[1], P, Q, stride, pad)


def check_count(name: str, shape: tuple[int, ...], why: str) -> None:
    """Raise SizeLimitError if an array would have more elements than memory has addresses; why: where its shape comes from."""
    if prod(shape) > _MOST_ELEMENTS:
        msg = f"{name} would be {shape} with {why}, and an array holds at most 2^60 elements"
        raise SizeLimitError(msg)


def is_channels_last(x: Any) -> bool:
    """True if an (N, C, H, W) array is stored with its channels together (N, H, W, C); its output is then too.

    Of a view that is neither, the axis with the smaller step decides: channels or columns.
    """
    if x.flags.c_contiguous:
        return False
    if x.transpose(0, 2, 3, 1).flags.c_contiguous:
        return True
    return x.shape[1] > 1 and abs(x.strides[1]) < abs(x.strides[3])
