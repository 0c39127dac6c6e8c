"""Hopper's instructions in small kernels (kernels/), run on any device beside what must come out.

TMA's boxes and im2col walks, mbarriers, named barriers, wgmma operands in every form, whole kernels.  A device is an
EmulatedDevice, or what looks like one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..examples import bfloat16, from_bfloat16, text
from ..fragments import offset_in
from .tensor_map import TensorMap

I32 = np.int32


def compiled(device, file, expression, edits=()):
    return device.compile(text(file, edits), file, (expression,), ())[expression]


def random_bits(*shape):
    return np.random.default_rng(shape).integers(1, 60000, shape).astype(np.uint16)


def normal(*shape, seed=0):
    return np.random.default_rng((*shape, seed)).standard_normal(shape).astype(np.float32)


# The PTX ISA's tables: the 16-byte unit at position j of line i of a pattern is unit TABLE[i][j] of the tile's line.
SWIZZLE_TABLES = {
    32: ["01", "10"],
    64: ["0123", "1032", "2301", "3210"],
    128: ["01234567", "10325476", "23016745", "32107654", "45670123", "54761032", "67452301", "76543210"],
}


def in_shared_memory(tile, swizzle):
    """Return the bytes of a tile of rows as they lie in shared memory; the tables repeat per 128-byte line."""
    if not swizzle:
        return tile.ravel()
    units, table = tile.reshape(-1, 16), SWIZZLE_TABLES[swizzle]
    width = len(table[0])
    out = np.empty_like(units)
    for i, unit in enumerate(units):
        line, at = divmod(i, 8)
        out[line * 8 + at // width * width + table[line % len(table)].index(str(at % width))] = unit
    return out.ravel()


def box_of(x, box, at):
    """Return a box of x, zeros outside; box and corner are given innermost first."""
    out = np.zeros(box[::-1], x.dtype)
    for index in itertools.product(*map(range, out.shape)):
        element = [corner + i for corner, i in zip(at[::-1], index, strict=True)]
        if all(0 <= p < size for p, size in zip(element, x.shape, strict=True)):
            out[index] = x[tuple(element)]
    return out


def pixels_of(x, m, at, offsets):
    """Return what im2col loads: walk the bounding boxes of all images in order, from pixel `at` on."""
    sizes = x.shape[-2:0:-1]  # w, h, d
    corners = zip(m.lower, m.upper, sizes, m.steps[1:-1], strict=True)
    axes = [range(low, size + up, step) for low, up, size, step in corners]
    walk = [p[::-1] for p in itertools.product(range(x.shape[0] + m.pixels), *axes[::-1])]  # (w, h, d, n)
    start = walk.index(tuple(at[1:]))
    out = np.zeros((m.pixels, m.channels), x.dtype)
    for row, pixel in zip(out, walk[start : start + m.pixels], strict=True):
        element = [*(p + o for p, o in zip(pixel, offsets, strict=False)), pixel[-1]]
        if all(0 <= p < size for p, size in zip(element, (*sizes, x.shape[0]), strict=True)):
            values = x[tuple(element[::-1])][at[0] : at[0] + m.channels]
            row[: len(values)] = values
    return out


def load(device, m, at, offsets=(), *, poll=False, edits=()):
    """Return the shared memory that one load leaves."""
    rank, im2col = len(m.sizes), str(not m.box).lower()
    function = compiled(device, "hopper_features.cu", f"tensor_load<{rank}, {im2col}, {str(poll).lower()}>", edits)
    corner = np.zeros((), np.dtype([("c", "i4", 5), ("offsets", "i4", 3)]))
    corner["c"][: len(at)], corner["offsets"][: len(offsets)] = at, offsets
    out = device.empty(m.bytes // 4, np.uint32)
    device.launch(function, (1,), (128,), (m, out, corner, I32(m.bytes)), m.bytes + 8)
    return device.asnumpy(out).view(np.uint8)


def boxes(device, swizzle, at, *, poll=False):
    """Return a box of a matrix in shared memory, and where the tables put it."""
    x = random_bits(19, 72)
    box = (swizzle // 2 or 24, 16)
    m = TensorMap.tiled(device.asarray(x), box, swizzle=swizzle)
    want = in_shared_memory(box_of(x, box, at).view(np.uint8).reshape(16, -1), swizzle)
    return load(device, m, at, poll=poll), want


def box_of_rank(device, shape, box, at):
    x = random_bits(*shape)
    m = TensorMap.tiled(device.asarray(x), box)
    return load(device, m, at), box_of(x, box, at).view(np.uint8).ravel()


def im2col(device, shape, options, at, tap):
    """Return the pixels of a filter's tap in shared memory, and those of a walk over the bounding box."""
    x = random_bits(*shape)
    m = TensorMap.im2col(device.asarray(x), **options)
    want = pixels_of(x, m, at, tap).view(np.uint8).reshape(m.pixels, -1)
    return load(device, m, at, tap), in_shared_memory(want, m.swizzle)


