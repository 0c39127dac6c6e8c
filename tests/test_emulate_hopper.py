"""Hopper's instructions in the emulator: TMA, mbarriers, wgmma, named barriers; layouts, results and planted faults."""

import ctypes
import itertools
import subprocess

import numpy as np
import pytest
from emulate import BuildError, EmulatedDevice, EmulationError, build
from emulate.examples import bfloat16, from_bfloat16, text
from emulate.tensor_map import TensorMap

pytestmark = pytest.mark.compilers

_I32 = np.int32
MODES = ["emulated", "emulated-check"]


def _kernel(device, file, expression, edits=()):
    return device.compile(text(file, edits), file, (expression,), ())[expression]


def _device(name="emulated", **settings):
    return EmulatedDevice(name, arch=90, timeout=20, **settings)


def _random_bits(*shape):
    return np.random.default_rng(shape).integers(1, 60000, shape).astype(np.uint16)


def _normal(*shape, seed=0):
    return np.random.default_rng((*shape, seed)).standard_normal(shape).astype(np.float32)


# Layouts of TMA --------------------------------------------------------------------------------------------------------

# The PTX ISA's tables: the 16-byte unit at position j of line i of a pattern is unit TABLE[i][j] of the tile's line.
SWIZZLE_TABLES = {
    32: ["01", "10"],
    64: ["0123", "1032", "2301", "3210"],
    128: ["01234567", "10325476", "23016745", "32107654", "45670123", "54761032", "67452301", "76543210"],
}


def _in_shared_memory(tile, swizzle):
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


def _box(x, box, at):
    """Return a box of x, zeros outside; box and corner are given innermost first."""
    out = np.zeros(box[::-1], x.dtype)
    for index in itertools.product(*map(range, out.shape)):
        place = [corner + i for corner, i in zip(at[::-1], index, strict=True)]
        if all(0 <= p < size for p, size in zip(place, x.shape, strict=True)):
            out[index] = x[tuple(place)]
    return out


def _pixels(x, m, at, offsets):
    """Return what im2col loads: walk the bounding boxes of all images in order, from pixel `at` on."""
    sizes = x.shape[-2:0:-1]  # w, h, d
    corners = zip(m.lower, m.upper, sizes, m.steps[1:-1], strict=True)
    axes = [range(low, size + up, step) for low, up, size, step in corners]
    walk = [p[::-1] for p in itertools.product(range(x.shape[0] + m.pixels), *axes[::-1])]  # (w, h, d, n)
    start = walk.index(tuple(at[1:]))
    out = np.zeros((m.pixels, m.channels), x.dtype)
    for row, pixel in zip(out, walk[start : start + m.pixels], strict=True):
        place = [*(p + o for p, o in zip(pixel, offsets, strict=False)), pixel[-1]]
        if all(0 <= p < size for p, size in zip(place, (*sizes, x.shape[0]), strict=True)):
            values = x[tuple(place[::-1])][at[0] : at[0] + m.channels]
            row[: len(values)] = values
    return out


