"""Launches of convolution, of images and of volumes: which kernel it and each of its gradients runs on."""

from __future__ import annotations

import dataclasses
import functools
from math import gcd, prod
from typing import Any

import numpy as np

from ..shapes import ConvSizes, VolumeConvSizes, is_channels_last
from . import conv_tensor, conv_weight_tensor, conv_weight_tensor_float, conv_weight_wgmma, conv_wgmma
from .arithmetic import add
from .batchnorm_fused import joined
from .conv_slices import slices_of, weight_slices
from .conv_tiles import Tile, holds_large, packs, tile_of, weight_tile_of
from .conv_volume import VOLUME_KERNELS
from .copy import contiguous
from .device import Device, device_of
from .kernel import Kernel, cover
from .layout import elements, empty_images, in_own_format, index_type, stored

_IMAGE_KERNELS = {
    "forward": {
        "direct": Kernel("conv.cu", "conv_forward_direct"),
        "tiled": Kernel("conv_tiled.cu", "conv_forward_tiled"),
        "few": Kernel("conv_tiled.cu", "conv_forward_few"),
    },
    "data": {
        "direct": Kernel("conv.cu", "conv_backward_data_direct"),
        "tiled": Kernel("conv_tiled.cu", "conv_backward_data_tiled"),
    },
    "weight": {
        "direct": Kernel("conv.cu", "conv_backward_weight_direct"),
        "tiled": Kernel("conv_tiled.cu", "conv_backward_weight_tiled"),
    },
}
_SUM = Kernel("conv.cu", "conv_backward_sum")
_BIAS_PLANAR = Kernel("conv.cu", "conv_backward_bias_planar")
_BIAS_LAST = Kernel("conv.cu", "conv_backward_bias_last")
_PACK = Kernel("conv.cu", "conv_pack_filters")

_INT = np.dtype(np.int32)

Sizes = ConvSizes | VolumeConvSizes

# Below these, most of a tile would be empty.
_LEAST_INNER = 8  # channels of a group that are added up
_LEAST_OUTER = 16  # channels of a group that are made
_LARGEST_PLACE = 2**30  # places in one padded image, which tiled kernels count in 32 bits
_MOST_PHASES = 2**16 - 1  # of a stride, along an axis of the grid
_TABLE = 512  # rows of the inner dimension that conv_forward_few keeps in its table
_BIAS_LINES = 8  # pixels side by side in a block of conv_backward_bias_last
_PACK_BLOCKS = 256  # each leaves one flag, which every block of conv_backward_data_tiled reads


# The rule: which kernel serves which sizes --------------------------------------------------------------------------


def products_of(dtype: np.dtype, arch: int, precision: str | None) -> int:
    """Return how many products a GPU's tensor cores make of one of a dtype: 0 where they make none.

    float32 by three products is float32; by one it is TF32, which precision allows.
    """
    if arch < conv_tensor.LEAST_ARCH or dtype == np.float64:
        return 0
    if dtype.itemsize == 2 or precision is not None:
        return 1
    return 3 if arch in conv_tensor.FLOAT32_ARCHS else 0


def forward_method(z: Sizes, dtype: np.dtype, arch: int, precision: str | None = None) -> str:
    """Return "tensor", "tiled", "few" or "direct", for images of a dtype on a GPU of a compute capability."""
    inner, outer = z.C // z.groups, z.K // z.groups
    if not _countable(z) or outer < _LEAST_OUTER:
        return "direct"
    products = products_of(dtype, arch, precision)
    if isinstance(z, ConvSizes) and conv_tensor.takes(z, inner, inner * prod(z.window), dtype, products):
        return "tensor"
    if inner >= _LEAST_INNER:
        return "tiled"
    return "few" if inner * prod(z.window) <= _TABLE else "direct"


def data_method(z: Sizes, dtype: np.dtype, arch: int, precision: str | None = None) -> str:
    """Return "tensor", "tiled" or "direct"."""
    inner, outer = z.K // z.groups, z.C // z.groups
    if not _countable(z) or max(_phases(z)) > _MOST_PHASES or outer < _LEAST_OUTER:
        return "direct"
    products, terms = products_of(dtype, arch, precision), inner * prod(z.window)
    if isinstance(z, ConvSizes) and conv_tensor.takes(z, inner, terms, dtype, products):
        return "tensor"
    return "tiled" if inner >= _LEAST_INNER else "direct"


