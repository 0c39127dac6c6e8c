"""Which kernel a convolution of volumes runs on, and that every kernel serves every case it might be given."""

from math import prod

import numpy as np
import pytest
import test_conv_volume
from compare import absolute, assert_close, assert_same, normal, whole
from conv_checks import by_oracle, exact_backward, exact_forward
from pairs import DTYPES, GPUS, STORED, pairs
from places import LAYOUTS
from test_cuda_conv import FLOAT32, TILES, each_format, force, off_by_one

import gpuconv
from gpuconv import naive
from gpuconv.cuda import conv, conv_slices, conv_tiles
from gpuconv.cuda.kernel import Kernel
from gpuconv.cuda.layout import INT32, INT64
from gpuconv.shapes import conv_sizes, is_channels_last

CASES = {
    "everything_differs": (
        (2, 4, 4, 5, 3),
        (6, 2, 3, 2, 2),
        {"stride": (1, 2, 3), "pad": (1, 0, 2), "dilation": (1, 2, 3), "groups": 2},
    ),
    "strides_in_all": ((2, 3, 6, 5, 7), (2, 3, 2, 3, 1), {"stride": (3, 2, 2), "pad": 1}),
    "depthwise": ((2, 3, 3, 4, 3), (6, 1, 2, 3, 1), {"groups": 3}),
    "many_voxels": ((3, 2, 5, 7, 4), (3, 2, 3, 2, 1), {}),
    "no_volumes": ((0, 3, 4, 4, 4), (4, 3, 3, 3, 3), {"pad": 1}),
}


def arrays(rng, case, dtype="float32"):
    x, w, options = case
    z = conv_sizes(np.empty(x), np.empty(w), None, **options)
    return [whole(rng, shape, dtype) for shape in (x, w, (z.K,), z.out)], z


def computed(gpu, given, options, stored):
    """Return y, dx, dw, db as they come from the device."""
    x, w, b, dy = given
    y, cache = gpuconv.conv_forward(*map(gpu.array, (LAYOUTS[stored](x), w, b)), **options)
    return [y, *gpuconv.conv_backward(gpu.array(LAYOUTS[stored](dy)), cache)]


def expected(x, w, b, dy, z):
    return naive.conv_forward(x, w, b, z), *naive.conv_backward(dy, x, w, z, input_grad=True, bias_grad=True)


@pairs(
    case=CASES, index={"32_bits": INT32, "64_bits": INT64}, slices={"one": 0, "many": 2**18}, stored=STORED, gpu=GPUS
)
def test_every_index_and_number_of_slices(case, index, slices, stored, gpu, rng, monkeypatch):
    monkeypatch.setattr(conv, "_index", lambda _: index)
    monkeypatch.setattr(conv_slices, "_PARTIAL_SUMS", slices)
    monkeypatch.setattr(conv_slices, "_LEAST_PIXELS", 5)
    given, z = arrays(rng, case)
    got = computed(gpu, given, case[2], stored)
    for actual, want in zip(got, expected(*given, z), strict=True):
        assert_same(gpu.numpy(actual), want, dtype="float32")
    if stored == "channels_last" and z.N:
        assert is_channels_last(got[0])
        assert is_channels_last(got[1])


@pairs(case=CASES, stored=STORED, dtype=DTYPES, gpu=GPUS)
def test_every_dtype(case, stored, dtype, gpu, rng):
    given, z = arrays(rng, case, dtype)
    for actual, want in zip(computed(gpu, given, case[2], stored), expected(*given, z), strict=True):
        assert_same(gpu.numpy(actual), want, dtype=dtype)


LAUNCHED = {  # of y, dx, dw
    "plain": (
        CASES["everything_differs"],
        ["conv_volume_forward_direct"],
        ["conv_volume_backward_data_direct"],
        ["conv_volume_backward_weight_direct", "conv_backward_sum"],
    ),
    "tiled": (
        ((1, 16, 3, 4, 5), (16, 16, 2, 2, 2), {}),
        ["conv_pack_filters", "conv_volume_forward_tiled"],
        ["conv_pack_filters", "conv_volume_backward_data_tiled"],
        ["conv_volume_backward_weight_tiled", "conv_backward_sum"],
    ),
    "few": (
        ((1, 2, 3, 4, 5), (16, 2, 3, 3, 3), {"pad": 1}),
        ["conv_pack_filters", "conv_volume_forward_few"],
        ["conv_volume_backward_data_direct"],
        ["conv_volume_backward_weight_tiled", "conv_backward_sum"],
    ),
}