def _load(device, m, at, offsets=(), *, poll=False, edits=()):
    """Return the shared memory that one load leaves."""
    rank, im2col = len(m.sizes), str(not m.box).lower()
    function = _kernel(device, "hopper_features.cu", f"tensor_load<{rank}, {im2col}, {str(poll).lower()}>", edits)
    place = np.zeros((), np.dtype([("c", "i4", 5), ("offsets", "i4", 3)]))
    place["c"][: len(at)], place["offsets"][: len(offsets)] = at, offsets
    out = device.empty(m.bytes // 4, np.uint32)
    device.launch(function, (1,), (128,), (m, out, place, _I32(m.bytes)), m.bytes + 8)
    return device.asnumpy(out).view(np.uint8)


CORNERS = {
    "at_the_origin": (0, 0),
    "inside": (8, 3),
    "before_the_array": (-8, -2),
    "over_the_end": (64, 17),
    "outside": (200, 0),
}


@pytest.mark.parametrize("at", CORNERS.values(), ids=CORNERS.keys())
@pytest.mark.parametrize("swizzle", [0, 32, 64, 128])
def test_boxes_lie_as_the_tables_say(swizzle, at):
    device, x = _device("emulated-check"), _random_bits(19, 72)
    box = (swizzle // 2 or 24, 16)
    m = TensorMap.tiled(device.asarray(x), box, swizzle=swizzle)
    want = _in_shared_memory(_box(x, box, at).view(np.uint8).reshape(16, -1), swizzle)
    np.testing.assert_array_equal(_load(device, m, at), want)


RANKS = {
    1: ((160,), (64,), (120,)),
    3: ((5, 6, 32), (16, 4, 3), (24, -1, 3)),
    4: ((3, 4, 5, 16), (8, 3, 2, 2), (8, 3, -1, 2)),
    5: ((3, 2, 3, 4, 16), (16, 2, 2, 2, 2), (0, 3, 2, 1, -1)),
}


@pytest.mark.parametrize(("shape", "box", "at"), RANKS.values(), ids=map(str, RANKS))
def test_boxes_of_every_rank(shape, box, at):
    device, x = _device(), _random_bits(*shape)
    m = TensorMap.tiled(device.asarray(x), box)
    np.testing.assert_array_equal(_load(device, m, at), _box(x, box, at).view(np.uint8).ravel())


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


@pytest.mark.parametrize(("shape", "options", "at", "tap"), IM2COL.values(), ids=IM2COL.keys())
def test_im2col_walks_the_bounding_box(shape, options, at, tap):
    device, x = _device("emulated-check"), _random_bits(*shape)
    m = TensorMap.im2col(device.asarray(x), **options)
    want = _pixels(x, m, at, tap).view(np.uint8).reshape(m.pixels, -1)
    np.testing.assert_array_equal(_load(device, m, at, tap), _in_shared_memory(want, m.swizzle))


# One feature each --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_stores_are_clipped(mode):
    device, rows = _device(mode), _random_bits(8, 64)
    y = device.asarray(np.full((13, 40), 7, np.uint16))
    m = TensorMap.tiled(y, (64, 8), swizzle=128, writable=True)
    raw = _in_shared_memory(rows.view(np.uint8).reshape(8, -1), 128).view(np.uint32)
    function = _kernel(device, "hopper_features.cu", "tensor_store")
    device.launch(function, (1,), (128,), (m, device.asarray(raw), _I32(8), _I32(9), _I32(1024)), 1024)
    want = np.full((13, 40), 7, np.uint16)
    want[9:, 8:] = rows[:4, :32]
    np.testing.assert_array_equal(device.asnumpy(y), want)


def _bulk_copies(device, n=256, edits=()):
    x, y = device.asarray(np.arange(n, dtype=np.uint32)), device.empty(256, np.uint32)
    device.launch(_kernel(device, "hopper_features.cu", "bulk_copies", edits), (1,), (64,), (x, y, _I32(1024)))
    return device.asnumpy(y)


def _stored_operands(device, edits=()):
    a, b = bfloat16(_normal(64, 16)), bfloat16(_normal(8, 16))
    d = device.empty((64, 8), np.float32)
    function = _kernel(device, "hopper_features.cu", "stored_operands", edits)
    device.launch(function, (1,), (128,), (device.asarray(a), device.asarray(b), d))
    return device.asnumpy(d), from_bfloat16(a) @ from_bfloat16(b).T


def _named_barriers(device, edits=()):
    x, y = _normal(640), device.empty(640, np.float32)
    function = _kernel(device, "hopper_features.cu", "named_barriers", edits)
    device.launch(function, (1,), (128,), (device.asarray(x), y, _I32(10)))
    return device.asnumpy(y), x.reshape(-1, 2)[:, ::-1].ravel()


def _mbarrier_for_stores(device, edits=()):
    x, y = _normal(32), device.empty(64, np.float32)
    function = _kernel(device, "hopper_features.cu", "mbarrier_for_stores", edits)
    device.launch(function, (1,), (96,), (device.asarray(x), y))
    return device.asnumpy(y), np.tile(x[::-1], 2)


@pytest.mark.parametrize("mode", MODES)
def test_bulk_copies(mode):
    np.testing.assert_array_equal(_bulk_copies(_device(mode)), np.arange(256))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("feature", [_stored_operands, _named_barriers, _mbarrier_for_stores])
def test_features(mode, feature):
    got, want = feature(_device(mode))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


def test_polling_an_mbarrier():
    device, x = _device("emulated-check"), _random_bits(19, 72)
    m = TensorMap.tiled(device.asarray(x), (64, 16), swizzle=128)
    want = _in_shared_memory(_box(x, (64, 16), (0, 0)).view(np.uint8).reshape(16, -1), 128)
    np.testing.assert_array_equal(_load(device, m, (0, 0), poll=True), want)


# wgmma -------------------------------------------------------------------------------------------------------------------


def _offset(index, shape, stride):
    """Return what one mode of a CuTe layout maps an index to."""
    total = 0
    for size, step in zip(shape, stride, strict=True):
        total += index % size * step
        index //= size
    return total


@pytest.fixture(scope="module")
def library():
    """The address formulas of the runtime, which every library with Hopper's instructions holds."""
    path = _kernel(_device(), "hopper_features.cu", "named_barriers").module.library.path
    loaded = ctypes.CDLL(str(path))
    loaded.emulate_wgmma_address.argtypes = [ctypes.c_ulonglong, *[ctypes.c_int] * 4]
    return loaded


def _descriptor(start, leading_bytes, stride_bytes, mode):
    return start >> 4 | (leading_bytes >> 4) << 16 | (stride_bytes >> 4) << 32 | mode << 62


def _swizzled(bits, address):
    """CuTe's Swizzle<bits, 4, 3> on bytes."""
    return address ^ (address >> 7 & ((1 << bits) - 1)) << 4


MODE_OF_BITS = {0: 0, 1: 3, 2: 2, 3: 1}  # swizzle bits -> as a descriptor numbers them


@pytest.mark.parametrize("bits", MODE_OF_BITS)
@pytest.mark.parametrize(("element_bytes", "by_mn"), [(2, False), (2, True), (4, False)])
def test_operands_lie_as_in_cutes_canonical_layouts(library, element_bytes, by_mn, bits):
    unit, width = 16 // element_bytes, 1 << bits
    for leading, stride in ((1024, 2048), (4096, 1024), (128, 256), (16, 1024)):
        lead, step = leading // element_bytes, stride // element_bytes
        if by_mn:
            mn = ((unit, width, 64), (1, unit, lead)) if bits else ((unit, 1, 64), (1, unit, step))
            k = ((8, 8), (width * unit, step) if bits else (unit, lead))
        else:
            mn = ((8, 64), (width * unit if bits else unit, step))
            k = ((unit, 2), (1, unit if bits else lead))
        descriptor = _descriptor(0x2000, leading, stride, MODE_OF_BITS[bits])
        for i, j in itertools.product(range(128), range(32 // element_bytes)):
            want = _swizzled(bits, 0x2000 + element_bytes * (_offset(i, *mn) + _offset(j, *k)))
            assert library.emulate_wgmma_address(descriptor, by_mn, element_bytes, i, j) == want


# "Exact layout" lines of the PTX ISA's section on the canonical layouts, with their byte offsets in elements:
# (by_mn, bytes, swizzle bits, mn shape and stride, k shape and stride, leading, stride).
WORKED_EXAMPLES = {
    "k_major_tf32_no_swizzle": (False, 4, 0, ((8, 2), (4, 32)), ((4, 4), (1, 64)), 64, 32),
    "k_major_tf32_swizzle_32": (False, 4, 1, ((8, 2), (8, 64)), ((4, 4), (1, 4)), 0, 64),
    "mn_major_bf16_no_swizzle": (True, 2, 0, ((8, 1, 2), (1, 8, 64)), ((8, 2), (8, 128)), 128, 64),
    "mn_major_bf16_swizzle_32": (True, 2, 1, ((8, 2, 2), (1, 8, 128)), ((8, 2), (16, 256)), 128, 256),
    "mn_major_bf16_swizzle_64": (True, 2, 2, ((8, 4, 2), (1, 8, 256)), ((8, 2), (32, 512)), 256, 512),
}


@pytest.mark.parametrize(
    ("by_mn", "size", "bits", "mn", "k", "leading", "stride"), WORKED_EXAMPLES.values(), ids=WORKED_EXAMPLES.keys()
)
def test_operands_lie_as_in_the_worked_examples(library, by_mn, size, bits, mn, k, leading, stride):
    descriptor = _descriptor(0x2000, leading * size, stride * size, MODE_OF_BITS[bits])
    for i, j in itertools.product(range(np.prod(mn[0])), range(32 // size)):
        want = _swizzled(bits, 0x2000 + size * (_offset(i, *mn) + _offset(j, *k)))
        assert library.emulate_wgmma_address(descriptor, by_mn, size, i, j) == want


def test_accumulators_lie_as_in_cutes_layout(library):
    for thread, i in itertools.product(range(128), range(128)):
        want = _offset(thread, (4, 8, 4), (128, 1, 16)) + _offset(i, (2, 2, 32), (64, 8, 512))
        assert library.emulate_accumulator_index(thread, i) == want


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
        index = _offset(thread, *of_thread) + _offset(value, *of_value)
        out[:, thread, value] = a[index % 64, index // 64 :: depth]
    return out.view(np.uint32)


def _tile_error(
    mode, kind="BF16", n=64, k=64, swizzle=128, a_by_mn=False, b_by_mn=False, registers=False, negate=False
):
    """Return the largest relative error of one wgmma tile."""
    device, size = _device(mode), 4 if kind == "TF32" else 2
    row = (swizzle or 16) // size
    (a, seen_a), (b, seen_b), c = _stored(_normal(64, k), kind), _stored(_normal(n, k, seed=1), kind), _normal(64, n)
    dtype = {"BF16": "bfloat16", "F16": "float16", "TF32": "float32"}[kind]
    maps = []
    for matrix, by_mn in ((a, a_by_mn), (b, b_by_mn)):
        held = device.asarray(np.ascontiguousarray(matrix.T if by_mn else matrix))
        maps.append(TensorMap.tiled(held, (row, held.shape[0]), dtype=dtype, swizzle=swizzle))
    flags = ", ".join(str(flag).lower() for flag in (a_by_mn, b_by_mn, registers, negate))
    function = _kernel(device, "wgmma_tile.cu", f"wgmma_tile<{kind}, {n}, {k}, {swizzle}, {flags}>")
    d = device.empty((64, n), np.float32)
    args = (*maps, device.asarray(_a_registers(a)), device.asarray(c), d)
    device.launch(function, (1,), (128,), args, (64 + n) * k * size + 64)
    want = c + (-1 if negate else 1) * (seen_a.astype(float) @ seen_b.T.astype(float))
    return np.abs(device.asnumpy(d) - want).max() / np.abs(want).max()


FEW_TILES = {
    "bfloat16": {},
    "float16_by_mn_swizzle_64": {"kind": "F16", "a_by_mn": True, "b_by_mn": True, "swizzle": 64},
    "tf32_swizzle_32": {"kind": "TF32", "swizzle": 32},
    "no_swizzle": {"swizzle": 0, "b_by_mn": True},
    "a_in_registers": {"registers": True, "negate": True},
    "tf32_a_in_registers": {"kind": "TF32", "registers": True, "n": 8},
    "widest": {"n": 256},
}
_ALL_TILES = [
    {"a_by_mn": a, "b_by_mn": b, "swizzle": swizzle, "kind": kind}
    for swizzle in (0, 32, 64, 128)
    for a, b, kind in [*itertools.product((False, True), (False, True), ("BF16", "F16")), (False, False, "TF32")]
]
_ALL_TILES += [
    {"n": n, "kind": kind, "b_by_mn": by_mn, "swizzle": 128 if n % 64 == 0 or not by_mn else 32 if n % 16 == 0 else 0}
    for n in (8, 16, 32, 96, 128, 192, 256)
    for kind, by_mn in (("BF16", False), ("BF16", True), ("F16", False), ("TF32", False))
    if (n, kind) != (256, "TF32")  # more shared memory than a box of 256 rows can fill
]
_ALL_TILES += [
    {"registers": True, "kind": kind, "b_by_mn": by_mn, "negate": True}
    for kind, by_mn in (("BF16", False), ("BF16", True), ("F16", False), ("TF32", False))
]
_ALL_TILES += [{"negate": True}, {"k": 128}, {"k": 128, "a_by_mn": True, "b_by_mn": True, "n": 128}]


@pytest.mark.parametrize("options", FEW_TILES.values(), ids=FEW_TILES.keys())
def test_tiles(options):
    assert _tile_error("emulated-check", **options) < 1e-5


@pytest.mark.ladder
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", _ALL_TILES, ids=lambda o: "-".join(f"{k}_{v}" for k, v in o.items()))
def test_tiles_of_every_form(mode, options):
    assert _tile_error(mode, **options) < 1e-5


# Whole kernels -------------------------------------------------------------------------------------------------------------


def _gemm(device, m=200, n=152, k=264, by_rows=False, pipelined=False, blocks=None, edits=()):
    a, b = bfloat16(_normal(m, k)), bfloat16(_normal(*((k, n) if by_rows else (n, k)), seed=1))
    c = device.empty((m, n), np.float32)
    map_a = TensorMap.tiled(device.asarray(a), (64, 128), swizzle=128)
    map_b = TensorMap.tiled(device.asarray(b), (64, 64) if by_rows else (64, 128), swizzle=128)
    expression = f"gemm_wgmma<{str(by_rows).lower()}, {str(pipelined).lower()}>"
    function = _kernel(device, "gemm_wgmma.cu", expression, edits)
    grid = (blocks or -(-n // 128) * -(-m // 128),)
    device.launch(function, grid, (384,), (map_a, map_b, c, *map(_I32, (m, n, k))), 3 * 32768 + 64)
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


def _conv(device, shape=(3, 7, 9, 72), k=40, window=(3, 3), stride=1, pad=1, dilation=1, corner=0, edits=()):
    n, *_, c = shape
    r, s = window
    x, w = bfloat16(_normal(*shape)), bfloat16(_normal(k, r, s, c))
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
    function = _kernel(device, "conv_wgmma.cu", "conv_wgmma", edits)
    sizes = map(_I32, (p, q, c, r, s, stride, pad, dilation))
    shared = 3 * 24576 + 16384 + 64
    device.launch(function, (-(-n * p * q // 128), -(-k // 64)), (384,), (map_x, map_w, map_y, *sizes), shared)
    got = from_bfloat16(device.asnumpy(y)).reshape(want.shape)
    rounded = np.abs(got - want) <= 2.0**-8 * np.abs(want)  # half an ulp of bfloat16 is not an error
    return got, np.where(rounded, got, want)


def _error(pair):
    got, want = pair
    error = np.abs(got - want).max() / np.abs(want).max()
    return np.inf if np.isnan(error) else error


FEW_KERNELS = {
    "gemm_persistent_and_pipelined": (_gemm, {"blocks": 2, "m": 300, "pipelined": True}),
    "convolution": (_conv, {}),
}
ALL_KERNELS = FEW_KERNELS | {
    "gemm": (_gemm, {}),
    "gemm_b_by_rows": (_gemm, {"by_rows": True}),
    "gemm_pipelined": (_gemm, {"pipelined": True}),
    "gemm_persistent": (_gemm, {"blocks": 1, "m": 300}),
    "gemm_tiny": (_gemm, {"m": 5, "n": 8, "k": 8}),
    "gemm_whole_tiles": (_gemm, {"m": 256, "n": 256, "k": 256}),
    "convolution_stride_2": (_conv, {"stride": 2}),
    "convolution_dilation_2": (_conv, {"dilation": 2, "pad": 2}),
    "convolution_1x1": (_conv, {"window": (1, 1), "pad": 0, "k": 72}),
    "convolution_5x3": (_conv, {"window": (5, 3), "pad": 2}),
    "convolution_odd": (_conv, {"shape": (5, 5, 3, 8), "k": 8}),
}
FEW_SETTINGS = [("emulated", "depth-reverse"), ("emulated-check", "forward")]
ALL_SETTINGS = [
    *(("emulated", order) for order in ("forward", "reverse", "random", "depth", "depth-reverse")),
    *(("emulated-check", order) for order in ("forward", "random", "depth-reverse")),
]


@pytest.mark.parametrize(("mode", "order"), FEW_SETTINGS)
@pytest.mark.parametrize(("run", "options"), FEW_KERNELS.values(), ids=FEW_KERNELS.keys())
def test_kernels(run, options, mode, order):
    assert _error(run(_device(mode, order=order), **options)) < 2e-5


@pytest.mark.ladder
@pytest.mark.parametrize(("mode", "order"), ALL_SETTINGS)
@pytest.mark.parametrize(("run", "options"), ALL_KERNELS.values(), ids=ALL_KERNELS.keys())
def test_kernels_in_every_order(run, options, mode, order):
    assert _error(run(_device(mode, order=order), **options)) < 2e-5


# Planted faults ------------------------------------------------------------------------------------------------------------

_FULL_WAIT = "ptx::mbarrier_wait(&full[s], used / STAGES & 1);"
_EMPTY_WAIT = "ptx::mbarrier_wait(&empty[s], (used / STAGES & 1) ^ 1);"
_EXPECT = "ptx::mbarrier_arrive_expect_tx(&full[s], BYTES_A + BYTES_B);"
_WAIT = "ptx::wgmma_wait<0>(sums);\n          if ((t & 31) == 0) ptx::mbarrier_arrive(&empty[s]);  // the stage has been read"
_RELEASE = "if ((t & 31) == 0) ptx::mbarrier_arrive(&empty[s]);"
_A = "ptx::wgmma_desc(tile_a + kk * 2, 16, 1024, ptx::swizzle_128)"

# Name -> (run, edits, what the report of mode check says; None: wrong numbers).
KERNEL_FAULTS = {
    "no_wgmma_fence": (_gemm, [("ptx::wgmma_fence();", "")], "MISSING wgmma.fence"),
    "no_wait_for_full": (_gemm, [(_FULL_WAIT, "")], "UNINITIALISED: wgmma reads"),
    "no_wait_for_empty": (_gemm, [(_EMPTY_WAIT, "")], "mbarrier"),
    "consumer_parity": (_gemm, [(_FULL_WAIT, _FULL_WAIT.replace("& 1)", "& 1 ^ 1)"))], "UNINITIALISED: wgmma reads"),
    "producer_parity": (_gemm, [(_EMPTY_WAIT, _EMPTY_WAIT.replace(" ^ 1", ""))], "no thread can continue"),
    "too_few_bytes_expected": (_gemm, [(_EXPECT, _EXPECT.replace(" + BYTES_B", ""))], "mbarrier"),
    "too_many_bytes_expected": (
        _gemm,
        [(_EXPECT, _EXPECT.replace("BYTES_B", "BYTES_B + 128"))],
        "more bytes than were",
    ),
    "wrong_swizzle": (_gemm, [(_A, _A.replace("128)", "64)"))], "SWIZZLE"),
    "sums_read_early": (_gemm, [(_WAIT, _RELEASE)], "ACCUMULATOR read"),
    "stage_released_early": (_gemm, [(_WAIT, f"{_RELEASE} ptx::wgmma_wait<0>(sums);")], "RACE"),
    "one_warp_releases_for_four": (
        _gemm,
        [(_RELEASE + "  // the stage has been read", "if (t == 0) ptx::mbarrier_arrive_n(&empty[s], 4);")],
        "has not signalled this thread",
    ),
    "no_fence_after_mbarrier_init": (_gemm, [("ptx::fence_mbarrier_init();", "")], "MISSING fence.mbarrier_init"),
    "no_hold": (_gemm, [(_WAIT, _WAIT.replace("(sums)", "()"))], "without wgmma_hold"),
    "coordinate_off_by_8": (_gemm, [("&full[s], k * BK, m0)", "&full[s], k * BK + 8, m0)")], None),
    "taps_exchanged": (_conv, [("s * dilation, r * dilation", "r * dilation, s * dilation")], None),
    "coordinate_outside_the_box": (_conv, [("c, left, top", "c, left - 1, top")], "outside the bounding box"),
    "no_fence_before_the_store": (_conv, [("ptx::fence_proxy_async();", "")], "MISSING fence.proxy.async"),
    "no_named_barrier": (_conv, [("ptx::named_barrier_sync(1, 128);", ";")], "UNINITIALISED: bulk store reads"),
    "no_wait_for_the_store": (_conv, [("ptx::bulk_wait_read<0>();", "")], "returns before cp.async.bulk.wait_group"),
}


def _caught(run):
    with pytest.raises(EmulationError) as caught:
        run()
    return str(caught.value)


QUICK_FAULTS = [
    "no_wgmma_fence",
    "too_many_bytes_expected",
    "sums_read_early",
    "stage_released_early",
    "coordinate_outside_the_box",
    "no_fence_before_the_store",
]


@pytest.mark.parametrize(
    "fault",
    [pytest.param(f, marks=() if f in QUICK_FAULTS else pytest.mark.ladder) for f in KERNEL_FAULTS],
)
def test_planted_faults(fault):
    run, edits, words = KERNEL_FAULTS[fault]
    device = _device("emulated-check")
    if words is None:
        assert _error(run(device, edits=edits)) > 1e-3
    else:
        assert words in _caught(lambda: run(device, edits=edits))


def test_wrong_corner_gives_wrong_numbers():
    assert _error(_conv(_device("emulated-check"), corner=1)) > 1e-3


# Name -> (run, edits, mode, what the report says).
_INIT, _INIT_BARRIER = (
    "if (threadIdx.x == 0) ptx::mbarrier_init(&barrier, 32);",
    "__syncthreads();  // the mbarrier is there",
)
FEATURE_FAULTS = {
    "no_proxy_fence_before_wgmma": (
        _stored_operands,
        [("ptx::fence_proxy_async();\n  __syncthreads();\n  float d[4];", "__syncthreads();\n  float d[4];")],
        "emulated-check",
        "MISSING fence.proxy.async",
    ),
    "no_barrier_before_wgmma": (
        _stored_operands,
        [("ptx::fence_proxy_async();\n  __syncthreads();\n  float d[4];", "ptx::fence_proxy_async();\n  float d[4];")],
        "emulated-check",
        "wgmma reads",
    ),
    "operand_overwritten_in_flight": (
        _stored_operands,
        [("ptx::wgmma_commit();", "ptx::wgmma_commit(); tile_a[t] = 0;")],
        "emulated-check",
        "RACE",
    ),
    "part_of_a_warpgroup": (
        _stored_operands,
        [("t < 128)", "t < 96)")],
        "emulated",
        "96 of 128 threads of warpgroup 0",
    ),
    "named_barrier_never_completed": (
        _named_barriers,
        [("ptx::named_barrier_arrive(2, 128);", "")],
        "emulated",
        "named barrier 2: 64 of 128",
    ),
    "named_barrier_counts_differ": (
        _named_barriers,
        [("ptx::named_barrier_arrive(2, 128);", "ptx::named_barrier_arrive(2, 96);")],
        "emulated",
        "named barrier 2",
    ),
    "mbarrier_used_before_it_is_there": (
        _mbarrier_for_stores,
        [(_INIT_BARRIER, "__syncwarp();")],
        "emulated-check",
        "mbarrier",
    ),
    "store_after_arrival": (
        _mbarrier_for_stores,
        [
            (
                "room[lane] = x[lane];\n    ptx::mbarrier_arrive(&barrier);",
                "ptx::mbarrier_arrive(&barrier);\n    room[lane] = x[lane];",
            )
        ],
        "emulated-check",
        "RACE",
    ),
    "mbarrier_overwritten": (
        _mbarrier_for_stores,
        [
            (
                "ptx::mbarrier_arrive(&barrier);",
                "ptx::mbarrier_arrive(&barrier); if (lane == 0) *(volatile unsigned*)&barrier = 0;",
            )
        ],
        "emulated-check",
        "mbarrier object",
    ),
    "bulk_copy_past_its_array": (
        lambda device, edits: _bulk_copies(device, 100, edits),
        [],
        "emulated",
        "OUT OF BOUNDS",
    ),
}


@pytest.mark.parametrize(("run", "edits", "mode", "words"), FEATURE_FAULTS.values(), ids=FEATURE_FAULTS.keys())
def test_faults_of_features(run, edits, mode, words):
    assert words in _caught(lambda: run(_device(mode), edits=edits))


def test_only_one_thread_waits():
    device = _device("emulated-check")
    m = TensorMap.tiled(device.asarray(_random_bits(19, 72)), (64, 16), swizzle=128)
    edits = [("    ptx::mbarrier_wait(barrier, 0);\n", "    if (t == 0) ptx::mbarrier_wait(barrier, 0);\n")]
    assert "while a bulk copy is still writing it" in _caught(lambda: _load(device, m, (0, 0), edits=edits))


def test_polling_that_cannot_end():
    device = _device()
    m = TensorMap.tiled(device.asarray(_random_bits(19, 72)), (64, 16), swizzle=128)
    edits = [("expect_tx(barrier, bytes)", "expect_tx(barrier, bytes + 16)")]
    report = _caught(lambda: _load(device, m, (0, 0), poll=True, edits=edits))
    assert "no thread can continue" in report
    assert "tx-count 16" in report


def test_a_store_whose_source_changes():
    device = _device("emulated-check")
    y = device.zeros((13, 40), np.uint16)
    m = TensorMap.tiled(y, (64, 8), swizzle=128, writable=True)
    edits = [
        (
            "ptx::bulk_commit();\n    ptx::bulk_wait<0>();",
            "ptx::bulk_commit(); shared[0] = 1;\n    ptx::bulk_wait<0>();",
        )
    ]
    function = _kernel(device, "hopper_features.cu", "tensor_store", edits)
    args = (m, device.zeros(256, np.uint32), _I32(0), _I32(0), _I32(1024))
    assert "bulk store changed" in _caught(lambda: device.launch(function, (1,), (128,), args, 1024))


def test_clusters_are_refused():
    with pytest.raises(BuildError, match="clusters are not emulated"):
        _device().compile("__global__ void __cluster_dims__(2, 1, 1) f(float* y) {}", "f.cu", ("f",), ())


# Tensor maps ---------------------------------------------------------------------------------------------------------------

REFUSED_MAPS = {
    "stride_of_18_bytes": (lambda: TensorMap.tiled(_random_bits(4, 9), (8, 4)), "multiples of 16"),
    "box_over_256": (lambda: TensorMap.tiled(_random_bits(400, 8), (8, 300)), r"1\.\.256"),
    "box_wider_than_the_swizzle": (lambda: TensorMap.tiled(_random_bits(4, 128), (128, 4), swizzle=128), "exceeds"),
    "box_narrower_than_the_swizzle": (lambda: TensorMap.tiled(_random_bits(4, 128), (32, 4), swizzle=128), "untried"),
    "corners_out_of_range": (
        lambda: TensorMap.im2col(_random_bits(1, 4, 4, 8), lower=(-200, 0), upper=(0, 0), channels=8, pixels=8),
        "corners",
    ),
    "view_with_gaps": (lambda: TensorMap.tiled(_random_bits(4, 16)[:, ::2], (8, 4)), "C-contiguous"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED_MAPS.values(), ids=REFUSED_MAPS.keys())
def test_impossible_maps_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


_STAND_IN = r"""
#include <cstdint>
#include <cstring>
static int64_t seen_values[64];
static int count;
static void note(int64_t value) { seen_values[count++] = value; }
template <class T>
static void note_all(const T* values, int n) { for (int i = 0; i < n; i++) note(values[i]); }
static void begin(void* map, int type, uint32_t rank, void* address, const uint64_t* sizes, const uint64_t* strides) {
  count = 0;
  memset(map, 7, 128);
  note((int64_t)map % 64); note(type); note(rank); note((int64_t)address);
  note_all(sizes, rank);
  note_all(strides, rank - 1);
}
static void end(uint32_t rank, const uint32_t* steps, int interleave, int swizzle, int promotion, int fill) {
  note_all(steps, rank);
  note(interleave); note(swizzle); note(promotion); note(fill);
}
extern "C" const int64_t* seen() { return seen_values; }
extern "C" int cuTensorMapEncodeTiled(void* map, int type, uint32_t rank, void* address, const uint64_t* sizes,
    const uint64_t* strides, const uint32_t* box, const uint32_t* steps, int interleave, int swizzle, int promotion,
    int fill) {
  begin(map, type, rank, address, sizes, strides);
  note_all(box, rank);
  end(rank, steps, interleave, swizzle, promotion, fill);
  return 0;
}
extern "C" int cuTensorMapEncodeIm2col(void* map, int type, uint32_t rank, void* address, const uint64_t* sizes,
    const uint64_t* strides, const int* lower, const int* upper, uint32_t channels, uint32_t pixels,
    const uint32_t* steps, int interleave, int swizzle, int promotion, int fill) {
  begin(map, type, rank, address, sizes, strides);
  note_all(lower, rank - 2);
  note_all(upper, rank - 2);
  note(channels); note(pixels);
  end(rank, steps, interleave, swizzle, promotion, fill);
  return 0;
}
"""


@pytest.fixture(scope="module")
def libcuda(tmp_path_factory):
    """A stand-in for libcuda with the documented signatures, which remembers what it is given."""
    folder = tmp_path_factory.mktemp("libcuda")
    (folder / "cuda.cpp").write_text(_STAND_IN)
    subprocess.run([build.compiler(), "-shared", "-fPIC", "-o", folder / "cuda.so", folder / "cuda.cpp"], check=True)
    library = ctypes.CDLL(str(folder / "cuda.so"))
    library.seen.restype = ctypes.POINTER(ctypes.c_int64)
    return library


def test_real_maps_are_encoded_as_documented(libcuda):
    x = np.zeros((3, 7, 9, 72), np.uint16)
    array = [0, 9, 4, x.ctypes.data, 72, 9, 7, 3, 144, 1296, 9072]
    made = TensorMap.tiled(x, (64, 1, 2, 3), swizzle=128).device(libcuda)
    assert made.tobytes() == b"\7" * 128
    want = [*array, 64, 1, 2, 3, 1, 1, 1, 1, 0, 3, 2, 0]
    assert libcuda.seen()[: len(want)] == want
    corners = {"lower": (-1, -2), "upper": (-3, -4), "channels": 64, "pixels": 128, "strides": (2, 1)}
    TensorMap.im2col(x, **corners, swizzle=128, l2_promotion=256).device(libcuda)
    want = [*array, -1, -2, -3, -4, 64, 128, 1, 2, 1, 1, 0, 3, 3, 0]
    assert libcuda.seen()[: len(want)] == want