def clipped_store(device):
    """Return an array into whose corner a box was stored, as far as it fits."""
    rows = random_bits(8, 64)
    y = device.asarray(np.full((13, 40), 7, np.uint16))
    m = TensorMap.tiled(y, (64, 8), swizzle=128, writable=True)
    raw = in_shared_memory(rows.view(np.uint8).reshape(8, -1), 128).view(np.uint32)
    function = compiled(device, "hopper_features.cu", "tensor_store")
    device.launch(function, (1,), (128,), (m, device.asarray(raw), I32(8), I32(9), I32(1024)), 1024)
    want = np.full((13, 40), 7, np.uint16)
    want[9:, 8:] = rows[:4, :32]
    return device.asnumpy(y), want


CORNERS = {
    "at_the_origin": (0, 0),
    "inside": (8, 3),
    "before_the_array": (-8, -2),
    "over_the_end": (64, 17),
    "outside": (200, 0),
}


RANKS = {
    1: ((160,), (64,), (120,)),
    3: ((5, 6, 32), (16, 4, 3), (24, -1, 3)),
    4: ((3, 4, 5, 16), (8, 3, 2, 2), (8, 3, -1, 2)),
    5: ((3, 2, 3, 4, 16), (16, 2, 2, 2, 2), (0, 3, 2, 1, -1)),
}


# Name -> (shape, map, coordinates, filter tap).
IM2COL = {
    "rank_3": ((2, 9, 16), {"lower": (-1,), "upper": (-1,), "channels": 8, "pixels": 12}, (8, 7, 0), (2,)),
    "over_two_images": (
        (3, 7, 9, 72),
        {"lower": (-1, -1), "upper": (-1, -1), "channels": 64, "pixels": 40, "swizzle": 128},
        (64, 6, 3, 1),
        (2, 0),
    ),
    "stride_2": (
        (3, 8, 6, 64),
        {"lower": (-1, -1), "upper": (-1, -1), "channels": 32, "pixels": 30, "strides": (2, 2), "swizzle": 64},
        (32, 1, 3, 1),
        (1, 2),
    ),
    "no_padding": (
        (2, 14, 9, 64),
        {"lower": (0, 0), "upper": (-2, -2), "channels": 8, "pixels": 64},
        (0, 2, 4, 0),
        (2, 2),
    ),
    "rank_5": (
        (2, 4, 5, 6, 16),
        {"lower": (-1, -1, -1), "upper": (-1, -1, -1), "channels": 16, "pixels": 33, "swizzle": 32},
        (0, 2, 3, 1, 0),
        (1, 2, 0),
    ),
    "strides_and_corners_differ": (
        (2, 5, 7, 8),
        {"lower": (-2, 0), "upper": (0, -4), "channels": 8, "pixels": 20, "strides": (2, 1)},
        (0, 0, 0, 1),
        (4, 2),
    ),
}


def bulk_copies(device, n=256, edits=()):
    x, y = device.asarray(np.arange(n, dtype=np.uint32)), device.empty(256, np.uint32)
    device.launch(compiled(device, "hopper_features.cu", "bulk_copies", edits), (1,), (64,), (x, y, I32(1024)))
    return device.asnumpy(y)


