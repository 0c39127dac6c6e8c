"""Which kernel a convolution runs on, and that every kernel serves every case it might be given."""

from types import SimpleNamespace

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, normal, whole
from conv_checks import channels_last, exact_backward, exact_forward
from pairs import GPUS, STORED, pairs
from places import Emulated
from test_conv import CASES, SPECIAL

import gpuconv
from gpuconv import naive
from gpuconv.cuda import conv, conv_tiles
from gpuconv.cuda.layout import INT64
from gpuconv.shapes import conv_sizes

FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")
H200 = SimpleNamespace(sm_count=132)


def sizes(x, w, **options):
    return conv_sizes(np.empty(x), np.empty(w), None, **options)


def force(monkeypatch, *, forward="direct", data="direct", weight="direct"):
    """Let these kernels serve every size."""
    for name, method in (("forward_method", forward), ("data_method", data), ("weight_method", weight)):
        monkeypatch.setattr(conv, name, lambda *_, method=method: method)


def computed(gpu, x, w, b, dy, options, *, stored="c_order"):
    """Return y, dx, dw, db as NumPy arrays."""
    arrange = channels_last if stored == "channels_last" else np.asarray
    y, cache = gpuconv.conv_forward(*map(gpu.array, (arrange(x), w, b)), **options)
    return [gpu.numpy(a) for a in (y, *gpuconv.conv_backward(gpu.array(arrange(dy)), cache))]


def off_by_one(gpu, a, stored):
    """Return images or volumes on the device without gaps, one element behind the start of their memory."""
    last = stored == "channels_last"
    host = np.ascontiguousarray(np.moveaxis(a, 1, -1)) if last else a
    view = gpu.array(np.concatenate([host[:1].ravel()[:1], host.ravel()]))[1:].reshape(host.shape)
    return view.transpose(0, a.ndim - 1, *range(1, a.ndim - 1)) if last else view


def arrays(rng, x, w, options, dtype="float32", make=whole):
    z = sizes(x, w, **options)
    return [make(rng, shape, dtype) for shape in (x, w, (z.K,), z.out)], z


def expected(x, w, b, dy, z):
    return naive.conv_forward(x, w, b, z), *naive.conv_backward(dy, x, w, z, input_grad=True, bias_grad=True)


each_format = pytest.mark.parametrize("stored", STORED)

# The rule -----------------------------------------------------------------------------------------------------------

RULE = {  # x, w, options -> kernels of y, dx, dw
    "body_of_a_net": ((128, 64, 32, 32), (64, 64, 3, 3), {"pad": 1}, ("tiled", "tiled", "tiled")),
    "first_layer": ((128, 3, 32, 32), (64, 3, 3, 3), {"pad": 1}, ("few", "direct", "tiled")),
    "first_layer_of_few_filters": ((128, 3, 32, 32), (8, 3, 3, 3), {}, ("direct", "direct", "direct")),
    "head": ((128, 64, 8, 8), (10, 64, 1, 1), {}, ("direct", "tiled", "direct")),
    "one_by_one": ((32, 64, 8, 8), (128, 64, 1, 1), {}, ("tiled", "tiled", "tiled")),
    "grouped": ((32, 64, 8, 8), (64, 16, 3, 3), {"groups": 4}, ("tiled", "tiled", "tiled")),
    "many_groups": ((32, 64, 8, 8), (64, 4, 3, 3), {"groups": 16}, ("direct", "direct", "direct")),
    "depthwise": ((32, 64, 8, 8), (64, 1, 3, 3), {"groups": 64}, ("direct", "direct", "direct")),
    "window_too_large_for_the_table": ((1, 3, 64, 64), (64, 3, 20, 20), {}, ("direct", "direct", "tiled")),
    "image_too_large_for_32_bits": ((1, 64, 2**13, 2**12), (64, 64, 3, 3), {}, ("direct", "direct", "direct")),
    "padding_too_large_for_32_bits": ((1, 64, 1, 1), (64, 64, 3, 3), {"pad": 2**13}, ("direct", "direct", "direct")),
}


