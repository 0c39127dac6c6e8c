"""Convolution of float32 on tensor cores: by three products, which keep float32, and by one, rounded to TF32 by leave."""

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, assert_same_bits, normal, whole
from conv_checks import channels_last, exact_backward, exact_forward, positive
from pairs import GPUS, STORED, pairs
from test_conv import SPECIAL
from test_cuda_conv import expected, off_by_one
from test_cuda_conv_tensor import CASES_OF_TILES

import gpuconv
from gpuconv.cuda import conv, conv_tensor, conv_weight_tensor_float
from gpuconv.shapes import conv_sizes

FLOAT32 = np.dtype("float32")
PRODUCTS = [1, 3]
TILES = {name: getattr(conv_tensor, name.upper())._replace(depth=16) for name in ("large", "tall", "slim", "small")}
WEIGHT_TILES = {name: getattr(conv_weight_tensor_float, name.upper()) for name in ("large", "slim", "flat", "small")}
TILE_OF = {
    **{f"{name}_of_one": (1, TILES[name]) for name in TILES},
    **{f"{name}_of_three": (3, TILES[name]) for name in ("slim", "small")},
}
WEIGHT_TILE_OF = {
    **{f"{name}_of_one": (1, WEIGHT_TILES[name]) for name in WEIGHT_TILES},
    **{f"{name}_of_three": (3, WEIGHT_TILES[name]) for name in ("slim", "flat", "small")},
}

each_format = pytest.mark.parametrize("stored", STORED)
each_products = pytest.mark.parametrize("products", PRODUCTS)


def force(monkeypatch, products, *, tile=None, weight_tile=None):
    """Let tensor cores serve every size, by so many products and these tiles."""
    monkeypatch.setattr(conv, "products_of", lambda *_: products)
    monkeypatch.setattr(conv, "forward_method", lambda *_: "tensor")
    monkeypatch.setattr(conv, "data_method", lambda *_: "tensor")
    monkeypatch.setattr(conv, "weight_method", lambda *_: "tensor")
    if tile is not None:
        monkeypatch.setattr(conv_tensor, "tile_of", lambda *_: tile)
    if weight_tile is not None:
        monkeypatch.setattr(conv_weight_tensor_float, "tile_of", lambda *_: weight_tile)


def arrays(rng, case, make=whole):
    z = conv_sizes(np.empty(case[0]), np.empty(case[1]), None, **case[2])
    return [make(rng, shape, "float32") for shape in (*case[:2], (z.K,), z.out)], z


def computed(gpu, x, w, b, dy, options, *, stored="c_order"):
    """Return y, dx and dw as NumPy arrays."""
    arrange = channels_last if stored == "channels_last" else np.asarray
    y, cache = gpuconv.conv_forward(*(gpu.array(a) for a in (arrange(x), w, b)), **options)
    return [gpu.numpy(a) for a in (y, *gpuconv.conv_backward(gpu.array(arrange(dy)), cache)[:2])]


def wanted(x, w, b, dy, z):
    return exact_forward(x, w, b, z), *exact_backward(dy, x, w, z)


@pairs(case=CASES_OF_TILES, tile=TILE_OF, stored=STORED, gpu=GPUS)
def test_every_tile_serves_every_case(case, tile, stored, gpu, rng, monkeypatch):
    force(monkeypatch, tile[0], tile=tile[1])
    given, z = arrays(rng, case)
    for actual, want in zip(computed(gpu, *given, case[2], stored=stored), wanted(*given, z), strict=True):
        assert_same(actual, want, dtype="float32")


@pairs(case=CASES_OF_TILES, tile=WEIGHT_TILE_OF, stored=STORED, gpu=GPUS)
def test_every_tile_of_the_weight_gradient_serves_every_case(case, tile, stored, gpu, rng, monkeypatch):
    force(monkeypatch, tile[0], weight_tile=tile[1])
    (x, w, b, dy), z = arrays(rng, case)
    assert_same(computed(gpu, x, w, b, dy, case[2], stored=stored)[2], exact_backward(dy, x, w, z)[1], dtype="float32")


