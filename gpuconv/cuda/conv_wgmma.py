"""Launches of convolution and its input gradient by warpgroups, on Hopper alone: tiles, tensor maps, the way back.

Every launcher here does what that of conv_tensor does, which serves where these cannot.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd, prod
from typing import Any, NamedTuple

import numpy as np

from ..errors import GpuLaunchError
from ..shapes import ConvSizes, is_channels_last
from . import conv_tensor
from .copy import contiguous
from .device import Device
from .kernel import Kernel
from .tensor_map import Boxes, Form, Windows

# The rule's switch.  Off until a GPU has been seen to agree with the emulator about bulk copies and operands: a kernel
# that waits for a copy which never lands does not end.
ON = False
ARCH = 90  # the compute capability, without the dot, that has the instructions: later ones have others

HOPPER: dict[str, Any] = {"block": 288, "least_arch": ARCH, "target": "90a"}  # of each kernel
_FORWARD = Kernel("conv_wgmma.cu", "conv_forward_wgmma", **HOPPER)
_DATA = Kernel("conv_wgmma.cu", "conv_backward_data_wgmma", **HOPPER)

_FLOAT = np.dtype(np.float32)
_CORNERS = -128, 127  # of the box that a map walks,
_SHIFT = 255  # what a tap is further on,
_STEP = 8  # and steps, at most
_ITEM = 2  # bytes of a number
_DEPTHS = 64, 32  # channels of a step
# Of the channels of whole steps those that are there, at least: the rest multiplies zeros, of which slices of several
# taps (conv_tensor.cuh) have fewer.
_LEAST_SHARE = 0.5
_CHANNELS = 64  # of dx, in a line of the filters
_BESIDE = 512  # bytes behind the stages, or fewer: mbarriers, and what a block knows of its tile


class WgmmaTile(NamedTuple):
    """Template arguments: what a block makes, channels of a step, steps under way."""

    pixels: int
    filters: int
    depth: int
    stages: int


WIDE = WgmmaTile(128, 256, 64, 4)
TALL = WgmmaTile(256, 128, 64, 4)
LARGE = WgmmaTile(128, 128, 64, 3)
SLIM = WgmmaTile(128, 64, 64, 4)
TURNED = WgmmaTile(512, 64, 64, 3)

# Blocks on a multiprocessor, by registers and shared memory; cycles of a step, the longer of two: products (2,048 a cycle),
# or passes of 128 bytes over shared memory (copies once, A and B once for each product): tests/ladder/wgmma_loops.json.
_TOGETHER = {WIDE: 1, TALL: 1, LARGE: 2, SLIM: 2, TURNED: 1}
_CYCLES = {WIDE: 1024, TALL: 1152, LARGE: 640, SLIM: 448, TURNED: 1216}
_CYCLES_OF_ENDS = 2500  # of a block, until its first step has landed and from its last to its outputs


def takes(z: ConvSizes, device: Device, dtype: np.dtype, *, data: bool) -> bool:
    """True if these kernels make y of z, or dx with data, of what tensor cores can make at all."""
    if not serves(z, device, dtype, z.K if data else z.C, min(_DEPTHS)):
        return False
    return _fits(_data_axes(z) if data else forward_axes(z))


def serves(z: ConvSizes, device: Device, dtype: np.dtype, channels: int, step: int) -> bool:
    """True if warpgroups are to be used at all, and so many channels fill whole steps well enough."""
    if not ON or device.arch != ARCH or device in _refused or dtype.itemsize != 2:
        return False
    return z.groups == 1 and min(z.N, z.P, z.Q) > 0 and channels >= _LEAST_SHARE * step * -(-channels // step)


def conv_forward(
    device: Device,
    x: Any,
    w: Any,
    b: Any,
    z: ConvSizes,
    shape: np.void,
    *,
    relu: bool,
    products: int,
    pooled: bool = False,
    places: bool = False,
    moments: bool = False,
) -> conv_tensor.Made:
    """Do what conv_tensor.conv_forward does; maxima are left to it."""

    def by_warps() -> conv_tensor.Made:
        more = {"pooled": pooled, "places": places, "moments": moments}
        return conv_tensor.conv_forward(device, x, w, b, z, shape, relu=relu, products=products, **more)

    if pooled:
        return by_warps()
    pixels = z.N * z.P * z.Q
    tile = tile_of(pixels, z.K, z.C, z.R * z.S, device.sm_count)
    templates = x.dtype, relu, *tile
    images = conv_tensor.in_chunks(device, x), windows(forward_axes(z), tile.depth, tile.pixels)
    filters = _filters(device, w), Boxes((tile.depth, 1, tile.filters), tile.depth * _ITEM)
    maps = prepared(device, _FORWARD, templates, (images, filters))
    if maps is None:
        return by_warps()
    y_last = device.empty((z.N, z.P, z.Q, z.K), x.dtype)
    partial = device.empty((3, -(-pixels // tile.pixels), z.K), _FLOAT) if moments else None
    arguments = *maps, None if b is None else contiguous(b), y_last, shape, partial
    _FORWARD(device, templates, _blocks(tile, pixels, z.K), *arguments, shared=_shared_bytes(tile))
    y = conv_tensor.in_format(device, y_last, channels_last=is_channels_last(x))
    return conv_tensor.Made(y, None, None if partial is None else conv_tensor.Moments(partial, tile.pixels))


def data_gradient(
    device: Device,
    dy: Any,
    w: Any,
    b: Any,
    z: ConvSizes,
    shape: np.void,
    *,
    channels_last: bool,
    products: int,
    plus: Any = None,
    mask: Any = None,
) -> Any:
    """Do what conv_tensor.data_gradient does."""

    def by_warps() -> Any:
        how = {"channels_last": channels_last, "products": products, "plus": plus, "mask": mask}
        return conv_tensor.data_gradient(device, dy, w, b, z, shape, **how)

    tap_steps = _tap_steps(z)
    phases, pixels = prod(z.stride), z.N * -(-z.H // z.stride[0]) * -(-z.W // z.stride[1])  # of the largest phase
    taps = prod(-(-n // step) for n, step in zip(z.window, tap_steps, strict=True))
    tile = tile_of(pixels, z.C, z.K, taps, device.sm_count, phases)
    templates = dy.dtype, *tile
    dy_last, w_last, axes = conv_tensor.in_chunks(device, dy), _filters(device, w), _data_axes(z)
    images = dy_last, windows(axes, tile.depth, tile.pixels)
    filters = w_last, Boxes((_CHANNELS, 1, tile.depth), _CHANNELS * _ITEM)
    maps = prepared(device, _DATA, templates, (images, filters))
    if maps is None:
        return by_warps()
    dx_last = device.empty((z.N, z.H, z.W, z.C), dy.dtype)
    more = None if plus is None else conv_tensor.in_chunks(device, plus), None if mask is None else mask.bits
    bias = None if b is None else contiguous(b)
    arguments = *maps, dy_last, w_last, bias, dx_last, shape, *tap_steps, *(axis.lower for axis in axes), *more
    _DATA(device, templates, (_blocks(tile, pixels, z.C), phases), *arguments, shared=_shared_bytes(tile))
    return conv_tensor.in_format(device, dx_last, channels_last=channels_last)


# The rule's parts ---------------------------------------------------------------------------------------------------


def tile_of(pixels: int, columns: int, channels: int, taps: int, sm_count: int, times: int = 1) -> WgmmaTile:
    """Return the tile that makes `times` results of so many pixels and columns soonest on so many multiprocessors.

    Steps are of 64 channels, of 32 where that leaves fewer zeros to be multiplied.
    """
    steps = taps * -(-channels // 64)

    def time(tile: WgmmaTile) -> float:
        blocks = _blocks(tile, pixels, columns) * times
        together = min(_TOGETHER[tile], -(-blocks // sm_count))
        return -(-blocks // (sm_count * together)) * (together * steps * _CYCLES[tile] + _CYCLES_OF_ENDS)

    tile = min(_CYCLES, key=time)
    whole, half_steps = (-(-channels // depth) * depth for depth in _DEPTHS)
    half = half_steps < whole
    return tile._replace(depth=32, stages=2 * tile.stages) if half else tile


class Corners(NamedTuple):
    """The windows' corners along an axis: from `lower` to the size + `upper` by steps; how far the last tap is."""

    lower: int
    upper: int
    step: int
    reach: int