@pytest.mark.parametrize(("x", "w", "options", "methods"), RULE.values(), ids=RULE.keys())
def test_rule(x, w, options, methods):
    z = conv_sizes(np.broadcast_to(0.0, x), np.empty(w), None, **options)
    assert (
        conv.forward_method(z, FLOAT32, 86),
        conv.data_method(z, FLOAT32, 86),
        conv.weight_method(z, FLOAT32, 86),
    ) == methods


@pytest.mark.parametrize(
    ("pixels", "columns", "inner", "dtype", "tile"),
    [
        (2**17, 128, 128, FLOAT32, conv_tiles.LARGE),
        (2**17, 100, 128, FLOAT32, conv_tiles.LARGE),
        (2**17, 64, 64, FLOAT32, conv_tiles.SLIM),
        (2**17, 192, 64, FLOAT32, conv_tiles.SLIM),
        (2**17, 32, 32, FLOAT32, conv_tiles.NARROW),
        (2**17, 16, 32, FLOAT32, conv_tiles.NARROW),
        (2**13, 256, 256, FLOAT32, conv_tiles.SLIM),  # 128 large tiles: one to a multiprocessor
        (9 * 2**10, 256, 256, FLOAT32, conv_tiles.SMALL),  # 144 large tiles: 12 multiprocessors would take a second
        (9 * 2**10, 256, 264, FLOAT32, conv_tiles.SMALL),
        (2**11, 512, 512, FLOAT32, conv_tiles.SMALL),
        (2**11, 512, 8, FLOAT32, conv_tiles.SLIM),  # half of each step of a small tile would be empty
        (2**17, 128, 128, FLOAT64, conv_tiles.SMALL),
    ],
)
def test_tile_takes_least(pixels, columns, inner, dtype, tile):
    assert conv_tiles.tile_of(H200, dtype, pixels=pixels, columns=columns, inner=inner) == tile


def test_few_channels_have_no_large_tile():
    sizes = {"pixels": 2**17, "columns": 128, "inner": 128}
    assert conv_tiles.tile_of(H200, FLOAT32, large=False, **sizes) == conv_tiles.SLIM


def test_tile_depends_on_the_multiprocessors():
    sizes = {"pixels": 2**13, "columns": 256, "inner": 256}
    of_few = conv_tiles.tile_of(SimpleNamespace(sm_count=16), FLOAT32, **sizes)
    assert (of_few, conv_tiles.tile_of(H200, FLOAT32, **sizes)) == (conv_tiles.LARGE, conv_tiles.SLIM)


def test_products_side_by_side_are_blocks_side_by_side():
    sizes = {"columns": 128, "inner": 128}
    alone = conv_tiles.tile_of(H200, FLOAT32, pixels=2**10, **sizes)
    assert alone == conv_tiles.SMALL
    assert conv_tiles.tile_of(H200, FLOAT32, pixels=2**10, products=2**7, **sizes) == conv_tiles.LARGE


@pytest.mark.parametrize(
    ("filters", "columns", "dtype", "tile"),
    [
        (128, 128 * 9, FLOAT32, conv_tiles.LARGE_WEIGHT),
        (128, 128 * 9, np.dtype(np.float16), conv_tiles.FLAT_WEIGHT),
        (64, 24 * 9, FLOAT32, conv_tiles.FLAT_WEIGHT),
        (64, 64 * 9, FLOAT32, conv_tiles.SMALL_WEIGHT),  # 9 of them, where the fifth flat one is half empty
        (192, 128, FLOAT32, conv_tiles.FLAT_WEIGHT),
        (128, 64, FLOAT32, conv_tiles.SMALL_WEIGHT),
        (64, 27, FLOAT32, conv_tiles.SMALL_WEIGHT),
        (128, 128 * 9, FLOAT64, conv_tiles.SMALL_WEIGHT),
    ],
)
def test_tile_of_weights_wastes_least(filters, columns, dtype, tile):
    assert conv_tiles.weight_tile_of(filters, columns, dtype, False) == tile
    if tile == conv_tiles.LARGE_WEIGHT:
        assert conv_tiles.weight_tile_of(filters, columns, dtype, True) == conv_tiles.FLAT_WEIGHT


