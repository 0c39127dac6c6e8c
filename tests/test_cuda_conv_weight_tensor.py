"""Gradients of filters on tensor cores: which calls take them, and that they serve every case, however long the sums."""

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, normal
from conv_checks import channels_last, exact_backward, positive
from pairs import GPUS, STORED, pairs
from test_conv import SPECIAL
from test_cuda_conv import expected, off_by_one
from test_cuda_conv_tensor import CASES_OF_TILES, FLOAT16, FLOAT32, ONE_GROUP, arrays

import gpuconv
from gpuconv.cuda import conv, conv_weight_tensor
from gpuconv.cuda.kernel import OPTIONS
from gpuconv.cuda.source import source
from gpuconv.shapes import conv_sizes

each_format = pytest.mark.parametrize("stored", STORED)

MORE_CASES = {
    "slices_that_end_inside_images": ((7, 8, 11, 9), (16, 8, 3, 3), {"pad": 1}),
    "filters_of_no_whole_chunk": ((2, 16, 7, 8), (21, 16, 3, 3), {"pad": 1}),
    "one_filter_more_than_a_tile": ((2, 64, 6, 5), (129, 64, 1, 2), {}),
    "window_larger_than_the_image": ((2, 8, 3, 4), (16, 8, 5, 7), {"pad": 3}),
}
CASES_OF_TILES = CASES_OF_TILES | MORE_CASES
TILES = {name: getattr(conv_weight_tensor, name.upper()) for name in ("large", "flat", "tall", "small")}