# Numbers, special values ----------------------------------------------------------------------------------------------

TF32 = 2.0**-11  # unit roundoff of its numbers

LONG = {  # of sums in y, dx and dw
    "of_576_terms": ((2, 64, 16, 8), (64, 64, 3, 3), {"pad": 1}),
    "of_6000_terms": ((1, 667, 16, 16), (16, 667, 3, 3), {"pad": 1}),
    "of_4800_pixels": ((3, 8, 40, 40), (16, 8, 3, 3), {"pad": 1}),
}


@pairs(
    case=LONG,
    products={"one": 1, "three": 3},
    make={"zero_mean": normal, "positive": positive},
    gpu=GPUS,
    together=[("case", "products", "make")],
)
def test_within_the_tolerance_where_tensor_cores_cut_off(case, products, make, gpu, rng, monkeypatch):
    """By three products the rule is that of float32, by one that of factors rounded to TF32."""
    force(monkeypatch, products)
    given, z = arrays(rng, case, make)
    refs, scales = wanted(*given, z), wanted(*absolute(*given), z)
    window = np.prod(case[1][2:])
    lengths = z.C * window + 1, z.K * window, z.N * z.P * z.Q
    got = computed(gpu, *given, case[2], stored="channels_last")
    for actual, ref, scale, terms in zip(got, refs, scales, lengths, strict=True):
        how = {"terms": terms, "zero_mean": make is normal, "factors": TF32 if products == 1 else 0.0}
        assert_close(actual, ref, scale=scale, dtype="float32", **how)


def test_one_product_rounds_factors_to_nearest(gpu, monkeypatch):
    """1 + 5/8 of what TF32 resolves is rounded up, 1 + 3/8 of it down, -(1 + 5/8) down."""
    force(monkeypatch, 1)
    step = np.float32(2.0**-10)
    numbers = np.array([1 + 0.625 * step, 1 + 0.375 * step, -1 - 0.625 * step, 3.0], np.float32)
    rounded = np.array([1 + step, 1, -1 - step, 3.0], np.float32)
    x = np.zeros((1, 4, 1, 4), np.float32)
    x[0, range(4), 0, range(4)] = numbers
    w = np.zeros((16, 4, 1, 1), np.float32)
    w[:4, :, 0, 0] = np.eye(4)
    dy = np.zeros((1, 16, 1, 4), np.float32)
    dy[0, :4, 0] = np.diag(numbers)
    y, dx, dw = computed(gpu, x, w, np.zeros(16, np.float32), dy, {})
    assert_same(y[0, :4, 0], np.diag(rounded))
    assert_same(dx[0, :, 0], np.diag(rounded))
    assert_same(dw[:4, :, 0, 0], np.diag(rounded * rounded))


@pairs(
    special=SPECIAL,
    options={"pad": {"pad": 1}, "stride": {"pad": 2, "stride": 2}, "dilation": {"dilation": 2, "pad": 2}},
    channels={"whole": 4, "padded": 2},
    products={"one": 1, "three": 3},
    gpu=GPUS,
)
def test_nan_and_infinity_spread_as_the_sums_say(special, options, channels, products, gpu, rng, monkeypatch):
    name, place, value = special
    force(monkeypatch, products)
    (x, w, b, dy), z = arrays(rng, ((2, channels, 6, 7), (channels, channels, 3, 3), options))
    array = {"x": x, "w": w, "b": b, "dy": dy}[name]
    array[tuple(min(i, n - 1) for i, n in zip(place, array.shape, strict=True))] = value
    for actual, want in zip(computed(gpu, x, w, b, dy, options), expected(x, w, b, dy, z)[:3], strict=True):
        assert_same(actual, want, dtype="float32")


# NaN of every kind: rounding by an addition to the bits would make numbers of the first and the second.
NANS = {
    "ones": 0xFFFFFFFF,
    "positive_ones": 0x7FFFFFFF,
    "last_bit": 0x7F800001,
    "quiet": 0x7FC00000,
    "minus": 0xFFC00000,
}


