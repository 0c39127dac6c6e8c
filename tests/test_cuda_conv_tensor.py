"""Convolution on tensor cores: which calls take them, and that they serve every case they are given."""

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, normal, whole
from conv_checks import channels_last, exact_backward, exact_forward, positive
from pairs import GPUS, STORED, pairs
from test_conv import CASES, SPECIAL
from test_cuda_conv import expected, off_by_one

import gpuconv
from gpuconv.cuda import conv, conv_tensor
from gpuconv.cuda.kernel import Kernel
from gpuconv.errors import GpuLaunchError
from gpuconv.shapes import conv_sizes

FLOAT16, FLOAT32 = np.dtype("float16"), np.dtype("float32")
DTYPES = ["float16", "float32"]

each_format = pytest.mark.parametrize("stored", STORED)

# Every tile on every case: the rule is set aside.
CASES_OF_TILES = {
    "tiles_across_images": ((3, 16, 7, 9), (40, 16, 3, 3), {"pad": 1}),
    "taps_that_end_inside_slices": ((2, 24, 8, 9), (72, 24, 3, 3), {"pad": 1}),
    "taps_that_fill_a_slice": ((2, 64, 5, 6), (64, 64, 2, 2), {}),
    "stride_two": ((2, 64, 11, 10), (136, 64, 3, 3), {"stride": 2, "pad": 1}),
    "one_by_one_stride_two": ((3, 32, 8, 7), (72, 32, 1, 1), {"stride": 2}),
    "strides_and_dilations_differ": ((2, 16, 12, 11), (24, 16, 3, 2), {"stride": (3, 2), "dilation": (2, 3), "pad": 2}),
    "dilation_shares_a_factor": ((2, 16, 13, 12), (16, 16, 3, 3), {"dilation": 2, "stride": 4, "pad": 1}),
    "channels_of_no_whole_chunk": ((2, 19, 6, 7), (21, 19, 3, 2), {"pad": 1}),
    "one_channel": ((2, 1, 9, 9), (17, 1, 3, 3), {"pad": 1}),
    "groups": ((2, 48, 6, 6), (24, 16, 3, 3), {"groups": 3, "pad": 1}),
    "groups_of_several_tiles": ((1, 144, 4, 5), (272, 72, 1, 1), {"groups": 2}),
    "largest_window": ((1, 8, 17, 16), (16, 8, 15, 15), {"pad": 3}),
    "phases_of_nothing": ((1, 16, 2, 7), (8, 16, 1, 1), {"stride": 3}),
    "many_images_of_one_pixel": ((300, 8, 1, 1), (16, 8, 3, 3), {"pad": 1}),
    "several_tiles": ((5, 8, 16, 15), (130, 8, 2, 3), {"stride": (1, 2), "pad": 1}),
    "empty_batch": ((0, 16, 7, 7), (16, 16, 3, 3), {}),
}
TILES = {name: getattr(conv_tensor, name.upper()) for name in ("large", "tall", "slim", "small")}
SPLIT_TILES = {f"split_{name}": TILES[name]._replace(depth=16) for name in ("slim", "small")}


def force(monkeypatch, *, forward="tensor", data="tensor", tile=None):
    """Let tensor cores serve every size, by this tile."""
    monkeypatch.setattr(conv, "forward_method", lambda *_: forward)
    monkeypatch.setattr(conv, "data_method", lambda *_: data)
    if tile is not None:
        monkeypatch.setattr(conv_tensor, "tile_of", lambda *_: tile)


def arrays(rng, case, make=whole, dtype="float16"):
    z = conv_sizes(np.empty(case[0]), np.empty(case[1]), None, **case[2])
    return [make(rng, shape, dtype) for shape in (*case[:2], (z.K,), z.out)], z