def stored_operands(device, edits=()):
    a, b = bfloat16(normal(64, 16)), bfloat16(normal(8, 16))
    d = device.empty((64, 8), np.float32)
    function = compiled(device, "hopper_features.cu", "stored_operands", edits)
    device.launch(function, (1,), (128,), (device.asarray(a), device.asarray(b), d))
    return device.asnumpy(d), from_bfloat16(a) @ from_bfloat16(b).T


def named_barriers(device, edits=()):
    x, y = normal(640), device.empty(640, np.float32)
    function = compiled(device, "hopper_features.cu", "named_barriers", edits)
    device.launch(function, (1,), (128,), (device.asarray(x), y, I32(10)))
    return device.asnumpy(y), x.reshape(-1, 2)[:, ::-1].ravel()


def mbarrier_for_stores(device, edits=()):
    x, y = normal(32), device.empty(64, np.float32)
    function = compiled(device, "hopper_features.cu", "mbarrier_for_stores", edits)
    device.launch(function, (1,), (96,), (device.asarray(x), y))
    return device.asnumpy(y), np.tile(x[::-1], 2)


def _stored(values, kind):
    """Return values as stored, and as the tensor cores see them."""
    if kind == "BF16":
        return bfloat16(values), from_bfloat16(bfloat16(values))
    if kind == "F16":
        return values.astype(np.float16), values.astype(np.float16).astype(np.float32)
    return values, (values.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


# CuTe's ALayout_64x8 and ALayout_64x16: shapes and strides of (thread, value) -> index in a column-major 64 x k matrix.
_A_LAYOUTS = {
    4: (((4, 8, 4), (64, 1, 16)), ((2, 2), (8, 256))),
    2: (((4, 8, 4), (128, 1, 16)), ((2, 2, 2), (64, 8, 512))),
}


def _a_registers(a):
    """Return A as the registers of the 128 threads, for each instruction along k."""
    of_thread, of_value = _A_LAYOUTS[a.itemsize]
    depth, count = 32 // a.itemsize, 16 // a.itemsize
    out = np.empty((a.shape[1] // depth, 128, count), a.dtype)
    for thread, value in itertools.product(range(128), range(count)):
        index = offset_in(thread, *of_thread) + offset_in(value, *of_value)
        out[:, thread, value] = a[index % 64, index // 64 :: depth]
    return out.view(np.uint32)


def tile(device, kind="BF16", n=64, k=64, swizzle=128, a_by_mn=False, b_by_mn=False, registers=False, negate=False):
    """Return one wgmma tile, and the product it must be."""
    size = 4 if kind == "TF32" else 2
    row = (swizzle or 16) // size
    (a, seen_a), (b, seen_b), c = _stored(normal(64, k), kind), _stored(normal(n, k, seed=1), kind), normal(64, n)
    dtype = {"BF16": "bfloat16", "F16": "float16", "TF32": "float32"}[kind]
    maps = []
    for matrix, by_mn in ((a, a_by_mn), (b, b_by_mn)):
        stored = device.asarray(np.ascontiguousarray(matrix.T if by_mn else matrix))
        maps.append(TensorMap.tiled(stored, (row, stored.shape[0]), dtype=dtype, swizzle=swizzle))
    flags = ", ".join(str(flag).lower() for flag in (a_by_mn, b_by_mn, registers, negate))
    function = compiled(device, "wgmma_tile.cu", f"wgmma_tile<{kind}, {n}, {k}, {swizzle}, {flags}>")
    d = device.empty((64, n), np.float32)
    args = (*maps, device.asarray(_a_registers(a)), device.asarray(c), d)
    device.launch(function, (1,), (128,), args, (64 + n) * k * size + 64)
    return device.asnumpy(d), c + (-1 if negate else 1) * (seen_a.astype(float) @ seen_b.T.astype(float))


FEW_TILES = {
    "bfloat16": {},
    "float16_by_mn_swizzle_64": {"kind": "F16", "a_by_mn": True, "b_by_mn": True, "swizzle": 64},
    "tf32_swizzle_32": {"kind": "TF32", "swizzle": 32},
    "no_swizzle": {"swizzle": 0, "b_by_mn": True},
    "a_in_registers": {"registers": True, "negate": True},
    "tf32_a_in_registers": {"kind": "TF32", "registers": True, "n": 8},
    "widest": {"n": 256},
}


ALL_TILES = [
    {"a_by_mn": a, "b_by_mn": b, "swizzle": swizzle, "kind": kind}
    for swizzle in (0, 32, 64, 128)
    for a, b, kind in [*itertools.product((False, True), (False, True), ("BF16", "F16")), (False, False, "TF32")]
]
ALL_TILES += [
    {"n": n, "kind": kind, "b_by_mn": by_mn, "swizzle": 128 if n % 64 == 0 or not by_mn else 32 if n % 16 == 0 else 0}
    for n in (8, 16, 32, 96, 128, 192, 256)
    for kind, by_mn in (("BF16", False), ("BF16", True), ("F16", False), ("TF32", False))
    if (n, kind) != (256, "TF32")  # more shared memory than a box of 256 rows can fill
]
ALL_TILES += [
    {"registers": True, "kind": kind, "b_by_mn": by_mn, "negate": True}
    for kind, by_mn in (("BF16", False), ("BF16", True), ("F16", False), ("TF32", False))
]
ALL_TILES += [{"negate": True}, {"k": 128}, {"k": 128, "a_by_mn": True, "b_by_mn": True, "n": 128}]


def gemm(device, m=200, n=152, k=264, by_rows=False, pipelined=False, blocks=None, edits=()):
    a, b = bfloat16(normal(m, k)), bfloat16(normal(*((k, n) if by_rows else (n, k)), seed=1))
    c = device.empty((m, n), np.float32)
    map_a = TensorMap.tiled(device.asarray(a), (64, 128), swizzle=128)
    map_b = TensorMap.tiled(device.asarray(b), (64, 64) if by_rows else (64, 128), swizzle=128)
    expression = f"gemm_wgmma<{str(by_rows).lower()}, {str(pipelined).lower()}>"
    function = compiled(device, "gemm_wgmma.cu", expression, edits)
    grid = (blocks or -(-n // 128) * -(-m // 128),)
    device.launch(function, grid, (384,), (map_a, map_b, c, *map(I32, (m, n, k))), 3 * 32768 + 64)
    seen_b = from_bfloat16(b) if by_rows else from_bfloat16(b).T
    return device.asnumpy(c), from_bfloat16(a).astype(float) @ seen_b.astype(float)


def _convolved(x, w, stride, pad, dilation):
    """Return the convolution of NHWC x with KRSC w in float64."""
    n, h, width, _ = x.shape
    k, r, s, _ = w.shape
    p, q = (
        (h + 2 * pad - dilation * (r - 1) - 1) // stride + 1,
        (width + 2 * pad - dilation * (s - 1) - 1) // stride + 1,
    )
    padded = np.pad(x.astype(float), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    y = np.zeros((n, p, q, k))
    for i, j in itertools.product(range(r), range(s)):
        rows = slice(i * dilation, i * dilation + stride * (p - 1) + 1, stride)
        columns = slice(j * dilation, j * dilation + stride * (q - 1) + 1, stride)
        y += np.einsum("nhwc,kc->nhwk", padded[:, rows, columns], w[:, i, j].astype(float))
    return y


def conv(device, shape=(3, 7, 9, 72), k=40, window=(3, 3), stride=1, pad=1, dilation=1, corner=0, edits=()):
    n, *_, c = shape
    r, s = window
    x, w = bfloat16(normal(*shape)), bfloat16(normal(k, r, s, c))
    want = _convolved(from_bfloat16(x), from_bfloat16(w), stride, pad, dilation)
    p, q = want.shape[1:3]
    y = device.empty((n * p * q, k), np.uint16)
    upper = (pad - (s - 1) * dilation + corner, pad - (r - 1) * dilation)
    map_x = TensorMap.im2col(
        device.asarray(x),
        lower=(-pad, -pad),
        upper=upper,
        channels=64,
        pixels=128,
        strides=(stride, stride),
        swizzle=128,
    )
    map_w = TensorMap.tiled(device.asarray(w.reshape(k, r * s, c)), (64, 1, 64), swizzle=128)
    map_y = TensorMap.tiled(y, (64, 64), swizzle=128, writable=True)
    function = compiled(device, "conv_wgmma.cu", "conv_wgmma", edits)
    sizes = map(I32, (p, q, c, r, s, stride, pad, dilation))
    shared = 3 * 24576 + 16384 + 64
    device.launch(function, (-(-n * p * q // 128), -(-k // 64)), (384,), (map_x, map_w, map_y, *sizes), shared)
    got = from_bfloat16(device.asnumpy(y)).reshape(want.shape)
    rounded = np.abs(got - want) <= 2.0**-8 * np.abs(want)  # half an ulp of bfloat16 is not an error
    return got, np.where(rounded, got, want)


def error_of(pair):
    got, want = pair
    error = np.abs(got - want).max() / np.abs(want).max()
    return np.inf if np.isnan(error) else error


FEW_KERNELS = {
    "gemm_persistent_and_pipelined": (gemm, {"blocks": 2, "m": 300, "pipelined": True}),
    "convolution": (conv, {}),
}


ALL_KERNELS = FEW_KERNELS | {
    "gemm": (gemm, {}),
    "gemm_b_by_rows": (gemm, {"by_rows": True}),
    "gemm_pipelined": (gemm, {"pipelined": True}),
    "gemm_persistent": (gemm, {"blocks": 1, "m": 300}),
    "gemm_tiny": (gemm, {"m": 5, "n": 8, "k": 8}),
    "gemm_whole_tiles": (gemm, {"m": 256, "n": 256, "k": 256}),
    "convolution_stride_2": (conv, {"stride": 2}),
    "convolution_dilation_2": (conv, {"dilation": 2, "pad": 2}),
    "convolution_1x1": (conv, {"window": (1, 1), "pad": 0, "k": 72}),
    "convolution_5x3": (conv, {"window": (5, 3), "pad": 2}),
    "convolution_odd": (conv, {"shape": (5, 5, 3, 8), "k": 8}),
}


# Everything above by a name: what a GPU that has these instructions must do as the emulator does.  Each returns what came
# out and what must, and is wrong if they differ by more than LIMIT of the largest value.
LIMIT = 2e-5
EXAMPLES: dict[str, Callable[[Any], tuple[np.ndarray, np.ndarray]]] = {
    **{
        f"box, swizzle {swizzle}, {name}": partial(boxes, swizzle=swizzle, at=at)
        for swizzle in (0, 32, 64, 128)
        for name, at in CORNERS.items()
    },
    **{f"box of rank {rank}": partial(box_of_rank, shape=s, box=b, at=at) for rank, (s, b, at) in RANKS.items()},
    **{f"im2col, {name}": partial(im2col, shape=s, options=o, at=at, tap=t) for name, (s, o, at, t) in IM2COL.items()},
    "store, clipped": clipped_store,
    "bulk copies": lambda device: (bulk_copies(device), np.arange(256)),
    "operands by ordinary stores": stored_operands,
    "named barriers": named_barriers,
    "mbarrier for ordinary stores": mbarrier_for_stores,
    "mbarrier that is polled": partial(boxes, swizzle=128, at=(0, 0), poll=True),
    **{f"wgmma, {name}": partial(tile, **options) for name, options in FEW_TILES.items()},
    **{name: partial(run, **options) for name, (run, options) in ALL_KERNELS.items()},
    **{f"wgmma, {', '.join(f'{k} {v}' for k, v in o.items())}": partial(tile, **o) for o in ALL_TILES},
}