@pytest.mark.parametrize(("case", "of_y", "of_dx", "of_dw"), LAUNCHED.values(), ids=LAUNCHED.keys())
@pytest.mark.parametrize("stored", STORED)
def test_kernels_launched(case, of_y, of_dx, of_dw, stored, gpu, rng, monkeypatch):
    """Gradients that nobody asked for launch nothing."""
    launches = []
    launch = Kernel.__call__

    def noted(kernel, *args, **options):
        launches.append(kernel.name)
        return launch(kernel, *args, **options)

    (x, w, b, dy), _ = arrays(rng, case)
    x, w, b, dy = map(gpu.array, (LAYOUTS[stored](x), w, b, LAYOUTS[stored](dy)))
    monkeypatch.setattr(Kernel, "__call__", noted)
    bias = "conv_backward_bias_last" if stored == "channels_last" else "conv_backward_bias_planar"
    _, cache = gpuconv.conv_forward(x, w, b, **case[2])
    assert launches == of_y
    for wanted, names in {"input": of_dx, "weight": of_dw, "bias": []}.items():
        launches.clear()
        gpuconv.conv_backward(dy, cache, input_grad=wanted == "input", weight_grad=wanted == "weight")
        assert sorted(launches) == sorted([*names, bias, "conv_backward_sum"])


@pytest.mark.parametrize(
    ("x", "w", "options", "index"),
    [
        ((1, 1, 2**10, 2**10, 2**10), (1, 1, 1, 1, 1), {}, INT32),
        ((2, 1, 2**10, 2**10, 2**10), (1, 1, 1, 1, 1), {}, INT64),  # x and y
        ((1, 1, 2**10, 2**10, 2**9), (4, 1, 1, 1, 1), {}, INT64),  # y alone
        ((1, 4, 2**10, 2**10, 2**9), (1, 4, 1, 1, 1), {"stride": 2}, INT64),  # x alone
        ((1, 2**8, 2**3, 2**3, 2**3), (2**14, 2**8, 8, 8, 8), {}, INT64),  # w alone
        ((1, 1, 1, 1, 1), (1, 1, 1, 1, 1), {"pad": (2**30, 0, 0), "stride": (2**31 - 1, 1, 1)}, INT64),
        ((1, 1, 1, 1, 1), (1, 1, 2, 1, 1), {"pad": (2**30 - 1, 0, 0), "dilation": (2**30, 1, 1)}, INT64),
        ((1, 1, 1, 1, 1), (1, 1, 1, 1, 2), {"pad": (0, 0, 2**30 - 1), "dilation": (1, 1, 2**30)}, INT64),
    ],
)
def test_index_counts_everything(x, w, options, index):
    z = conv_sizes(np.broadcast_to(0.0, x), np.broadcast_to(0.0, w), None, **options)
    assert conv._index(z) == index
    if index is INT32:
        assert max(prod(x), prod(z.out), prod(w)) < 2**31


# The rule -----------------------------------------------------------------------------------------------------------