def forward_axes(z: ConvSizes) -> tuple[Corners, Corners]:
    axes = zip(z.image[2:], z.out[2:], z.window, z.stride, z.pad, z.dilation, strict=True)
    down, across = (_corners(-p, p_count, size, s, (taps - 1) * d) for size, p_count, taps, s, p, d in axes)
    return down, across


def _data_axes(z: ConvSizes) -> tuple[Corners, Corners]:
    """Return the box that all phases of the stride walk: data_axis of kernels/conv_tiled.cuh has the formulas."""
    found = []
    for axis, tap_step in zip(range(2), _tap_steps(z), strict=True):
        size, taps, stride, pad, dilation = (a[axis] for a in (z.image[2:], z.window, z.stride, z.pad, z.dilation))
        ends = list(_ends(size, taps, stride, pad, dilation, tap_step))
        lower, last = min(ends, default=0), max(ends, default=0)
        found.append(_corners(lower, -(-size // stride), z.out[2 + axis], 1, last - lower))
    return found[0], found[1]


def _ends(size: int, taps: int, stride: int, pad: int, dilation: int, tap_step: int) -> Iterator[int]:
    """Yield the inputs that the first output of each phase meets with its first and its last tap."""
    for phase in range(min(stride, size)):
        its = [tap for tap in range(min(tap_step, taps)) if (phase + pad - tap * dilation) % stride == 0]
        for tap in (t for first in its[:1] for t in (first, taps - 1 - (taps - 1 - first) % tap_step)):
            yield (phase + pad - tap * dilation) // stride


def _corners(lower: int, count: int, size: int, step: int, reach: int) -> Corners:
    return Corners(lower, lower + (count - 1) * step + 1 - size, step, reach)


def _fits(axes: tuple[Corners, Corners]) -> bool:
    least, most = _CORNERS
    return all(
        least <= axis.lower <= most and least <= axis.upper <= most and axis.step <= _STEP and axis.reach <= _SHIFT
        for axis in axes
    )


def _tap_steps(z: ConvSizes) -> tuple[int, int]:
    v, h = (step // gcd(step, dilation) for step, dilation in zip(z.stride, z.dilation, strict=True))
    return v, h


def _blocks(tile: WgmmaTile, pixels: int, columns: int) -> int:
    return -(-pixels // tile.pixels) * -(-columns // tile.filters)


def _shared_bytes(tile: WgmmaTile) -> int:
    return tile.stages * (tile.pixels + tile.filters) * tile.depth * _ITEM + _BESIDE


# What is made before a launch ---------------------------------------------------------------------------------------

# Devices that do not compile the kernels or do not encode the maps, and what they said: conv_tensor serves there.
_refused: dict[Device, str] = {}


def refusal(device: Device) -> str | None:
    """Return why a device cannot have these kernels; None where nothing is known against it."""
    return _refused.get(device)


Mapped = tuple[tuple[Any, Form], ...]  # arrays, and the forms of what is read of them


def prepare(device: Device, kernel: Kernel, templates: tuple[Any, ...], mapped: Mapped) -> tuple[Any, ...]:
    """Compile a kernel and return maps; raise GpuLaunchError where the device has no such kernels, or no such maps."""
    kernel.prepare(device, templates)
    return tuple(device.tensor_map(array, form) for array, form in mapped)


def prepared(device: Device, kernel: Kernel, templates: tuple[Any, ...], mapped: Mapped) -> tuple[Any, ...] | None:
    """Do as `prepare`; where it cannot be done, remember it of the device and return None."""
    try:
        return prepare(device, kernel, templates, mapped)
    except GpuLaunchError as error:
        _refused[device] = str(error)
        return None


def windows(axes: tuple[Corners, Corners], channels: int, pixels: int) -> Windows:
    """Return how so many pixels and channels of 16 bits lie under a tap, in lines that are swizzled."""
    down, across = axes
    corners = (across.lower, down.lower), (across.upper, down.upper), (across.step, down.step)
    return Windows(*corners, channels, pixels, channels * _ITEM)


def _filters(device: Device, w: Any) -> Any:
    """Return filters as (K, taps, channels up to whole chunks), without gaps and on 16 bytes: a view if they can be."""
    last = conv_tensor.in_chunks(device, w)
    return last.reshape(last.shape[0], -1, last.shape[-1])