def weight_method(z: Sizes, dtype: np.dtype, arch: int, precision: str | None = None) -> str:
    """Return "tensor", "tiled" or "direct"."""
    filters, columns = z.K // z.groups, z.C // z.groups * prod(z.window)
    if not _countable(z) or min(filters, columns) < _LEAST_OUTER:
        return "direct"
    if isinstance(z, ConvSizes) and dtype == np.float32:
        takes = conv_weight_tensor_float.takes(z, products_of(dtype, arch, precision))
    else:
        takes = isinstance(z, ConvSizes) and conv_weight_tensor.serves(z, dtype, arch)
    return "tensor" if takes else "tiled"


def _on_tensor_cores(z: ConvSizes, device: Device, dtype: np.dtype, *, data: bool) -> Any:
    """Return the module whose launchers make y, or dx with data: by warpgroups where a GPU has them, else by warps."""
    return conv_wgmma if conv_wgmma.takes(z, device, dtype, data=data) else conv_tensor


def _phases(z: Sizes) -> tuple[int, ...]:
    """Return the phases of the stride in rows and columns, and in depth: each is an axis of the grid of dx."""
    *deep, down, across = z.stride
    return down * across, *deep


def _countable(z: Sizes) -> bool:
    """True if the places of one padded image, and of one output image, can be counted in 32 bits with room to spare."""
    padded, weights = z.C, z.K * z.C // z.groups * prod(z.window)
    for reach in _reach(z):
        padded *= reach
    return max(padded, prod(z.out[1:]), prod(z.image[1:]), weights) < _LARGEST_PLACE


# Forward ------------------------------------------------------------------------------------------------------------


def conv_forward(x: Any, w: Any, b: Any, sizes: Sizes) -> Any:
    return correlate(x, w, b, sizes, (False,) if isinstance(sizes, ConvSizes) else ())


def convolve(x: Any, w: Any, b: Any, sizes: Sizes, *, relu: bool, precision: str | None = None) -> Any:
    """Return conv_forward(x, w, b), or with relu, of images, its positive part: in the same pass over memory.

    precision "tf32": factors may be rounded to TF32.
    """
    return correlate(x, w, b, sizes, (relu,) if isinstance(sizes, ConvSizes) else (), precision)