RULE = {  # x, w, options -> kernels of y, dx, dw
    "body_of_a_net": ((2, 32, 32, 32, 32), (64, 32, 3, 3, 3), {"pad": 1}, ("tiled", "tiled", "tiled")),
    "scans_of_one_channel": ((2, 1, 64, 64, 64), (16, 1, 3, 3, 3), {"pad": 1}, ("few", "direct", "tiled")),
    "seven_channels": ((2, 7, 8, 8, 8), (16, 7, 3, 3, 3), {}, ("few", "direct", "tiled")),
    "eight_channels": ((2, 8, 8, 8, 8), (16, 8, 3, 3, 3), {}, ("tiled", "direct", "tiled")),
    "fifteen_filters": ((2, 16, 8, 8, 8), (15, 16, 3, 3, 3), {}, ("direct", "tiled", "direct")),
    "fifteen_channels": ((2, 15, 8, 8, 8), (16, 15, 3, 3, 3), {}, ("tiled", "direct", "tiled")),
    "fifteen_taps": ((2, 1, 8, 8, 8), (16, 1, 3, 5, 1), {}, ("few", "direct", "direct")),
    "seven_filters": ((2, 16, 8, 8, 8), (7, 16, 3, 3, 3), {}, ("direct", "direct", "direct")),
    "halving": ((2, 32, 16, 16, 16), (64, 32, 3, 3, 3), {"stride": 2}, ("tiled", "tiled", "tiled")),
    "grouped": ((2, 64, 8, 8, 8), (64, 16, 3, 3, 3), {"groups": 4}, ("tiled", "tiled", "tiled")),
    "depthwise": ((2, 64, 8, 8, 8), (64, 1, 3, 3, 3), {"groups": 64}, ("direct", "direct", "direct")),
    "longest_table": ((1, 1, 9, 9, 9), (16, 1, 8, 8, 8), {}, ("few", "direct", "tiled")),
    "window_too_large_for_the_table": ((1, 1, 9, 9, 9), (16, 1, 9, 8, 8), {}, ("direct", "direct", "tiled")),
    "volume_too_large_for_32_bits": ((1, 64, 2**9, 2**8, 2**7), (64, 64, 1, 1, 1), {}, ("direct",) * 3),
    "result_too_large_for_32_bits": ((1, 16, 2**8, 2**8, 2**8), (64, 16, 1, 1, 1), {}, ("direct",) * 3),
    "padding_too_deep_for_32_bits": ((1, 64, 1, 9, 9), (64, 64, 3, 3, 3), {"pad": (2**18, 0, 0)}, ("direct",) * 3),
    "half_of_what_32_bits_allow": ((1, 16, 2**8, 2**8, 2**9), (16, 16, 1, 1, 1), {}, ("tiled",) * 3),
    "many_volumes_of_half_of_it": ((9, 16, 2**8, 2**8, 2**9), (16, 16, 1, 1, 1), {}, ("tiled",) * 3),
    "most_phases": ((1, 16, 1, 1, 1), (16, 16, 1, 1, 1), {"stride": (65535, 257, 255)}, ("tiled",) * 3),
    "phases_in_depth": ((1, 16, 1, 1, 1), (16, 16, 1, 1, 1), {"stride": (65536, 1, 1)}, ("tiled", "direct", "tiled")),
    "phases_in_planes": ((1, 16, 1, 1, 1), (16, 16, 1, 1, 1), {"stride": (1, 256, 256)}, ("tiled", "direct", "tiled")),
}


@pytest.mark.parametrize(("x", "w", "options", "methods"), RULE.values(), ids=RULE.keys())
def test_rule(x, w, options, methods):
    z = conv_sizes(np.broadcast_to(0.0, x), np.broadcast_to(0.0, w), None, **options)
    assert (
        conv.forward_method(z, FLOAT32, 86),
        conv.data_method(z, FLOAT32, 86),
        conv.weight_method(z, FLOAT32, 86),
    ) == methods


# Every kernel on every case -----------------------------------------------------------------------------------------

# Beside the cases of every backend: phases of a stride of which some have no tap, no voxel, or fewer than others.
OF_TILES = {
    **test_conv_volume.CASES,
    "strides_prime_to_dilations": (
        (2, 3, 6, 5, 7),
        (3, 3, 3, 2, 3),
        {"stride": (3, 2, 2), "dilation": (2, 3, 1), "pad": (1, 2, 1)},
    ),
    "strides_larger_than_the_volume": ((2, 2, 2, 1, 4), (3, 2, 1, 1, 2), {"stride": (5, 4, 3)}),
    "steps_over_several_volumes": ((23, 3, 2, 3, 2), (2, 3, 2, 2, 1), {}),
    "steps_over_several_planes": ((3, 2, 9, 2, 2), (3, 2, 2, 1, 1), {}),
}


@pytest.mark.long
@pairs(case=OF_TILES, stored=STORED, gpu=GPUS)
def test_tiled_kernels_serve_every_case(case, stored, gpu, rng, monkeypatch):
    force(monkeypatch, forward="tiled", data="tiled", weight="tiled")
    given, z = arrays(rng, case)
    for actual, want in zip(computed(gpu, given, case[2], stored), expected(*given, z), strict=True):
        assert_same(gpu.numpy(actual), want, dtype="float32")


# The kernel keeps the places of a window's voxels in a table: sums beyond its length are not its cases.
SHORT_SUMS = {name: case for name, case in OF_TILES.items() if prod(case[1][1:]) <= conv._TABLE}