def test_a_tile_changes_no_bit(gpu, rng, monkeypatch):
    """So that results do not depend on how many multiprocessors there are."""
    (x, w, b, dy), _ = arrays(rng, *SEVERAL_TILES["odd"])
    bits = []
    for tile in TILES.values():
        monkeypatch.setattr(conv, "tile_of", lambda *_, tile=tile, **__: tile)
        y, dx, _, _ = computed(gpu, x, w, b, dy, SEVERAL_TILES["odd"][2])
        bits.append((y.tobytes(), dx.tobytes()))
    assert len(set(bits)) == 1


@pytest.mark.parametrize(
    ("first", "channels", "dtype", "channels_last", "packs"),
    [
        (0, 16, FLOAT32, True, True),
        (4, 16, FLOAT32, True, True),
        (1, 16, FLOAT32, True, False),
        (2, 16, FLOAT32, True, False),
        (0, 16, FLOAT32, False, False),
        (0, 12, FLOAT32, True, False),
        (4, 16, np.dtype(np.float16), True, True),
        (2, 16, np.dtype(np.float16), True, False),
        (0, 16, FLOAT64, True, False),
    ],
)
def test_packs_are_aligned_and_whole(first, channels, dtype, channels_last, packs):
    memory = Emulated.device.empty(1024, dtype)
    assert Emulated.device.is_aligned(memory, 16)
    assert conv_tiles.packs(Emulated.device, memory[first:], channels, 8, channels_last=channels_last) is packs


# Every kernel on every case -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@each_format
def test_tiled_kernels_serve_every_case(case, stored, gpu, rng, monkeypatch):
    force(monkeypatch, forward="tiled", data="tiled", weight="tiled")
    given, z = arrays(rng, *case)
    for actual, want in zip(computed(gpu, *given, case[2], stored=stored), expected(*given, z), strict=True):
        assert_same(actual, want, dtype="float32")


# The kernel keeps the places of a window's pixels in a table: sums beyond its length are not its cases.
SHORT_SUMS = {name: case for name, case in CASES.items() if int(np.prod(case[1][1:])) <= conv._TABLE}


@pytest.mark.parametrize("case", SHORT_SUMS.values(), ids=SHORT_SUMS.keys())
@each_format
def test_few_channels_kernel_serves_every_short_sum(case, stored, gpu, rng, monkeypatch):
    force(monkeypatch, forward="few")
    (x, w, b, _), z = arrays(rng, *case)
    x_stored = channels_last(x) if stored == "channels_last" else x
    y, _ = gpuconv.conv_forward(*map(gpu.array, (x_stored, w, b)), **case[2])
    assert_same(gpu.numpy(y), naive.conv_forward(x, w, b, z), dtype="float32")


# More pixels, filters and channels than one tile of any kind, none of them a multiple of one.
SEVERAL_TILES = {
    "odd": ((3, 21, 11, 13), (131, 21, 3, 2), {"pad": (1, 0), "stride": (1, 2)}),
    "packs_of_four": ((2, 20, 12, 12), (132, 20, 2, 2), {"pad": 1, "stride": 2}),
    "groups": ((2, 24, 10, 14), (144, 12, 3, 1), {"groups": 2, "dilation": 2}),
    "whole_steps": ((2, 32, 9, 8), (144, 32, 2, 2), {"pad": 1, "stride": (2, 1)}),
}
TILES = {"large": conv_tiles.LARGE, "slim": conv_tiles.SLIM, "narrow": conv_tiles.NARROW, "small": conv_tiles.SMALL}
WEIGHT_TILES = {"large": conv_tiles.LARGE_WEIGHT, "flat": conv_tiles.FLAT_WEIGHT, "small": conv_tiles.SMALL_WEIGHT}