def forward_unit(
    x: Any, w: Any, b: Any, z: ConvSizes, *, precision: str | None, pooled: bool, training: bool, moments: bool
) -> conv_tensor.Made | None:
    """Return y and what follows it, made in the same pass; None where no kernel makes it.

    pooled: maxima of 2 x 2 windows side by side.   training: with the places of the maxima.   moments: those of y
    """
    device = device_of(x)
    if pooled:
        z = dataclasses.replace(z, P=z.P // 2 * 2, Q=z.Q // 2 * 2)
    whole = z.K // z.groups % conv_tensor.chunk_of(x.dtype) == 0 and min(z.N, z.P, z.Q) > 0
    if not (whole and is_channels_last(x)) or forward_method(z, x.dtype, device.arch, precision) != "tensor":
        return None
    products = products_of(x.dtype, device.arch, precision)
    behind = {"pooled": pooled, "places": pooled and training, "moments": moments}
    make = _on_tensor_cores(z, device, x.dtype, data=False).conv_forward
    made: conv_tensor.Made = make(device, x, w, b, z, _shape(z), relu=False, products=products, **behind)
    return made


def correlate(x: Any, w: Any, b: Any, z: Sizes, epilogue: tuple[bool, ...], precision: str | None = None) -> Any:
    """Return y; epilogue: what the kernels of images are told besides: whether ReLU follows."""
    device = device_of(x)
    method = forward_method(z, x.dtype, device.arch, precision)
    if method == "tensor" and isinstance(z, ConvSizes):
        products = products_of(x.dtype, device.arch, precision)
        make = _on_tensor_cores(z, device, x.dtype, data=False).conv_forward
        return make(device, x, w, b, z, _shape(z), relu=epilogue[0], products=products).y
    x, channels_last = in_own_format(x)
    y, y_stored = empty_images(device, z.out, x.dtype, channels_last=channels_last)
    w, b = contiguous(w), None if b is None else contiguous(b)
    kernel, templates = _kernels(z)["forward"][method], (x.dtype, channels_last, *epilogue)
    if method == "direct":
        kernel(device, (*templates, _index(z)), cover(device, elements(z.out)), x, w, b, y_stored, _shape(z))
        return y
    pixels, columns, inner = z.N * prod(z.out[2:]), z.K // z.groups, z.C // z.groups
    few = method == "few"
    terms = inner * prod(z.window) if few else inner
    large = not few and holds_large(device, x, z, inner, channels_last=channels_last)
    tile = tile_of(device, x.dtype, pixels=pixels, columns=columns, inner=terms, products=z.groups, large=large)
    blocks = -(-pixels // tile.pixels) * -(-columns // tile.filters) * z.groups
    packed, _ = _packed(device, w, z, tile, inner, columns, data=False, few=few)
    if not few:
        templates = (
            x.dtype,
            channels_last,
            packs(device, x, inner, tile.depth, channels_last=channels_last),
            *epilogue,
        )
    kernel(device, (*templates, *tile), blocks, x, packed, b, y_stored, _shape(z))
    return y


def _packed(
    device: Device, w: Any, z: Sizes, tile: Tile, inner: int, outer: int, *, data: bool, few: bool
) -> tuple[Any, Any]:
    """Return w as rows of the inner dimension, padded to whole tiles, and flags for what is infinite or NaN in it."""
    taps, depth = prod(z.window), inner if few else -(-inner // tile.depth) * tile.depth
    rows = -(-taps * depth // tile.depth) * tile.depth
    width = -(-outer // tile.filters) * tile.filters
    packed = device.empty((z.groups, rows, width), _sum_type(w.dtype))
    blocks = min(cover(device, packed.size), _PACK_BLOCKS)
    special = device.empty((blocks,), _INT) if data else None
    filters = z.groups, z.K // z.groups, z.C // z.groups, taps
    _PACK(device, (w.dtype, data), blocks, w, packed, special, *filters, depth, rows, width)
    return packed, special


# Backward -----------------------------------------------------------------------------------------------------------


def conv_backward(
    dy: Any,
    x: Any,
    w: Any,
    sizes: Sizes,
    *,
    input_grad: bool,
    weight_grad: bool = True,
    bias_grad: bool,
) -> tuple[Any, Any, Any]:
    wanted = {"input_grad": input_grad, "weight_grad": weight_grad, "bias_grad": bias_grad}
    return gradients(dy, x, w, sizes, **wanted, precision=None)


def gradients(
    dy: Any,
    x: Any,
    w: Any,
    sizes: Sizes,
    *,
    input_grad: bool,
    weight_grad: bool,
    bias_grad: bool,
    precision: str | None,
) -> tuple[Any, Any, Any]:
    """Return dx, dw and db, as far as they are wanted; precision: as in convolve."""
    device = device_of(x)
    dw = device.empty(tuple(w.shape), w.dtype) if weight_grad else None
    db = device.empty((sizes.K,), w.dtype) if bias_grad else None
    return conv_backward_into(dy, x, w, sizes, dw, db, input_grad=input_grad, precision=precision), dw, db


def conv_backward_into(
    dy: Any,
    x: Any,
    w: Any,
    sizes: Sizes,
    dw: Any,
    db: Any,
    *,
    input_grad: bool,
    precision: str | None = None,
    plus: Any = None,
    mask: Any = None,
) -> Any:
    """Return dx, and fill dw and db, C-contiguous or None, as far as they are given.

    plus: an array that is added to dx, of images, where a mask of batchnorm_fused, unless it is None, is set
    """
    device = device_of(x)
    channels_last = is_channels_last(x)
    turned = channels_last or (dw is not None and input_grad and _both_turn(sizes, x.dtype, device.arch, precision))
    dy = stored(dy, channels_last=turned)
    if dw is not None:
        weight_gradient(device, images(dy, channels_last=turned), x, dw, sizes, precision)
    if db is not None:
        bias_gradient(device, dy, db, sizes.out, channels_last=turned)
    if not input_grad:
        return None
    of_images = images(dy, channels_last=turned)
    if plus is None:
        return data_gradient(device, of_images, w, sizes, precision, channels_last=channels_last)
    tensor = data_method(sizes, x.dtype, device.arch, precision) == "tensor"
    if tensor and conv_tensor.adds(sizes.C // sizes.groups, x.dtype, mask, channels_last=channels_last):
        more = {"plus": plus, "mask": mask}
        return data_gradient(device, of_images, w, sizes, precision, channels_last=channels_last, **more)
    dx = data_gradient(device, of_images, w, sizes, precision, channels_last=channels_last)
    return add(dx, plus) if mask is None else joined(plus, mask, dx)


def _both_turn(z: Sizes, dtype: np.dtype, arch: int, precision: str | None) -> bool:
    """True if two kernels want dy channels-last, whatever the format of x: then it is turned once for both."""
    methods = (method(z, dtype, arch, precision) for method in (weight_method, data_method))
    return all(method == "tensor" for method in methods)


def data_gradient(
    device: Device, dy: Any, w: Any, z: Sizes, precision: str | None, *, channels_last: bool, b: Any = None, **more: Any
) -> Any:
    """Return dx in a memory format.   dy: images in any   b: is added to its channels   more: what conv_tensor adds, where it `adds`"""
    method = data_method(z, dy.dtype, device.arch, precision)
    if method == "tensor" and isinstance(z, ConvSizes):
        products = products_of(dy.dtype, device.arch, precision)
        how = {"channels_last": channels_last, "products": products, **more}
        make = _on_tensor_cores(z, device, dy.dtype, data=True).data_gradient
        return make(device, dy, w, b, z, _shape(z), **how)
    dy, w = stored(dy, channels_last=channels_last), contiguous(w)
    dx, dx_stored = empty_images(device, z.image, dy.dtype, channels_last=channels_last)
    kernel = _kernels(z)["data"][method]
    if method == "direct":
        templates = (dy.dtype, channels_last, _index(z))
        kernel(device, templates, cover(device, elements(z.image)), dy, w, b, dx_stored, _shape(z))
        return dx
    columns, inner, phases = z.C // z.groups, z.K // z.groups, _phases(z)
    pixels = z.N * prod(-(-n // step) for n, step in zip(z.image[2:], z.stride, strict=True))  # of the largest phase
    large = holds_large(device, dy, z, inner, channels_last=channels_last)
    sizes = {"pixels": pixels, "columns": columns, "inner": inner, "products": prod(phases) * z.groups}
    tile = tile_of(device, dy.dtype, **sizes, large=large)
    blocks = -(-pixels // tile.pixels) * -(-columns // tile.filters) * z.groups
    packed, special = _packed(device, w, z, tile, inner, columns, data=True, few=False)
    tap_steps = (step // gcd(step, dilation) for step, dilation in zip(z.stride, z.dilation, strict=True))
    arguments = (dy, packed, b, dx_stored, _shape(z), w, special, special.size, *tap_steps)
    wide = packs(device, dy, inner, tile.depth, channels_last=channels_last)
    kernel(device, (dy.dtype, channels_last, wide, *tile), (blocks, *phases), *arguments)
    return dx


def weight_gradient(device: Device, dy: Any, x: Any, dw: Any, z: Sizes, precision: str | None) -> None:
    """Fill dw.   dy, x: images in any memory format"""
    pixels, size = z.N * prod(z.out[2:]), dw.size
    filters, channels, taps = z.K // z.groups, z.C // z.groups, prod(z.window)
    method = weight_method(z, x.dtype, device.arch, precision)
    if method == "tensor" and isinstance(z, ConvSizes):
        dy, x = (conv_tensor.in_chunks(device, a) for a in (dy, x))
        if x.dtype == np.float32:
            products = products_of(x.dtype, device.arch, precision)
            partial = conv_weight_tensor_float.partial_sums(device, dy, x, z, _shape(z), products)
        else:
            of_chunks = conv_weight_tensor.padded(z)
            warpgroups = conv_weight_wgmma.takes(of_chunks, device, x.dtype)
            make = conv_weight_wgmma if warpgroups else conv_weight_tensor
            partial = make.partial_sums(device, dy, x, of_chunks, _shape(of_chunks))
        _add(device, partial, dw, taps=taps, channels=channels, stored=partial.shape[-1])
        return
    x, channels_last = in_own_format(x)
    dy = stored(dy, channels_last=channels_last)
    kernel = _kernels(z)["weight"][method]
    if method == "direct":
        slices, length = slices_of(pixels, size)
        partial = device.empty((slices, size), _sum_type(x.dtype))
        kinds = x.dtype, channels_last, _index(z)
        kernel(device, kinds, cover(device, slices * size), dy, x, partial, _shape(z), slices, length)
        _add(device, partial, dw)
        return
    tile = weight_tile_of(filters, channels * taps, x.dtype, isinstance(z, VolumeConvSizes))
    tiles = -(-filters // tile.filters) * -(-channels * taps // tile.columns) * z.groups
    slices, length = weight_slices(pixels, tiles, tile.depth)
    partial = device.empty((slices, size), _sum_type(x.dtype))
    wide_dy = packs(device, dy, filters, 4, channels_last=channels_last)
    wide_x = wide_dy and packs(device, x, channels, 4, channels_last=channels_last)
    arguments = (dy, x, partial, _shape(z), length)
    kernel(device, (x.dtype, channels_last, wide_dy, wide_x, *tile), (tiles, slices), *arguments)
    _add(device, partial, dw, taps=taps, channels=channels, stored=channels)


def bias_gradient(device: Device, dy: Any, db: Any, shape: tuple[int, ...], *, channels_last: bool) -> None:
    """Fill db.   dy: stored images, of a shape (N, K, ...)"""
    N, K, *size = shape
    pixels = prod(size)
    slices, length = slices_of(N * pixels, 32 * K, _BIAS_LINES if channels_last else _BIAS_PLANAR.block[0])
    partial = device.empty((slices, K), _sum_type(dy.dtype))
    if channels_last:
        _BIAS_LAST(device, (dy.dtype,), slices * -(-K // 32), dy, partial, N * pixels, K, length)
    else:
        _BIAS_PLANAR(device, (dy.dtype,), slices * K, dy, partial, N, K, pixels, length)
    _add(device, partial, db)


def _add(device: Device, partial: Any, total: Any, *, taps: int = 1, channels: int = 1, stored: int = 1) -> None:
    """Fill an array (K, channels, taps) with the sum over the slices of partial sums, (slices, K, taps, stored).

    partial: of its filters the first K are added, and of `stored` channels the first ones
    """
    slices, size = partial.shape[0], total.size
    _SUM(
        device,
        (total.dtype,),
        cover(device, size),
        partial,
        total,
        slices,
        size,
        prod(partial.shape[1:]),
        taps,
        channels,
        stored,
    )


def images(stored: Any, *, channels_last: bool) -> Any:
    """Return images (N, C, H, W) or volumes in a memory format from their C-contiguous form."""
    return stored.transpose(0, stored.ndim - 1, *range(1, stored.ndim - 1)) if channels_last else stored


def _sum_type(dtype: np.dtype) -> np.dtype:
    """Return Accumulator<T>::type of kernels/common.cuh."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _kernels(z: Sizes) -> dict[str, dict[str, Kernel]]:
    return VOLUME_KERNELS if isinstance(z, VolumeConvSizes) else _IMAGE_KERNELS


def _reach(z: Sizes) -> list[int]:
    """Return how far the taps reach along each axis, with room to spare."""
    return [size + dilation * taps for size, dilation, taps in zip(z.padded, z.dilation, z.window, strict=True)]


def _index(z: Sizes) -> np.dtype:
    """Return the type that counts every array's elements, and how far the taps reach."""
    weights = z.K * (z.C // z.groups) * prod(z.window)
    return index_type(elements(z.image), elements(z.out), weights, *_reach(z))


@functools.lru_cache(maxsize=1024)
def _shape(z: Sizes) -> np.void:
    """Return ConvShape of kernels/conv.cuh, or VolumeConvShape of conv_volume.cuh."""
    fields: dict[str, int] = {}
    for field in dataclasses.fields(z):
        value = getattr(z, field.name)
        if isinstance(value, int):
            fields[field.name] = value
        else:  # along each axis
            fields |= {f"{field.name}_{axis}": n for axis, n in zip("dvh"[-len(value) :], value, strict=True)}
    return _kernels(z)["forward"]["direct"].pack("z", fields)