@pairs(bits=NANS, products={"one": 1, "three": 3}, gpu=GPUS)
def test_every_nan_stays_one(bits, products, gpu, rng, monkeypatch):
    force(monkeypatch, products)
    (x, w, b, dy), z = arrays(rng, ((1, 4, 5, 4), (16, 4, 3, 3), {"pad": 1}))
    x.view(np.uint32)[0, 1, 2, 3] = dy.view(np.uint32)[0, 2, 1, 1] = bits
    with np.errstate(invalid="ignore"):
        results = wanted(x, w, b, dy, z)
    for actual, want in zip(computed(gpu, x, w, b, dy, {"pad": 1}), results, strict=True):
        assert_same(actual, want, dtype="float32")


@pairs(products={"one": 1, "three": 3}, gpu=GPUS)
def test_numbers_next_to_the_largest_and_the_smallest(products, gpu, monkeypatch):
    """Those that TF32 would round to infinity, those whose parts are subnormal, and products that float32 just holds."""
    force(monkeypatch, products)
    largest, smallest = np.finfo(np.float32).max, np.float32(2.0**-126)
    x = np.zeros((1, 4, 1, 3), np.float32)
    x[0, 0, 0] = largest, 2.0**115, smallest
    w = np.zeros((16, 4, 1, 1), np.float32)
    w[0, 0], w[1, 0], w[2, 0] = 1, 0.5, -1
    y, cache = gpuconv.conv_forward(*map(gpu.array, (x, w)))
    dy = np.zeros((1, 16, 1, 3), np.float32)
    dy[0, 0] = 1, 2, 0.5
    dx, dw, _ = gpuconv.conv_backward(gpu.array(dy), cache)
    row = x[0, 0, 0]
    assert_same(gpu.numpy(y)[0, :3, 0], np.stack([row, row / 2, -row]))
    assert_same(gpu.numpy(dx)[0, 0, 0], dy[0, 0, 0])
    with np.errstate(over="ignore"):
        assert_same(gpu.numpy(dw)[0, 0, 0, 0], np.float32(row[0] + 2 * row[1]))


@each_format
@each_products
def test_relu_in_the_epilogue(stored, products, gpu, rng, monkeypatch):
    force(monkeypatch, products)
    (x, w, b, _), z = arrays(rng, CASES_OF_TILES["taps_that_end_inside_slices"])
    x[0, 0, 0, 0] = np.nan
    x[1, 3, 4, 4] = -np.inf
    with np.errstate(invalid="ignore"):
        y = exact_forward(x, w, b, z)
    assert (y < 0).any()
    arrange = channels_last if stored == "channels_last" else np.asarray
    got = conv.convolve(*map(gpu.array, (arrange(x), w, b)), z, relu=True)
    assert_same(gpu.numpy(got), np.where(y < 0, 0, y), dtype="float32")


@each_products
def test_views_that_start_anywhere(products, gpu, rng, monkeypatch):
    force(monkeypatch, products)
    (x, w, b, dy), z = arrays(rng, ((2, 8, 6, 6), (24, 8, 3, 3), {"pad": 1}))
    x_view, dy_view = (off_by_one(gpu, a, "channels_last") for a in (x, dy))
    y, cache = gpuconv.conv_forward(x_view, *map(gpu.array, (w, b)), pad=1)
    got = [gpu.numpy(a) for a in (y, *gpuconv.conv_backward(dy_view, cache)[:2])]
    for actual, want in zip(got, wanted(x, w, b, dy, z), strict=True):
        assert_same(actual, want, dtype="float32")


@pytest.mark.parametrize("order", ["reverse", "depth-reverse"])
@each_products
def test_thread_order_does_not_matter(order, products, rng, monkeypatch):
    emulate = pytest.importorskip("emulate")
    force(monkeypatch, products)
    given, z = arrays(rng, CASES_OF_TILES["strides_and_dilations_differ"], normal)
    results = []
    for settings in ({}, {"order": order, "block_order": "reverse"}):
        device = emulate.EmulatedDevice("emulated", **settings)
        monkeypatch.setattr(conv, "device_of", lambda array, device=device: device)
        x, w, b, dy = map(device.asarray, given)
        grads = conv.conv_backward(dy, x, w, z, input_grad=True, bias_grad=False)[:2]
        results.append([device.asnumpy(a).tobytes() for a in (conv.conv_forward(x, w, b, z), *grads)])
    assert results[0] == results[1]


