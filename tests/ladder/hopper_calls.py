"""Calls that launch the kernels of Hopper's own instructions, off by default: on a device of that architecture.

They are apart from the calls of kernel_calls.py, since no other GPU has these kernels, and the emulator by its g++
route alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from gpuconv.cuda import conv_weight_wgmma, conv_wgmma

from .kernel_calls import FORMATS, Call, Launched, Settings, conv_behind, conv_relu, infinite_tap, launched, of


def _two_slices(pixels: int, _: int, tile: conv_weight_wgmma.WeightWgmmaTile, __: int) -> tuple[int, int]:
    """Stand in for conv_weight_wgmma.slices_of: whole steps, the last slice shorter."""
    length = -(-pixels // (2 * tile.depth)) * tile.depth
    return -(-pixels // length), length


def settings_of(
    tile: conv_wgmma.WgmmaTile, of_weights: conv_weight_wgmma.WeightWgmmaTile = conv_weight_wgmma.SMALL
) -> Settings:
    """Return what lets warpgroups serve each convolution that they can, by these tiles; sums of dw in short runs.

    What does not compile is an error, and not left to other kernels, and few channels are not, either.
    """
    return (
        (conv_wgmma, "prepared", conv_wgmma.prepare),
        (conv_wgmma, "ON", True),
        (conv_wgmma, "_LEAST_SHARE", 0.0),
        (conv_wgmma, "_CYCLES", {tile: 1}),
        (conv_weight_wgmma, "_CYCLES", {of_weights: 1}),
        (conv_weight_wgmma, "slices_of", _two_slices),
        (conv_weight_wgmma, "run_of", lambda *_: 2),
    )


def _call(
    name: str,
    tile: conv_wgmma.WgmmaTile,
    of_weights: conv_weight_wgmma.WeightWgmmaTile = conv_weight_wgmma.SMALL,
    *,
    operator: str = "conv",
    **sizes: Any,
) -> Call:
    call = of(operator, name, quick=False, settings=settings_of(tile, of_weights), **sizes)
    return dataclasses.replace(call, dtypes=("float16",), arch=conv_wgmma.ARCH)


_CALLS = (
    _call("hopper_conv", conv_wgmma.SLIM, x=(3, 72, 7, 9), w=(40, 72, 3, 3), pad=1),
    _call(
        "hopper_conv_wide",
        conv_wgmma.WIDE,
        conv_weight_wgmma.LARGE,
        x=(2, 24, 9, 8),
        w=(264, 24, 2, 3),
        b=None,
        stride=2,
        pad=(0, 1),
    ),
    _call(
        "hopper_conv_tall",
        conv_wgmma.TALL,
        conv_weight_wgmma.TALL,
        x=(5, 64, 9, 8),
        w=(136, 64, 3, 1),
        stride=(1, 2),
        dilation=(2, 1),
    ),
    _call("hopper_conv_large", conv_wgmma.LARGE, conv_weight_wgmma.FLAT, x=(3, 130, 6, 8), w=(130, 130, 1, 1)),
    _call("hopper_conv_turned", conv_wgmma.TURNED, x=(9, 64, 8, 8), w=(72, 64, 3, 1), pad=(1, 0)),
    _call("hopper_conv_half_steps_turned", conv_wgmma.TURNED, x=(2, 24, 9, 8), w=(17, 24, 3, 3), stride=2, pad=1),
    _call("hopper_conv_half_steps_wide", conv_wgmma.WIDE, x=(2, 88, 5, 6), w=(80, 88, 3, 3), pad=1),
    _call("hopper_conv_half_steps_tall", conv_wgmma.TALL, x=(2, 24, 9, 8), w=(24, 24, 3, 3), pad=1),
    _call("hopper_conv_half_steps_large", conv_wgmma.LARGE, x=(2, 24, 9, 8), w=(152, 24, 3, 3), pad=1),
    _call("hopper_conv_factors", conv_wgmma.SLIM, x=(1, 16, 13, 12), w=(16, 16, 3, 3), stride=4, pad=1, dilation=2),
    _call(
        "hopper_conv_transpose",
        conv_wgmma.SLIM,
        operator="conv_transpose",
        x=(2, 24, 5, 4),
        w=(24, 40, 3, 3),
        stride=2,
        pad=1,
        output_pad=1,
    ),
    _call("hopper_conv_phases_of_nothing", conv_wgmma.SLIM, x=(3, 16, 2, 7), w=(16, 16, 1, 1), stride=3),
    _call(
        "hopper_conv_infinite_tap",
        conv_wgmma.SLIM,
        x=(2, 16, 5, 4),
        w=(17, 16, 2, 2),
        stride=(1, 2),
        drawn={"w": infinite_tap},
    ),
    _call(
        "hopper_conv_anywhere",
        conv_wgmma.SLIM,
        x=(1, 16, 5, 4),
        w=(16, 16, 2, 2),
        drawn={"x": "shifted", "dy": "shifted"},
    ),
    *(
        Call(name, run, "conv", False, ("float16",), formats, settings_of(conv_wgmma.SLIM), conv_wgmma.ARCH)
        for name, run, formats in (
            ("hopper_conv_relu", lambda d: conv_relu(d, 17), FORMATS),
            ("hopper_conv_behind", lambda d: conv_behind(d, pool=False, N=5), ("NHWC",)),
        )
    ),
)
CALLS = {call.name: call for call in _CALLS}
_TILES = {
    conv_wgmma.WIDE: conv_weight_wgmma.LARGE,
    conv_wgmma.TALL: conv_weight_wgmma.FLAT,
    conv_wgmma.LARGE: conv_weight_wgmma.TALL,
    conv_wgmma.SLIM: conv_weight_wgmma.SMALL,
    conv_wgmma.TURNED: conv_weight_wgmma.SMALL,
}


def _calls_of_tiles() -> Iterator[Call]:
    """Yield calls that between them launch each kernel with each tile, in steps of 64 channels and of 32."""
    for tile, of_weights in _TILES.items():
        for channels in (64, 24):
            name = f"conv of {channels} channels by {tile}"
            yield _call(name, tile, of_weights, x=(1, channels, 6, 8), w=(channels, channels, 3, 3), pad=1)


def instances(dtypes: Sequence[str] = ("float16", "bfloat16")) -> dict[str, Launched]:
    """Return the kernels that no other GPU has, with every tile, by C++ name."""
    every = launched([*CALLS.values(), *_calls_of_tiles()], dtypes)
    return {name: one for name, one in every.items() if one.kernel.target is not None}