@pairs(
    case=SEVERAL_TILES,
    tile=TILES,
    forward=["tiled", "few"],
    stored=STORED,
    gpu=GPUS,
    together=[("tile", "forward", "stored"), ("case", "tile", "stored")],  # each is a kernel
)
def test_several_tiles(case, tile, forward, stored, gpu, rng, monkeypatch):
    force(monkeypatch, forward=forward, data="tiled", weight="tiled")
    monkeypatch.setattr(conv, "tile_of", lambda *_, **__: tile)
    (x, w, b, dy), z = arrays(rng, *case)
    y, dx, _, _ = computed(gpu, x, w, b, dy, case[2], stored=stored)
    assert_same(y, exact_forward(x, w, b, z), dtype="float32")
    assert_same(dx, exact_backward(dy, x, w, z)[0], dtype="float32")


@pytest.mark.parametrize("case", SEVERAL_TILES.values(), ids=SEVERAL_TILES.keys())
@pytest.mark.parametrize("tile", WEIGHT_TILES.values(), ids=WEIGHT_TILES.keys())
@each_format
def test_several_tiles_of_the_weight_gradient(case, tile, stored, gpu, rng, monkeypatch):
    force(monkeypatch, weight="tiled")
    monkeypatch.setattr(conv, "weight_tile_of", lambda *_: tile)
    given, z = arrays(rng, *case)
    dw = computed(gpu, *given, case[2], stored=stored)[2]
    assert_same(dw, exact_backward(given[3], given[0], given[1], z)[1], dtype="float32")


def test_the_fast_oracle_is_the_oracle(rng):
    for case in ("odd_everything", "groups_with_stride", "asymmetric_pairs", "pad_larger_than_image"):
        (x, w, b, dy), z = arrays(rng, *CASES[case])
        y, dx, dw, _ = expected(x, w, b, dy, z)
        assert_same(exact_forward(x, w, b, z), y)
        for actual, want in zip(exact_backward(dy, x, w, z), (dx, dw), strict=True):
            assert_same(actual, want)


# Numbers, types, special values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", ["tiled", "few"])
@each_format
def test_every_dtype_within_the_tolerance(forward, stored, gpu, dtype, rng, monkeypatch):
    case = (2, 9, 7, 10), (17, 9, 3, 3), {"pad": 1, "stride": (1, 2)}
    force(monkeypatch, forward=forward, data="tiled", weight="tiled")
    (x, w, b, dy), z = arrays(rng, *case, dtype, normal)

    def reference(x, w, b, dy):
        return exact_forward(x, w, b, z), *exact_backward(dy, x, w, z)

    refs, scales = reference(x, w, b, dy), reference(*absolute(x, w, b, dy))
    for actual, ref, scale in zip(computed(gpu, x, w, b, dy, case[2], stored=stored)[:3], refs, scales, strict=True):
        assert_close(actual, ref, scale=scale, dtype=dtype)


@pytest.mark.parametrize("method", ["direct", "tiled", "few"])
@each_format
def test_relu_in_the_epilogue(method, stored, gpu, rng, monkeypatch):
    force(monkeypatch, forward=method)
    (x, w, b, _), z = arrays(rng, (2, 5, 6, 7), (18, 5, 3, 3), {"pad": 1})
    x[0, 0, 0, 0] = np.nan
    y = exact_forward(x, w, b, z)
    assert (y < 0).any()
    x = channels_last(x) if stored == "channels_last" else x
    got = conv.convolve(*map(gpu.array, (x, w, b)), z, relu=True)
    assert_same(gpu.numpy(got), np.where(y < 0, 0, y), dtype="float32")