# The rule -------------------------------------------------------------------------------------------------------------

BODY = (8, 64, 32, 32), (64, 64, 3, 3), {"pad": 1}
RULE = {  # x, w, options -> kernels of y, dx, dw by three products; by one
    "body_of_a_net": (*BODY, ("tensor",) * 3, ("tensor",) * 3),
    "first_layer": ((8, 3, 32, 32), (64, 3, 3, 3), {}, ("few", "direct", "tensor"), ("tensor", "direct", "tensor")),
    "terms_too_few": ((8, 14, 8, 8), (14, 14, 3, 3), {}, ("direct",) * 3, ("direct",) * 3),
    "terms_few": ((8, 64, 8, 8), (64, 64, 1, 1), {}, ("tiled", "tiled", "tensor"), ("tensor",) * 3),
    "terms_enough": ((8, 128, 8, 8), (128, 128, 1, 1), {}, ("tensor",) * 3, ("tensor",) * 3),
    "terms_as_many_as_may_be": (
        (8, 2**13, 8, 8),
        (16, 2**13, 1, 1),
        {},
        ("tensor", "tiled", "tensor"),
        ("tensor",) * 3,
    ),
    "terms_too_many": (
        (8, 2**13 + 4, 8, 8),
        (16, 2**13 + 4, 1, 1),
        {},
        ("tiled", "tiled", "tensor"),
        ("tiled", "tensor", "tensor"),
    ),
    "pixels_too_few": (
        (3, 64, 9, 9),
        (64, 64, 3, 3),
        {"pad": 1},
        ("tensor", "tensor", "tiled"),
        ("tensor", "tensor", "tiled"),
    ),
    "groups_of_whole_chunks": ((8, 64, 8, 8), (64, 32, 3, 3), {"groups": 2}, ("tensor",) * 3, ("tensor",) * 3),
    "groups_of_no_whole_chunk": ((8, 66, 8, 8), (66, 33, 3, 3), {"groups": 2}, ("tiled",) * 3, ("tiled",) * 3),
    "window_too_tall": (
        (8, 16, 64, 64),
        (16, 16, 16, 3),
        {},
        ("tiled", "tiled", "tensor"),
        ("tiled", "tiled", "tensor"),
    ),
    "volume": ((8, 64, 8, 8, 8), (64, 64, 3, 3, 3), {}, ("tiled",) * 3, ("tiled",) * 3),
}


def methods(z, arch, precision=None, dtype=FLOAT32):
    return tuple(
        method(z, dtype, arch, precision) for method in (conv.forward_method, conv.data_method, conv.weight_method)
    )


@pytest.mark.parametrize(("x", "w", "options", "by_three", "by_one"), RULE.values(), ids=RULE.keys())
def test_rule(x, w, options, by_three, by_one):
    z = conv_sizes(np.broadcast_to(0.0, x), np.broadcast_to(0.0, w), None, **options)
    assert {methods(z, arch) for arch in (80, 90, 100)} == {by_three}
    assert {methods(z, arch, "tf32") for arch in (80, 86, 89, 90, 100, 120)} == {by_one}
    plain = {methods(z, arch) for arch in (75, 86, 89, 120)}
    assert len(plain) == 1
    assert "tensor" not in plain.pop()


def test_products_of():
    assert [conv.products_of(FLOAT32, arch, None) for arch in (75, 80, 86, 89, 90, 100, 120)] == [0, 3, 0, 0, 3, 3, 0]
    assert [conv.products_of(FLOAT32, arch, "tf32") for arch in (80, 86, 89, 90, 100, 120)] == [1] * 6
    assert [conv.products_of(np.dtype(name), 90, None) for name in ("float16", "float64")] == [1, 0]