def force(monkeypatch, *, tile=None, slices=None, run=None):
    """Let tensor cores serve every size, by this tile, in so many slices and runs of so many steps."""
    monkeypatch.setattr(conv, "weight_method", lambda *_: "tensor")
    if tile is not None:
        monkeypatch.setattr(conv_weight_tensor, "tile_of", lambda *_: tile)
    if slices is not None:

        def cut(pixels, tiles, tile, sm_count):
            length = max(1, -(-pixels // (slices * tile.depth))) * tile.depth
            return max(1, -(-pixels // length)), length

        monkeypatch.setattr(conv_weight_tensor, "slices_of", cut)
    if run is not None:
        monkeypatch.setattr(conv_weight_tensor, "run_of", lambda pixels, tile: run * tile.depth)


def computed(gpu, x, w, b, dy, options, *, stored="c_order", dtype=None):
    """Return dw and db as NumPy arrays, dw of a dtype."""
    arrange = channels_last if stored == "channels_last" else np.asarray
    z = conv_sizes(x, w, None, **options)
    on_gpu = [gpu.array(a) for a in (arrange(dy), arrange(x), w)]
    dw, db = gpu.array(np.zeros(w.shape, dtype or w.dtype)), gpu.array(np.zeros(z.K, w.dtype))
    conv.conv_backward_into(*on_gpu, z, dw, db, input_grad=False)
    return gpu.numpy(dw), gpu.numpy(db)


def wanted(x, w, b, dy, z):
    return exact_backward(dy, x, w, z)[1], dy.astype(np.float64).sum((0, 2, 3))


@pairs(
    case=CASES_OF_TILES,
    tile=TILES,
    slices={"one_slice": 1, "slices": 3},
    run={"runs_of_a_step": 1, "one_run": 1000},
    stored=STORED,
    gpu=GPUS,
)
def test_every_tile_serves_every_case(case, tile, slices, run, stored, gpu, rng, monkeypatch):
    force(monkeypatch, tile=tile, slices=slices, run=run)
    given, z = arrays(rng, case)
    for actual, want in zip(computed(gpu, *given, case[2], stored=stored), wanted(*given, z), strict=True):
        assert_same(actual, want, dtype="float16")


@pairs(case=ONE_GROUP, stored=STORED, gpu=GPUS)
def test_any_case_of_one_group_could_be_served(case, stored, gpu, rng, monkeypatch):
    force(monkeypatch)
    given, z = arrays(rng, case)
    for actual, want in zip(computed(gpu, *given, case[2], stored=stored), wanted(*given, z), strict=True):
        assert_same(actual, want, dtype="float16")


# Numbers, types, special values -------------------------------------------------------------------------------------

SUMS = {
    "short": ((2, 16, 7, 9), (24, 16, 3, 3), {"pad": 1}),
    "padded_channels": ((3, 3, 12, 9), (19, 3, 5, 5), {"pad": 2, "stride": 2}),
    "long": ((9, 8, 27, 25), (16, 8, 1, 2), {"pad": (0, 1)}),
    "one_slice_long": ((1, 8, 40, 37), (16, 8, 2, 1), {}),
}


@pairs(
    case=SUMS,
    dtype={"float16": "float16", "float32": "float32"},
    make={"normal": normal, "positive": positive},
    tile=TILES,
    gpu=GPUS,
)
def test_within_the_tolerance(case, dtype, make, tile, gpu, rng, monkeypatch):
    """Of float32 results, too, in which rounding hides nothing of what tensor cores cut off."""
    force(monkeypatch, tile=tile)
    given, z = arrays(rng, case, make)
    dw, _ = computed(gpu, *given, case[2], dtype=dtype)
    ref, scale = wanted(*given, z)[0], wanted(*absolute(*given), z)[0]
    assert_close(dw, ref, scale=scale, dtype=dtype, terms=z.N * z.P * z.Q, zero_mean=make is normal)


def test_long_runs_break_the_rule(gpu, rng, monkeypatch):
    """What short ones are for: cut off again and again, a sum of positive numbers drifts."""
    case = SUMS["one_slice_long"]
    given, z = arrays(rng, case, positive)
    ref = wanted(*given, z)[0]
    for run, kept in ((None, True), (1000, False)):
        force(monkeypatch, tile=TILES["large"], slices=1, run=run)
        dw, _ = computed(gpu, *given, case[2], dtype="float32")
        allowed = (4 + 2 * (z.N * z.P * z.Q) ** 0.5) * 2.0**-24
        assert (np.abs(dw - ref) / ref <= allowed).all() == kept


@pairs(
    special=SPECIAL,
    options={"pad": {"pad": 1}, "stride": {"pad": 2, "stride": 2}, "dilation": {"dilation": 2, "pad": 2}},
    channels={"whole": 8, "padded": 2},
    gpu=GPUS,
)
def test_nan_and_infinity_spread_as_the_sums_say(special, options, channels, gpu, rng, monkeypatch):
    name, place, value = special
    force(monkeypatch)
    (x, w, b, dy), z = arrays(rng, ((2, channels, 6, 7), (channels, channels, 3, 3), options))
    array = {"x": x, "w": w, "b": b, "dy": dy}[name]
    array[tuple(min(i, n - 1) for i, n in zip(place, array.shape, strict=True))] = value
    for actual, want in zip(computed(gpu, x, w, b, dy, options), expected(x, w, b, dy, z)[2:], strict=True):
        assert_same(actual, want, dtype="float16")


@each_format
def test_views_that_start_anywhere(stored, gpu, rng):
    """An address that is no multiple of 16 bytes: tensor cores get a copy."""
    (x, w, b, dy), z = arrays(rng, ((2, 16, 6, 6), (24, 16, 3, 3), {"pad": 1}))
    x_view, dy_view = (off_by_one(gpu, a, stored) for a in (x, dy))
    _, cache = gpuconv.conv_forward(x_view, *map(gpu.array, (w, b)), pad=1)
    got = [gpu.numpy(a) for a in gpuconv.conv_backward(dy_view, cache)[1:]]
    for actual, want in zip(got, wanted(x, w, b, dy, z), strict=True):
        assert_same(actual, want, dtype="float16")


@pytest.mark.parametrize("order", ["reverse", "depth-reverse"])
def test_thread_order_does_not_matter(order, rng, monkeypatch):
    emulate = pytest.importorskip("emulate")
    given, z = arrays(rng, CASES_OF_TILES["strides_and_dilations_differ"], normal)
    force(monkeypatch, slices=2, run=1)
    results = []
    for settings in ({}, {"order": order, "block_order": "reverse"}):
        device = emulate.EmulatedDevice("emulated", **settings)
        monkeypatch.setattr(conv, "device_of", lambda array, device=device: device)
        x, w, _, dy = map(device.asarray, given)
        _, dw, _ = conv.conv_backward(dy, x, w, z, input_grad=False, bias_grad=False)
        results.append(device.asnumpy(dw).tobytes())
        assert "conv_backward_weight_tensor" in {launch.kernel.partition("<")[0] for launch in device.launches}
    assert results[0] == results[1]


# The rule -----------------------------------------------------------------------------------------------------------

RULE = {  # x, w, options -> kernel of dw
    "body_of_a_net": ((128, 64, 32, 32), (64, 64, 3, 3), {"pad": 1}, "tensor"),
    "first_layer": ((128, 3, 32, 32), (64, 3, 3, 3), {"pad": 1}, "tensor"),
    "head": ((128, 64, 8, 8), (10, 64, 1, 1), {}, "direct"),
    "one_by_one_of_few_channels": ((128, 8, 8, 8), (64, 8, 1, 1), {}, "direct"),
    "one_by_one_stride_two": ((32, 64, 8, 8), (128, 64, 1, 1), {"stride": 2}, "tensor"),
    "groups_of_whole_chunks": ((32, 64, 8, 8), (64, 16, 3, 3), {"groups": 4}, "tensor"),
    "groups_of_no_whole_chunk": ((32, 48, 8, 8), (96, 12, 3, 3), {"groups": 4}, "tiled"),
    "filters_of_no_whole_chunk": ((32, 64, 8, 8), (68, 16, 3, 3), {"groups": 4}, "tiled"),
    "images_too_many_for_32_bits": ((2**13, 8, 2**9, 2**8), (16, 8, 3, 3), {}, "tiled"),
    "image_as_high_as_half_a_register": ((1, 8, 2**15 - 4, 1), (16, 8, 3, 1), {}, "tensor"),
    "image_too_high": ((1, 8, 2**15 - 3, 1), (16, 8, 3, 1), {}, "tiled"),
    "image_too_wide": ((1, 8, 1, 2**15 - 3), (16, 8, 1, 3), {}, "tiled"),
    "padding_too_wide": ((1, 8, 1, 100), (16, 8, 1, 3), {"pad": (0, 2**14)}, "tiled"),
    "volume": ((2, 16, 4, 5, 6), (16, 16, 3, 3, 3), {}, "tiled"),
}


@pytest.mark.parametrize(("x", "w", "options", "method"), RULE.values(), ids=RULE.keys())
def test_rule(x, w, options, method):
    z = conv_sizes(np.broadcast_to(0.0, x), np.empty(w), None, **options)
    for arch in (80, 86, 90):
        assert conv.weight_method(z, FLOAT16, arch) == method
    assert conv.weight_method(z, FLOAT16, 75) != "tensor"
    assert conv.weight_method(z, FLOAT32, 86) != "tensor"


@pytest.mark.parametrize(
    ("filters", "columns", "tile"),
    [
        (512, 4608, "large"),
        (128, 576, "large"),
        (64, 576, "flat"),
        (64, 1152, "flat"),
        (24, 96, "flat"),
        (256, 64, "tall"),
        (64, 27, "small"),
        (65, 65, "large"),
    ],
)
def test_the_tile_of_the_fewest_cycles(filters, columns, tile):
    assert conv_weight_tensor.tile_of(filters, columns) == TILES[tile]


@pytest.mark.parametrize("sm_count", [1, 4, 108, 132])
@pytest.mark.parametrize("tiles", [1, 5, 72, 144, 1000])
@pytest.mark.parametrize("pixels", [0, 1, 31, 33, 2048, 131072, 2**29])
def test_slices_are_whole_steps_and_cover_every_pixel_once(pixels, tiles, sm_count):
    for tile in TILES.values():
        slices, length = conv_weight_tensor.slices_of(pixels, tiles, tile, sm_count)
        assert length % tile.depth == 0
        assert (slices - 1) * length < max(pixels, 1) <= slices * length
        assert slices < 2**16
        run = conv_weight_tensor.run_of(pixels, tile)
        assert run % tile.depth == 0
        assert run > 0


def test_slices_fill_the_multiprocessors():
    """72 tiles on 2 x 132 places: 11 times 72 fill them three times to the last; few pixels want their sums written once."""
    assert conv_weight_tensor.slices_of(131072, 72, TILES["large"], 132)[0] == 11
    assert conv_weight_tensor.slices_of(2048, 144, TILES["large"], 132)[0] == 1
    assert 64 < conv_weight_tensor.slices_of(131072, 1, TILES["small"], 132)[0] <= 264
    assert conv_weight_tensor.slices_of(131072, 1, TILES["small"], 4)[0] == 8


# bfloat16, of which NumPy has no dtype -------------------------------------------------------------------------------


@pytest.mark.compilers
@pytest.mark.parametrize("name", TILES)
def test_bfloat16(name, rng):
    emulate = pytest.importorskip("emulate")
    from emulate.examples import bfloat16, from_bfloat16

    device, tile = emulate.EmulatedDevice("emulated"), TILES[name]
    case = CASES_OF_TILES["strides_and_dilations_differ"]
    (x, w, b, dy), z = arrays(rng, case, normal, "float32")
    x, dy = (np.ascontiguousarray(bfloat16(a).transpose(0, 2, 3, 1)) for a in (x, dy))
    expression = f"conv_backward_weight_tensor<bfloat16, {', '.join(map(str, tile))}>"
    text = source("conv_weight_tensor.cu")
    function = device.compile(text, "conv_weight_tensor.cu", (expression,), OPTIONS)[expression]
    partial = device.empty((2 * tile.shares, z.K, z.R * z.S, z.C), np.float32)
    pixels, shared = z.N * z.P * z.Q, tile.stages * (tile.filters + tile.columns) * tile.depth * 2
    length = -(-pixels // (2 * tile.depth)) * tile.depth
    args = *map(device.asarray, (dy, x)), partial, conv._shape(z), np.int32(length), np.int32(tile.depth)
    device.launch(function, (conv_weight_tensor._tiles(tile, z.K, z.R * z.S * z.C), 2, 1), (128, 1, 1), args, shared)
    got = device.asnumpy(partial).astype(float).sum(0).transpose(0, 2, 1).reshape(z.K, z.C, z.R, z.S)
    given = [from_bfloat16(a).transpose(0, 3, 1, 2) for a in (x, dy)]
    ref, scale = (wanted(a, w, b, c, z)[0] for a, c in (given, map(np.abs, given)))
    assert_close(got.astype(np.float32), ref, scale=scale, dtype="float32")
