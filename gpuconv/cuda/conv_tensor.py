"""Launches of convolution and its input gradient on tensor cores: tiles, filters and images as they want them."""

from __future__ import annotations

from math import gcd, prod
from typing import Any, NamedTuple

import numpy as np

from ..shapes import ConvSizes, is_channels_last
from .copy import contiguous, copy_into
from .device import Device
from .kernel import Kernel, cover
from .layout import stored

LEAST_ARCH = 80  # compute capability without the dot
# Where three products of TF32 take less time than one of float32 takes elsewhere; on 8.6 and 8.9, where TF32 is no faster
# than float32, they do not.
FLOAT32_ARCHS = frozenset({80, 90, 100, 103})
_CHUNK = 16  # bytes that are copied at once: 8 numbers, 4 of float32
_THREADS = 128

_FORWARD = Kernel("conv_tensor.cu", "conv_forward_tensor", block=_THREADS, least_arch=LEAST_ARCH)
_DATA = Kernel("conv_tensor.cu", "conv_backward_data_tensor", block=_THREADS, least_arch=LEAST_ARCH)
_PAD = Kernel("conv_tensor.cu", "conv_pad_tensor", least_arch=LEAST_ARCH)

_INT, _FLOAT, _BYTE = np.dtype(np.int32), np.dtype(np.float32), np.dtype(np.uint8)
# Tensor cores cut off what does not fit into a sum: of longer ones that would show in results of 16 bits.
LONGEST_SUM = 2**13
_LARGEST_WINDOW = 15  # rows or columns of taps, a bit each
_LARGEST_PLACE = 2**30  # chunks of all images together

# Terms of a sum of float32, by the products that a term takes.  Three: from these on a block has more to compute than to
# wait for memory, and what three products lose of a term is below what the tolerance rule allows for any data; the
# slices, one after another in a row, are as many as it allows for.  One: what is cut off a sum stays below what one rounded
# factor may be off by.
_TERMS = {1: (1, 2**13), 3: (128, 2**13)}


class TensorTile(NamedTuple):
    """Template arguments: what a block makes, what a warp makes, inner rows for each step, steps under way."""

    pixels: int
    filters: int
    warp_pixels: int
    warp_filters: int
    depth: int
    stages: int


# Depths are those of 16 bits; of float32 as many bytes are half as many rows.
LARGE = TensorTile(128, 128, 64, 64, 32, 4)
TALL = TensorTile(256, 64, 64, 64, 32, 4)
SLIM = TensorTile(128, 64, 64, 32, 32, 4)
SMALL = TensorTile(64, 64, 32, 32, 32, 4)

# What a tile makes in the time that its products take on the tensor cores, by the passes over shared memory that a step
# needs: it waits for the slower of both.
_SPEED = {LARGE: 1.0, TALL: 0.98, SLIM: 0.72, SMALL: 0.54}
_OF_THREE_PRODUCTS = (SLIM, SMALL)  # two sums of each result are kept: larger ones would need too many registers
_ALONE = 0.75  # speed of a block that has a multiprocessor to itself


def takes(z: ConvSizes, inner: int, terms: int, dtype: np.dtype, products: int) -> bool:
    """True if tensor cores, by so many products, can add up so many terms of `inner` channels a group of such images."""
    if products == 0 or not reads(z, inner, dtype) or max(z.window) > _LARGEST_WINDOW:
        return False
    least, most = (1, LONGEST_SUM) if dtype.itemsize == 2 else _TERMS[products]
    return least <= terms <= most


