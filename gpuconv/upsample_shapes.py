"""Sizes and options of one upsampling call, checked once, before any backend runs; the alphabet is that of shapes.py."""

from __future__ import annotations

from typing import Any

from . import checks
from .errors import ParamError
from .shapes import SPATIAL, check_count

_OF_SOME_AXES = ("bilinear", "trilinear")  # what others call linear along two axes, and along three


def upsampled(x: Any, factor: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the factor along each axis of x, and the shape that x has afterwards."""
    checks.ndim_among("x", x, SPATIAL)
    factor = checks.each_axis("factor", factor, x.ndim - 2, least=1)
    checks.not_empty("x", x, SPATIAL[x.ndim])
    shape = (*x.shape[:2], *(n * f for n, f in zip(x.shape[2:], factor, strict=True)))
    check_count("y", shape, f"x {tuple(x.shape)} and factor={factor}")
    return factor, shape


def check_mode(mode: Any, align_corners: Any) -> tuple[str, bool]:
    """Return mode and align_corners if they are what upsampling takes."""
    if isinstance(mode, str) and mode in _OF_SOME_AXES:
        msg = f'mode must be "nearest" or "linear", which it is called along any number of axes, got {mode!r}'
        raise ParamError(msg)
    mode, align_corners = (
        checks.choice("mode", mode, ("nearest", "linear")),
        checks.flag("align_corners", align_corners),
    )
    if align_corners and mode == "nearest":
        msg = 'align_corners=True needs mode="linear": to the nearest pixel there is one way alone'
        raise ParamError(msg)
    return mode, align_corners
