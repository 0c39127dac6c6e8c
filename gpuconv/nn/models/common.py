"""What the nets check alike."""

from __future__ import annotations

from typing import Any

from ... import checks
from ...errors import ParamError, ShapeError
from ..net import sample_shape


def image_shape(shape: Any) -> tuple[int, ...]:
    """Return the shape of one image as (C, H, W)."""
    shape = sample_shape(shape)
    if len(shape) != 3:
        msg = f"input_shape must be (C, H, W), got {shape}"
        raise ShapeError(msg)
    return shape


def large_enough(net: str, shape: tuple[int, ...], least: int) -> None:
    """Check that an image outlives all pools of a net."""
    if min(shape[1:]) < least:
        msg = f"{net} needs images of at least {least}x{least}, got input_shape {shape}"
        raise ShapeError(msg)


def checked_widths(net: str, widths: tuple[Any, ...], default: tuple[int, ...]) -> tuple[int, ...]:
    """Return one number of filters for each place that default has; default itself if none are given."""
    if not widths:
        return default
    widths = tuple(checks.integer("widths", filters, least=1) for filters in widths)
    if len(widths) != len(default):
        msg = f"{net} takes {len(default)} widths, as in {default}, got {len(widths)}: {widths}"
        raise ParamError(msg)
    return widths