def computed(gpu, x, w, b, dy, options, *, stored="c_order"):
    """Return y and dx as NumPy arrays."""
    arrange = channels_last if stored == "channels_last" else np.asarray
    y, cache = gpuconv.conv_forward(*(a if a is None else gpu.array(a) for a in (arrange(x), w, b)), **options)
    dx, _, _ = gpuconv.conv_backward(gpu.array(arrange(dy)), cache, weight_grad=False)
    return gpu.numpy(y), gpu.numpy(dx)


def wanted(x, w, b, dy, z):
    return exact_forward(x, w, b, z), exact_backward(dy, x, w, z)[0]


@pairs(case=CASES_OF_TILES, tile=TILES | SPLIT_TILES, stored=STORED, gpu=GPUS)
def test_every_tile_serves_every_case(case, tile, stored, gpu, rng, monkeypatch):
    force(monkeypatch, tile=tile)
    dtype = "float32" if tile in SPLIT_TILES.values() else "float16"
    given, z = arrays(rng, case, dtype=dtype)
    for actual, want in zip(computed(gpu, *given, case[2], stored=stored), wanted(*given, z), strict=True):
        assert_same(actual, want, dtype=dtype)


ONE_GROUP = {name: case for name, case in CASES.items() if "groups" not in case[2]}


@pairs(case=ONE_GROUP, dtype=DTYPES, stored=STORED, gpu=GPUS)
def test_any_case_of_one_group_could_be_served(case, dtype, stored, gpu, rng, monkeypatch):
    force(monkeypatch)
    given, z = arrays(rng, case, dtype=dtype)
    for actual, want in zip(computed(gpu, *given, case[2], stored=stored), wanted(*given, z), strict=True):
        assert_same(actual, want, dtype=dtype)


# Filters as they lie in memory --------------------------------------------------------------------------------------

FILTERS = {  # the shape of w, groups -> kernels that make filters channels-last first, of y and dx in float16
    "whole_chunks": ((24, 16, 3, 3), 1, ()),
    "one_by_one": ((16, 24, 1, 1), 1, ()),
    "groups": ((48, 16, 2, 2), 3, ()),
    "channels_of_no_whole_chunk": ((16, 20, 3, 3), 1, ("conv_pad_tensor",) * 2),
    "filters_of_no_whole_chunk": ((20, 16, 3, 3), 1, ("conv_pad_tensor",)),
}


@pytest.mark.parametrize(("shape", "groups", "made_first"), FILTERS.values(), ids=FILTERS.keys())
def test_filters_channels_last_are_read_where_they_lie(shape, groups, made_first, rng, monkeypatch):
    emulate = pytest.importorskip("emulate")
    force(monkeypatch)
    given, z = arrays(rng, ((2, shape[1] * groups, 6, 5), shape, {"groups": groups}), normal)
    results = []
    for stored in (np.asarray, channels_last):
        device = emulate.EmulatedDevice("emulated")
        monkeypatch.setattr(conv, "device_of", lambda array, device=device: device)
        x, dy, b = (
            device.asarray(channels_last(given[0])),
            device.asarray(channels_last(given[3])),
            device.asarray(given[2]),
        )
        w = device.asarray(stored(given[1]))
        y = conv.conv_forward(x, w, b, z)
        dx, _, _ = conv.conv_backward(dy, x, w, z, input_grad=True, weight_grad=False, bias_grad=False)
        results.append([device.asnumpy(a).tobytes() for a in (y, dx)])
        names = [launch.kernel.partition("<")[0] for launch in device.launches]
    assert results[0] == results[1]
    of_images = names.count("conv_pad_tensor") - len(made_first)
    assert of_images == (shape[1] * groups % 8 > 0) + (shape[0] % 8 > 0)


# Numbers, types, special values -------------------------------------------------------------------------------------