@pytest.mark.parametrize(
    ("filters", "columns", "products", "tile"),
    [(64, 64, 1, "small"), (64, 576, 1, "flat"), (128, 64, 1, "slim"), (128, 576, 1, "large"), (128, 576, 3, "slim")],
)
def test_tile_of_the_weight_gradient(filters, columns, products, tile):
    assert conv_weight_tensor_float.tile_of(filters, columns, products) == WEIGHT_TILES[tile]


@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize("pixels", [0, 1, 255, 256, 5000, 2**17 + 3, 2**28 - 1])
@pytest.mark.parametrize("tiles", [1, 9, 600])
def test_slices_are_whole_steps_and_cover_all_pixels(pixels, tiles, products):
    slices, length = conv_weight_tensor_float.slices_of(pixels, tiles, 16, products)
    assert length % 16 == 0
    assert (slices - 1) * length < max(1, pixels) <= slices * length
    assert slices < 2**16
    if products == 1:
        assert length <= 2**13
    elif pixels > 16:
        assert length / 16 <= 6 * pixels**0.5


# By name --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["images", "signals"])
def test_precision_goes_with_the_call_and_its_gradients(axes, gpu, rng):
    """Factors just beside a number of TF32 come out as that number."""
    shape = ((4, 16, 11, 11), (16, 16, 3, 3)) if axes == "images" else ((4, 16, 81), (16, 16, 9))
    x, w = (whole(rng, s, "float32") for s in shape)
    beside = [(a * np.float32(1 + 2.0**-13)).astype(np.float32) for a in (x, w)]
    y, cache = gpuconv.conv_forward(*map(gpu.array, beside), precision="tf32")
    exact, exact_cache = gpuconv.conv_forward(*map(gpu.array, (x, w)))
    assert cache.precision == "tf32"
    assert_same(gpu.numpy(y), gpu.numpy(exact))
    dy = whole(rng, y.shape, "float32")
    dy_beside = (dy * np.float32(1 + 2.0**-13)).astype(np.float32)
    got = [gpu.numpy(a) for a in gpuconv.conv_backward(gpu.array(dy_beside), cache)[:2]]
    want = [gpu.numpy(a) for a in gpuconv.conv_backward(gpu.array(dy), exact_cache)[:2]]
    for actual, expected_one in zip(got, want, strict=True):
        assert_same(actual, expected_one)
    like = gpu.array(np.empty_like(x)), gpu.array(np.empty_like(w))
    dx = gpuconv.ops.conv.input_gradient(gpu.array(dy_beside), gpu.array(beside[1]), like[0], precision="tf32")
    dw = gpuconv.ops.conv.weight_gradient(gpu.array(dy_beside), gpu.array(beside[0]), like[1], precision="tf32")
    assert_same(gpu.numpy(dx), want[0])
    assert_same(gpu.numpy(dw), want[1])


@pytest.mark.parametrize(
    "shapes", [((2, 8, 3, 4, 5), (16, 8, 2, 2, 2)), ((2, 5, 6, 7), (5, 1, 3, 3))], ids=["volume", "depthwise"]
)
def test_sizes_that_tensor_cores_do_not_serve_are_float32(shapes, gpu, rng):
    x, w = (normal(rng, shape, "float32") for shape in shapes)
    groups = x.shape[1] // w.shape[1]
    y, cache = gpuconv.conv_forward(*map(gpu.array, (x, w)), groups=groups, precision="tf32")
    plain, plain_cache = gpuconv.conv_forward(*map(gpu.array, (x, w)), groups=groups)
    dy = gpu.array(normal(rng, y.shape, "float32"))
    assert_same_bits(gpu.numpy(y), gpu.numpy(plain))
    for got, want in zip(gpuconv.conv_backward(dy, cache)[:2], gpuconv.conv_backward(dy, plain_cache)[:2], strict=True):
        assert_same_bits(gpu.numpy(got), gpu.numpy(want))