@pytest.mark.long
@pairs(case=SHORT_SUMS, stored=STORED, gpu=GPUS)
def test_few_channels_kernel_serves_every_short_sum(case, stored, gpu, rng, monkeypatch):
    force(monkeypatch, forward="few")
    (x, w, b, _), z = arrays(rng, case)
    y, _ = gpuconv.conv_forward(*map(gpu.array, (LAYOUTS[stored](x), w, b)), **case[2])
    assert_same(gpu.numpy(y), naive.conv_forward(x, w, b, z), dtype="float32")


# More voxels, filters and channels than one tile of any kind, none of them a multiple of one.
SEVERAL_TILES = {
    "odd": ((3, 21, 5, 6, 7), (131, 21, 2, 3, 1), {"pad": (1, 1, 0), "stride": (1, 1, 2)}),
    "packs_of_four": ((2, 20, 6, 6, 8), (132, 20, 2, 2, 1), {"pad": (1, 1, 0), "stride": (2, 1, 2)}),
    "groups": ((2, 24, 6, 5, 8), (144, 12, 3, 1, 2), {"groups": 2, "dilation": (2, 1, 3)}),
    "whole_steps": ((2, 32, 4, 3, 8), (144, 32, 2, 1, 2), {"pad": (1, 0, 1), "stride": (2, 1, 1)}),
}


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
    (x, w, b, dy), z = arrays(rng, case)
    y, dx, *_ = computed(gpu, (x, w, b, dy), case[2], stored)
    assert_same(gpu.numpy(y), exact_forward(x, w, b, z), dtype="float32")
    assert_same(gpu.numpy(dx), exact_backward(dy, x, w, z)[0], dtype="float32")


@pairs(
    case=SEVERAL_TILES,
    tile={"large": conv_tiles.LARGE_WEIGHT, "flat": conv_tiles.FLAT_WEIGHT, "small": conv_tiles.SMALL_WEIGHT},
    stored=STORED,
    gpu=GPUS,
    together=[("case", "tile", "stored")],
)
def test_several_tiles_of_the_weight_gradient(case, tile, stored, gpu, rng, monkeypatch):
    force(monkeypatch, weight="tiled")
    monkeypatch.setattr(conv, "weight_tile_of", lambda *_: tile)
    (x, w, b, dy), z = arrays(rng, case)
    dw = computed(gpu, (x, w, b, dy), case[2], stored)[2]
    assert_same(gpu.numpy(dw), exact_backward(dy, x, w, z)[1], dtype="float32")


def test_the_fast_oracle_is_the_oracle(rng):
    for name in ("everything_differs", "strides_in_all", "depthwise"):
        (x, w, b, dy), z = arrays(rng, CASES[name])
        y, dx, dw, _ = expected(x, w, b, dy, z)
        assert_same(exact_forward(x, w, b, z), y)
        for actual, want in zip(exact_backward(dy, x, w, z), (dx, dw), strict=True):
            assert_same(actual, want)


LIMITS = {  # layers as nets have them, which the rule itself sends to tiles
    "one_channel": ((2, 1, 5, 6, 7), (16, 1, 3, 3, 3), {"pad": 1}),
    "seven_channels": ((2, 7, 4, 5, 6), (16, 7, 3, 3, 3), {"pad": 1, "stride": (1, 2, 2)}),
    "eight_channels_sixteen_filters": ((2, 8, 4, 5, 6), (16, 8, 3, 2, 3), {"pad": 1}),
    "sixteen_channels_eight_filters": ((2, 16, 4, 5, 6), (8, 16, 3, 2, 3), {"pad": 1, "stride": 2}),
    "odd_channels_and_filters": ((2, 17, 4, 5, 3), (19, 17, 3, 1, 2), {"stride": 2, "pad": (1, 0, 1)}),
    "groups": ((2, 48, 3, 4, 5), (48, 16, 2, 2, 2), {"groups": 3, "dilation": (1, 2, 2)}),
}


@pairs(case=LIMITS, stored=STORED, dtype=DTYPES, gpu=GPUS)
def test_layers_that_the_rule_sends_to_tiles(case, stored, dtype, gpu, rng):
    (x, w, b, dy), z = arrays(rng, case, dtype)
    narrow = np.dtype(dtype), 80
    assert {conv.forward_method(z, *narrow), conv.data_method(z, *narrow), conv.weight_method(z, *narrow)} != {"direct"}
    y, dx, dw, db = computed(gpu, (x, w, b, dy), case[2], stored)
    bias = dy.sum((0, 2, 3, 4), dtype=np.float64)
    for actual, want in zip(
        (y, dx, dw, db), (exact_forward(x, w, b, z), *exact_backward(dy, x, w, z), bias), strict=True
    ):
        assert_same(gpu.numpy(actual), want, dtype=dtype)