@pairs(
    special=SPECIAL,
    options={"pad": {"pad": 1}, "stride": {"pad": 2, "stride": 2}, "dilation": {"dilation": 2, "pad": 2}},
    forward=["tiled", "few"],
    gpu=GPUS,
)
def test_nan_and_infinity_spread_as_the_sums_say(special, options, forward, gpu, rng, monkeypatch):
    name, place, value = special
    force(monkeypatch, forward=forward, data="tiled", weight="tiled")
    (x, w, b, dy), z = arrays(rng, (2, 2, 6, 7), (2, 2, 3, 3), options)
    array = {"x": x, "w": w, "b": b, "dy": dy}[name]
    array[tuple(min(i, n - 1) for i, n in zip(place, array.shape, strict=True))] = value
    stored = "channels_last" if forward == "few" else "c_order"
    got = computed(gpu, x, w, b, dy, options, stored=stored)
    for actual, want in zip(got, expected(x, w, b, dy, z), strict=True):
        assert_same(actual, want, dtype="float32")


@each_format
def test_views_that_start_anywhere(stored, gpu, rng, monkeypatch):
    """An address that is no multiple of 16 bytes: packs must be read number by number."""
    force(monkeypatch, forward="tiled", data="tiled", weight="tiled")
    (x, w, b, dy), z = arrays(rng, (2, 8, 6, 6), (20, 8, 3, 3), {"pad": 1})
    x_view, dy_view = (off_by_one(gpu, a, stored) for a in (x, dy))
    y, cache = gpuconv.conv_forward(x_view, *map(gpu.array, (w, b)), pad=1)
    got = [gpu.numpy(a) for a in (y, *gpuconv.conv_backward(dy_view, cache)[:2])]
    for actual, want in zip(got, (exact_forward(x, w, b, z), *exact_backward(dy, x, w, z)), strict=True):
        assert_same(actual, want, dtype="float32")


@each_format
def test_64_bit_indices(stored, gpu, rng, monkeypatch):
    """The kernels for arrays of 2^31 elements, on small ones."""
    force(monkeypatch)
    monkeypatch.setattr(conv, "_index", lambda z: INT64)
    given, z = arrays(rng, *CASES["asymmetric_pairs"])
    for actual, want in zip(
        computed(gpu, *given, CASES["asymmetric_pairs"][2], stored=stored), expected(*given, z), strict=True
    ):
        assert_same(actual, want, dtype="float32")


@pytest.mark.parametrize(("width", "bits"), [(2**30, 32), (2**31 - 2**20, 32), (2**31 - 1, 64)])
def test_64_bit_indices_only_where_needed(width, bits):
    """Also where only the window's far end lies beyond 2^31."""
    x, w = np.broadcast_to(np.float32(0), (1, 1, 1, width)), np.empty((1, 1, 1, 2**10))
    assert conv._index(conv_sizes(x, w, None, stride=2**20)).itemsize == bits // 8


@pytest.mark.parametrize("order", ["reverse", "depth-reverse"])
def test_thread_order_does_not_matter(order, rng, monkeypatch):
    """Same bits whatever order the threads of a block run in."""
    emulate = pytest.importorskip("emulate")
    given, z = arrays(rng, (2, 9, 7, 10), (17, 9, 3, 3), {"pad": 1}, make=normal)
    force(monkeypatch, forward="tiled", data="tiled", weight="tiled")
    results = []
    for settings in ({}, {"order": order, "block_order": "reverse"}):
        device = emulate.EmulatedDevice("emulated", **settings)
        monkeypatch.setattr(conv, "device_of", lambda array, device=device: device)
        x, w, b, dy = map(device.asarray, given)
        grads = conv.conv_backward(dy, x, w, z, input_grad=True, bias_grad=True)
        results.append([device.asnumpy(a).tobytes() for a in (conv.conv_forward(x, w, b, z), *grads)])
    assert results[0] == results[1]