def reads(z: ConvSizes, inner: int, dtype: np.dtype) -> bool:
    """True if `inner` channels a group are whole chunks, or can be made so, and 32 bits count the chunks of the images."""
    chunk = chunk_of(dtype)
    images = z.N * z.H * z.W * -(-z.C // chunk), z.N * z.P * z.Q * -(-z.K // chunk)
    return (inner % chunk == 0 or z.groups == 1) and max(images) < _LARGEST_PLACE


def chunk_of(dtype: np.dtype) -> int:
    """Return the numbers in 16 bytes."""
    return _CHUNK // dtype.itemsize


def tile_of(pixels: int, columns: int, times: int, sm_count: int, dtype: np.dtype, products: int) -> TensorTile:
    """Return the tile that makes `times` results of so many pixels and columns soonest on so many multiprocessors.

    Each multiprocessor makes one block after another, so many that none is left: the last are few where tiles are large.
    """

    def time(tile: TensorTile) -> float:
        blocks = _blocks(tile, pixels, columns) * times
        rounds = -(-blocks // sm_count)
        return rounds * tile.pixels * tile.filters / _SPEED[tile] / (_ALONE if rounds == 1 else 1)

    tile = min(_SPEED if products == 1 else _OF_THREE_PRODUCTS, key=time)
    return tile._replace(depth=tile.depth * 2 // dtype.itemsize)


class Moments(NamedTuple):
    """What a batch norm needs of its input: (3, chunks, C) as batchnorm_forward_moments makes it, of `chunk` values each."""

    partial: Any
    chunk: int


class Made(NamedTuple):
    """What a forward made: y, the places of its maxima and its moments, None where they were not asked for."""

    y: Any
    places: Any
    moments: Moments | None


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
) -> Made:
    """Return y in the memory format of x, and what follows it; shape: ConvShape of z; products: of each of float32.

    pooled: of z with P and Q even: the maxima of 2 x 2 windows side by side.  What follows wants an x channels-last and
    whole chunks of y.
    """
    half = 2 if pooled else 1
    x_last = in_chunks(device, x)
    y_last = device.empty((z.N, z.P // half, z.Q // half, z.K), x.dtype)
    pixels, columns = z.N * z.P * z.Q, z.K // z.groups
    tile = tile_of(pixels, columns, z.groups, device.sm_count, x.dtype, products)
    filters = _filters(device, w)
    blocks = _blocks(tile, pixels, columns) * z.groups
    of_maxima = device.empty(tuple(y_last.shape), _BYTE) if places else None
    partial = device.empty((3, -(-pixels // tile.pixels), z.K), _FLOAT) if moments else None
    arguments = x_last, filters, None if b is None else contiguous(b), y_last, shape, pooled, of_maxima, partial
    shared = _shared_bytes(tile, x.dtype, moments=moments)
    _FORWARD(device, (x.dtype, products, relu, *tile), blocks, *arguments, shared=shared)
    y = in_format(device, y_last, channels_last=is_channels_last(x))
    found = None if partial is None else Moments(partial, tile.pixels // half**2)
    return Made(y, None if of_maxima is None else of_maxima.transpose(0, 3, 1, 2), found)


def adds(channels: int, dtype: np.dtype, mask: Any, *, channels_last: bool) -> bool:
    """True if data_gradient can add to dx, of so many channels a group, what has such a mask, or None: in its chunks."""
    chunk = chunk_of(dtype)
    whole = channels_last and channels % chunk == 0
    return whole and (mask is None or (mask.channels_last and mask.pack == chunk))


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
    """Return dx in a memory format, of dy (N, K, P, Q) in any; shape, products: as in conv_forward.

    b: a number for each channel of dx, added to it, or None

    plus, mask: an array of the shape of dx that is added where the mask, unless it is None, is set; where it `adds`
    """
    dy_last = in_chunks(device, dy)
    dx_last = device.empty((z.N, z.H, z.W, z.C), dy.dtype)
    phases, columns = prod(z.stride), z.C // z.groups
    pixels = z.N * -(-z.H // z.stride[0]) * -(-z.W // z.stride[1])  # of the largest phase
    tile = tile_of(pixels, columns, phases * z.groups, device.sm_count, dy.dtype, products)
    v, h = (step // gcd(step, dilation) for step, dilation in zip(z.stride, z.dilation, strict=True))
    filters = _filters(device, w, downwards=True) if w.dtype.itemsize == 2 else _turned(device, w, z)
    blocks = _blocks(tile, pixels, columns) * z.groups
    more = None if plus is None else in_chunks(device, plus), None if mask is None else mask.bits
    arguments = dy_last, filters, b, dx_last, shape, v, h, *more
    _DATA(device, (dy.dtype, products, *tile), (blocks, phases), *arguments, shared=_shared_bytes(tile, dy.dtype))
    return in_format(device, dx_last, channels_last=channels_last)


def _blocks(tile: TensorTile, pixels: int, columns: int) -> int:
    return -(-pixels // tile.pixels) * -(-columns // tile.filters)


def _shared_bytes(tile: TensorTile, dtype: np.dtype, *, moments: bool = False) -> int:
    stages = tile.stages * (tile.pixels + tile.filters) * tile.depth * dtype.itemsize
    outputs = tile.pixels * (tile.filters * dtype.itemsize + _CHUNK + _INT.itemsize)
    return max(stages, outputs + (_THREADS * chunk_of(dtype) * _FLOAT.itemsize if moments else 0))


def _filters(device: Device, w: Any, *, downwards: bool = False) -> Any:
    """Return filters as (K, R, S, channels up to whole chunks), on 16 bytes: a view if it can be.

    downwards: with whole chunks of filters, too, of zeros where there is none
    """
    (K, C, R, S), chunk = w.shape, chunk_of(w.dtype)
    rows = -(-K // chunk) * chunk if downwards else K
    last = w.transpose(0, 2, 3, 1)
    if (rows, C % chunk) == (K, 0) and last.flags.c_contiguous and device.is_aligned(last, _CHUNK):
        return last
    make = device.empty if rows == K else device.zeros
    return _pad(device, w, make((rows, R, S, -(-C // chunk) * chunk), w.dtype))


def _turned(device: Device, w: Any, z: ConvSizes) -> Any:
    """Return filters as (groups, C / groups, R, S, filters of a group up to whole chunks)."""
    filters, channels = z.K // z.groups, z.C // z.groups
    chunks = -(-filters // chunk_of(w.dtype))
    turned = device.empty((z.groups, channels, *z.window, chunks * chunk_of(w.dtype)), w.dtype)
    how = contiguous(w), turned, z.groups, filters, channels * prod(z.window)
    _PAD(device, (w.dtype, False), cover(device, turned.size // chunk_of(w.dtype)), *how)
    return turned


def _pad(device: Device, images: Any, padded: Any) -> Any:
    """Fill images (N, H, W, channels up to whole chunks) from (N, C, H, W) in any memory format, and return them."""
    (N, C, H, W), channels_last = images.shape, is_channels_last(images)
    how = stored(images, channels_last=channels_last), padded, N, C, H * W
    _PAD(device, (images.dtype, channels_last), cover(device, padded.size // chunk_of(images.dtype)), *how)
    return padded


def in_chunks(device: Device, images: Any) -> Any:
    """Return images as (N, H, W, channels up to whole chunks), without gaps and on 16 bytes: a view if it can be."""
    (N, C, H, W), chunk = images.shape, chunk_of(images.dtype)
    if C % chunk:
        return _pad(device, images, device.empty((N, H, W, -(-C // chunk) * chunk), images.dtype))
    last = stored(images, channels_last=True)
    if device.is_aligned(last, _CHUNK):
        return last
    copy = device.empty(tuple(last.shape), last.dtype)
    copy_into(copy, last)
    return copy


def in_format(device: Device, last: Any, *, channels_last: bool) -> Any:
    """Return images (N, H, W, C) as (N, C, H, W) in a memory format: a view, or a copy."""
    images = last.transpose(0, 3, 1, 2)
    if channels_last:
        return images
    out = device.empty(tuple(images.shape), images.dtype)
    copy_into(out, images)
    return out