@pairs(
    case={
        "body": ((2, 64, 6, 5), (32, 64, 3, 3), {"pad": 1}),
        "padded_channels": ((2, 3, 12, 9), (19, 3, 5, 5), {"pad": 2, "stride": 2}),
        "long": ((1, 512, 6, 6), (16, 512, 3, 3), {"pad": 1}),
        "short": ((2, 4, 6, 6), (64, 4, 1, 1), {}),
    },
    make={"normal": normal, "positive": positive},
    dtype=DTYPES,
    stored=STORED,
    gpu=GPUS,
    together=[("case", "make", "dtype")],
)
def test_within_the_tolerance(case, make, dtype, stored, gpu, rng, monkeypatch):
    force(monkeypatch)
    given, z = arrays(rng, case, make, dtype)
    refs, scales = wanted(*given, z), wanted(*absolute(*given), z)
    terms = (z.C // z.groups * z.R * z.S + 1, z.K // z.groups * z.R * z.S)
    results = zip(computed(gpu, *given, case[2], stored=stored), refs, scales, terms, strict=True)
    for actual, ref, scale, count in results:
        assert_close(actual, ref, scale=scale, dtype=dtype, terms=count, zero_mean=make is normal)


@pytest.mark.parametrize("terms", [4, 8, 12, 16, 32, 64, 576])
def test_equal_terms_of_float32_hold_the_rule(terms, gpu, rng, monkeypatch):
    """All that a run of equal products loses, it loses to one side."""
    force(monkeypatch)
    of_pixel = (1 + rng.random((1, 1, 16, 16))).astype("float32")
    of_filter = (1 + rng.random((64, 1, 1, 1))).astype("float32")
    x, w = np.tile(of_pixel, (1, terms, 1, 1)), np.tile(of_filter, (1, terms, 1, 1))
    y, _ = gpuconv.conv_forward(gpu.array(x), gpu.array(w))
    want = terms * of_pixel.astype("float64") * of_filter.astype("float64").reshape(1, 64, 1, 1)
    assert_close(gpu.numpy(y), want, scale=want, dtype="float32", terms=terms, zero_mean=False)


@pytest.mark.parametrize("value", [1e38, 3e34, 1e-20, 1 / 3, 1 + 2.0**-23, 2 - 2.0**-23])
def test_one_product_of_float32_is_rounded_like_few(value, gpu, monkeypatch):
    """What two parts of 11 bits leave out, 2^-21 at most (kernels/tensor.cuh), and an addition cuts off, 3 u."""
    force(monkeypatch)
    x, w = np.full((1, 4, 2, 2), value, "float32"), np.zeros((16, 4, 1, 1), "float32")
    w[:, 0] = np.linspace(0.25, 1, 16, dtype="float32")[:, None, None]
    y, _ = gpuconv.conv_forward(gpu.array(x), gpu.array(w))
    want = np.broadcast_to((x[0, 0, 0, 0].astype("float64") * w[:, 0, 0, 0])[None, :, None, None], (1, 16, 2, 2))
    np.testing.assert_allclose(gpu.numpy(y).astype("float64"), want, rtol=2.0**-21 + 3 * 2.0**-24)


@each_format
def test_without_bias(stored, gpu, rng):
    (x, w, b, dy), z = arrays(rng, CASES_OF_TILES["tiles_across_images"])
    y, _ = computed(gpu, x, w, None, dy, {"pad": 1}, stored=stored)
    assert_same(y, exact_forward(x, w, np.zeros_like(b), z), dtype="float16")


@pytest.mark.parametrize("dtype", DTYPES)
@each_format
def test_relu_in_the_epilogue(stored, dtype, gpu, rng):
    (x, w, b, _), z = arrays(rng, CASES_OF_TILES["taps_that_end_inside_slices"], dtype=dtype)
    x[0, 0, 0, 0], x[1, 0, 7, 8] = np.nan, -np.inf
    y = exact_forward(x, w, b, z)
    assert (y < 0).any()
    arrange = channels_last if stored == "channels_last" else np.asarray
    got = conv.convolve(*map(gpu.array, (arrange(x), w, b)), z, relu=True)
    assert_same(gpu.numpy(got), np.where(y < 0, 0, y), dtype=dtype)


@pairs(
    special=SPECIAL,
    options={"pad": {"pad": 1}, "stride": {"pad": 2, "stride": 2}, "dilation": {"dilation": 2, "pad": 2}},
    channels={"whole": 8, "padded": 2},
    dtype=DTYPES,
    gpu=GPUS,
)
def test_nan_and_infinity_spread_as_the_sums_say(special, options, channels, dtype, gpu, rng, monkeypatch):
    name, place, value = special
    force(monkeypatch)
    (x, w, b, dy), z = arrays(rng, ((2, channels, 6, 7), (channels, channels, 3, 3), options), dtype=dtype)
    array = {"x": x, "w": w, "b": b, "dy": dy}[name]
    array[tuple(min(i, n - 1) for i, n in zip(place, array.shape, strict=True))] = value
    for actual, want in zip(computed(gpu, x, w, b, dy, options), expected(x, w, b, dy, z)[:2], strict=True):
        assert_same(actual, want, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@each_format
def test_views_that_start_anywhere(stored, dtype, gpu, rng):
    """An address that is no multiple of 16 bytes: tensor cores get a copy."""
    (x, w, b, dy), z = arrays(rng, ((2, 16, 6, 6), (24, 16, 3, 3), {"pad": 1}), dtype=dtype)
    x_view, dy_view = (off_by_one(gpu, a, stored) for a in (x, dy))
    y, cache = gpuconv.conv_forward(x_view, *map(gpu.array, (w, b)), pad=1)
    got = [gpu.numpy(a) for a in (y, gpuconv.conv_backward(dy_view, cache, weight_grad=False)[0])]
    for actual, want in zip(got, wanted(x, w, b, dy, z), strict=True):
        assert_same(actual, want, dtype=dtype)


@pytest.mark.parametrize("order", ["reverse", "depth-reverse"])
def test_thread_order_does_not_matter(order, rng, monkeypatch):
    emulate = pytest.importorskip("emulate")
    case = CASES_OF_TILES["strides_and_dilations_differ"]
    given, z = arrays(rng, case, normal)
    results = []
    for settings in ({}, {"order": order, "block_order": "reverse"}):
        device = emulate.EmulatedDevice("emulated", **settings)
        monkeypatch.setattr(conv, "device_of", lambda array, device=device: device)
        x, w, b, dy = map(device.asarray, given)
        dx, _, _ = conv.conv_backward(dy, x, w, z, input_grad=True, weight_grad=False, bias_grad=False)
        results.append([device.asnumpy(a).tobytes() for a in (conv.conv_forward(x, w, b, z), dx)])
        kernels = {launch.kernel.partition("<")[0] for launch in device.launches}
        assert {"conv_forward_tensor", "conv_backward_data_tensor"} <= kernels
    assert results[0] == results[1]


# The rule -----------------------------------------------------------------------------------------------------------

RULE = {  # x, w, options -> kernels of y and dx in float16
    "body_of_a_net": ((128, 64, 32, 32), (64, 64, 3, 3), {"pad": 1}, ("tensor", "tensor")),
    "first_layer": ((128, 3, 32, 32), (64, 3, 3, 3), {"pad": 1}, ("tensor", "direct")),
    "head": ((128, 64, 8, 8), (10, 64, 1, 1), {}, ("direct", "tensor")),
    "one_by_one_stride_two": ((32, 64, 8, 8), (128, 64, 1, 1), {"stride": 2}, ("tensor", "tensor")),
    "groups_of_whole_chunks": ((32, 64, 8, 8), (64, 16, 3, 3), {"groups": 4}, ("tensor", "tensor")),
    "groups_of_no_whole_chunk": ((32, 48, 8, 8), (80, 12, 3, 3), {"groups": 4}, ("tiled", "direct")),
    "filters_of_no_whole_chunk": ((32, 64, 8, 8), (68, 16, 3, 3), {"groups": 4}, ("tensor", "tiled")),
    "largest_window": ((1, 16, 64, 64), (16, 16, 15, 15), {}, ("tensor", "tensor")),
    "window_too_tall": ((1, 16, 64, 64), (16, 16, 16, 3), {}, ("tiled", "tiled")),
    "window_too_wide": ((1, 16, 64, 64), (16, 16, 3, 16), {}, ("tiled", "tiled")),
    "longest_sum": ((4, 512, 6, 6), (512, 512, 4, 4), {}, ("tensor", "tensor")),
    "sum_too_long": ((4, 520, 6, 6), (512, 520, 4, 4), {}, ("tiled", "tensor")),
    "images_too_many_for_32_bits": ((2**13, 8, 2**9, 2**8), (16, 8, 3, 3), {}, ("tiled", "direct")),
    "results_too_many_for_32_bits": ((2**9, 16, 2**9, 2**8), (128, 16, 3, 3), {"pad": 1}, ("tiled", "tiled")),
    "image_too_large_for_32_bits": ((1, 64, 2**13, 2**12), (64, 64, 3, 3), {}, ("direct", "direct")),
    "too_many_phases": ((1, 16, 300, 300), (16, 16, 1, 1), {"stride": 300}, ("tensor", "direct")),
    "volume": ((2, 16, 4, 5, 6), (16, 16, 3, 3, 3), {}, ("tiled", "tiled")),
}


@pytest.mark.parametrize(("x", "w", "options", "methods"), RULE.values(), ids=RULE.keys())
def test_rule(x, w, options, methods):
    z = conv_sizes(np.broadcast_to(0.0, x), np.empty(w), None, **options)
    for arch in (80, 86, 90):
        assert (conv.forward_method(z, FLOAT16, arch), conv.data_method(z, FLOAT16, arch)) == methods
    for dtype, arch in ((FLOAT16, 75), (FLOAT32, 75), (FLOAT32, 86), (FLOAT32, 89), (np.dtype("float64"), 90)):
        assert "tensor" not in (conv.forward_method(z, dtype, arch), conv.data_method(z, dtype, arch))


def test_a_gpu_without_the_instructions_is_given_other_kernels(rng, monkeypatch):
    emulate = pytest.importorskip("emulate")
    given, z = arrays(rng, CASES_OF_TILES["tiles_across_images"])
    device = emulate.EmulatedDevice("emulated", arch=75)
    monkeypatch.setattr(conv, "device_of", lambda array: device)
    x, w, b, _ = map(device.asarray, given)
    y = conv.conv_forward(x, w, b, z)
    assert_same(device.asnumpy(y), exact_forward(*given[:3], z), dtype="float16")
    assert {launch.kernel.partition("<")[0] for launch in device.launches} == {
        "conv_pack_filters",
        "conv_forward_tiled",
    }


def test_a_kernel_is_refused_below_its_compute_capability():
    emulate = pytest.importorskip("emulate")
    device = emulate.EmulatedDevice("emulated", arch=75)
    message = r"^conv_pad_tensor needs compute capability 8\.0, emulated has 7\.5$"
    with pytest.raises(GpuLaunchError, match=message):
        Kernel.all["conv_pad_tensor"](device, (FLOAT16, True), 1, *[None] * 5)


@pytest.mark.parametrize(
    ("pixels", "columns", "times", "tile"),
    [
        (2**17, 128, 1, "large"),
        (2**17, 100, 1, "large"),
        (2**17, 64, 1, "tall"),
        (2**15, 192, 1, "tall"),
        (2**13, 64, 1, "small"),
        (132 * 128, 128, 1, "large"),
        (2**15, 64, 4, "tall"),
    ],
)
def test_the_tile_that_is_done_first(pixels, columns, times, tile):
    assert conv_tensor.tile_of(pixels, columns, times, 132, FLOAT16, 1) == TILES[tile]