# Numbers, types, special values -------------------------------------------------------------------------------------


@pairs(forward=["tiled", "few"], stored=STORED, dtype=DTYPES, gpu=GPUS)
def test_every_dtype_within_the_tolerance(forward, stored, dtype, gpu, rng, monkeypatch):
    case = (2, 9, 5, 4, 7), (17, 9, 3, 2, 3), {"pad": 1, "stride": (1, 1, 2)}
    force(monkeypatch, forward=forward, data="tiled", weight="tiled")
    z = arrays(rng, case)[1]
    x, w, b, dy = (normal(rng, shape, dtype) for shape in (*case[:2], (z.K,), z.out))

    def reference(x, w, b, dy):
        return exact_forward(x, w, b, z), *exact_backward(dy, x, w, z)

    refs, scales = reference(x, w, b, dy), reference(*absolute(x, w, b, dy))
    for actual, ref, scale in zip(computed(gpu, (x, w, b, dy), case[2], stored), refs, scales, strict=False):
        assert_close(gpu.numpy(actual), ref, scale=scale, dtype=dtype)


@pairs(
    special=test_conv_volume.SPECIAL,
    options={"pad": {"pad": 1}, "stride": {"pad": 2, "stride": (2, 1, 2)}, "dilation": {"dilation": 2, "pad": 2}},
    forward=["tiled", "few"],
    stored=STORED,
    gpu=GPUS,
)
def test_nan_and_infinity_spread_as_the_sums_say(special, options, forward, stored, gpu, rng, monkeypatch):
    """In padding as well: it is the number 0 in y and dw, and not there in dx, for which infinite filters are looked for."""
    name, place, value = special
    force(monkeypatch, forward=forward, data="tiled", weight="tiled")
    (x, w, b, dy), z = arrays(rng, ((2, 2, 4, 5, 6), (2, 2, 3, 3, 3), options))
    array = {"x": x, "w": w, "b": b, "dy": dy}[name]
    array[tuple(min(i, n - 1) for i, n in zip(place, array.shape, strict=True))] = value
    got = computed(gpu, (x, w, b, dy), options, stored)
    for actual, want in zip(got, by_oracle(x, w, b, dy, z), strict=True):
        assert_same(gpu.numpy(actual), want, dtype="float32")


@each_format
def test_views_that_start_anywhere(stored, gpu, rng, monkeypatch):
    """An address that is no multiple of 16 bytes: packs must be read number by number."""
    force(monkeypatch, forward="tiled", data="tiled", weight="tiled")
    (x, w, b, dy), z = arrays(rng, ((2, 8, 3, 4, 6), (20, 8, 3, 3, 3), {"pad": 1}))
    x_view, dy_view = (off_by_one(gpu, a, stored) for a in (x, dy))
    y, cache = gpuconv.conv_forward(x_view, *map(gpu.array, (w, b)), pad=1)
    got = [gpu.numpy(a) for a in (y, *gpuconv.conv_backward(dy_view, cache)[:2])]
    for actual, want in zip(got, (exact_forward(x, w, b, z), *exact_backward(dy, x, w, z)), strict=True):
        assert_same(actual, want, dtype="float32")


@pytest.mark.parametrize("order", ["reverse", "depth-reverse"])
def test_thread_order_does_not_matter(order, rng, monkeypatch):
    """Same bits whatever order the threads of a block run in."""
    emulate = pytest.importorskip("emulate")
    case = (2, 9, 3, 4, 5), (17, 9, 3, 2, 3), {"pad": 1}
    z = arrays(rng, case)[1]
    given = [normal(rng, shape, "float32") for shape in (*case[:2], (z.K,), z.out)]
    force(monkeypatch, forward="tiled", data="tiled", weight="tiled")
    results = []
    for settings in ({}, {"order": order, "block_order": "reverse"}):
        device = emulate.EmulatedDevice("emulated", **settings)
        monkeypatch.setattr(conv, "device_of", lambda array, device=device: device)
        x, w, b, dy = map(device.asarray, given)
        grads = conv.conv_backward(dy, x, w, z, input_grad=True, bias_grad=True)
        results.append([device.asnumpy(a).tobytes() for a in (conv.conv_forward(x, w, b, z), *grads)])
    assert results[0] == results[1]
