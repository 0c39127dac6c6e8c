"""Convolution, forward and backward, against the oracle, PyTorch and its own algebra."""

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, normal, whole
from conv_checks import arrays_of, by_oracle, channels_last, check_close, computed, positive
from hypothesis import given
from hypothesis import strategies as st
from pairs import DEVICES, DTYPES, STORED, pairs
from places import LAYOUTS

import gpuconv
from gpuconv import naive
from gpuconv.shapes import conv_sizes, is_channels_last

# Padding that is another before than behind: why the case exists: (x, w, options)
ONE_SIDED = {
    "padded_behind_with_stride": ((2, 3, 6, 8), (4, 3, 3, 3), {"pad": ((0, 1), (0, 1)), "stride": 2}),
    "padded_before": ((2, 3, 5, 6), (17, 3, 2, 3), {"pad": ((1, 0), (2, 0))}),
    "padded_behind_beyond_every_pixel": (
        (2, 3, 4, 3),
        (3, 3, 2, 2),
        {"pad": ((1, 5), (0, 4)), "stride": (2, 1), "dilation": (1, 3)},
    ),
    "one_by_one_padded_behind": ((2, 3, 5, 6), (4, 3, 1, 1), {"pad": ((0, 1), (2, 0))}),
    "depthwise_padded_behind": ((2, 5, 7, 8), (5, 1, 3, 3), {"groups": 5, "pad": ((0, 2), 1)}),
    "many_channels_padded_behind": ((1, 16, 5, 6), (17, 16, 3, 3), {"pad": ((0, 1), (1, 2)), "stride": (1, 2)}),
    "same_under_an_even_window": ((2, 3, 5, 4), (4, 3, 2, 4), {"pad": "same"}),
    "same_under_a_dilated_window": ((2, 4, 5, 6), (4, 2, 3, 2), {"pad": "same", "dilation": (2, 3), "groups": 2}),
}

# why the case exists: (x, w, options)
CASES = {
    **ONE_SIDED,
    "one_pixel": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "empty_batch": ((0, 3, 8, 8), (4, 3, 3, 3), {"pad": 1}),
    "batch_of_one": ((1, 3, 6, 6), (4, 3, 3, 3), {}),
    "odd_everything": ((3, 5, 7, 9), (2, 5, 3, 5), {"pad": (1, 2)}),
    "tall_filter": ((2, 3, 9, 5), (3, 3, 5, 1), {"pad": (2, 0)}),
    "wide_filter": ((2, 3, 5, 9), (3, 3, 1, 5), {"pad": (0, 2)}),
    "even_filter": ((2, 3, 7, 7), (3, 3, 2, 4), {"pad": 1}),
    "no_pad": ((2, 3, 8, 8), (4, 3, 3, 3), {}),
    "stride_drops_last_column": ((2, 3, 8, 8), (4, 3, 3, 3), {"stride": 2}),
    "stride_drops_two_rows": ((2, 2, 9, 8), (3, 2, 3, 3), {"stride": 4}),
    "stride_drops_with_pad": ((2, 2, 10, 9), (3, 2, 4, 4), {"stride": 3, "pad": 1}),
    "stride_larger_than_filter": ((2, 3, 11, 11), (3, 3, 2, 2), {"stride": 4}),
    "stride_larger_than_image": ((2, 3, 4, 4), (3, 3, 3, 3), {"stride": 7, "pad": 1}),
    "halving_3x3": ((1, 4, 14, 14), (4, 4, 3, 3), {"stride": 2, "pad": 1}),
    "filter_larger_than_image": ((1, 2, 2, 2), (3, 2, 5, 5), {"pad": 2}),
    "filter_fills_padded_image": ((2, 3, 4, 5), (3, 3, 6, 7), {"pad": 1}),
    "pad_larger_than_filter": ((2, 3, 4, 4), (2, 3, 1, 2), {"pad": 3}),
    "pad_larger_than_image": ((1, 2, 2, 3), (2, 2, 3, 3), {"pad": 5, "stride": 2}),
    "asymmetric_pairs": ((2, 4, 10, 13), (3, 4, 3, 2), {"stride": (2, 3), "pad": (0, 2), "dilation": (3, 1)}),
    "dilation": ((2, 3, 9, 9), (3, 3, 3, 3), {"dilation": 2, "pad": 2}),
    "dilation_shares_a_factor_with_stride": ((2, 3, 13, 12), (3, 3, 3, 3), {"dilation": 2, "stride": 4, "pad": 1}),
    "dilation_prime_to_stride": ((2, 3, 13, 12), (3, 3, 3, 3), {"dilation": 3, "stride": 2, "pad": 2}),
    "dilation_reaches_into_pad_only_at_ends": ((1, 2, 3, 3), (2, 2, 3, 3), {"dilation": 3, "pad": 3}),
    "dilation_leaves_pixels_to_the_padding_alone": (
        (2, 3, 3, 2),
        (9, 1, 1, 2),
        {"stride": (1, 2), "pad": (0, 1), "dilation": (1, 3), "groups": 3},
    ),
    "groups": ((2, 6, 7, 7), (4, 3, 3, 3), {"groups": 2, "pad": 1}),
    "groups_of_one_filter": ((2, 6, 5, 5), (3, 2, 3, 3), {"groups": 3}),
    "groups_with_stride": ((2, 6, 8, 9), (9, 2, 3, 2), {"groups": 3, "stride": (2, 1), "pad": 1}),
    "depthwise": ((2, 5, 7, 8), (5, 1, 3, 3), {"groups": 5, "pad": 1}),
    "depthwise_multiplier": ((2, 3, 7, 7), (6, 1, 3, 3), {"groups": 3, "pad": 1, "stride": 2}),
    "depthwise_dilated": ((1, 4, 9, 9), (4, 1, 3, 3), {"groups": 4, "dilation": 2, "pad": 2}),
    "depthwise_drops_last_column": ((1, 4, 8, 8), (4, 1, 3, 3), {"groups": 4, "stride": 2}),
    "depthwise_one_by_one": ((2, 4, 5, 5), (4, 1, 1, 1), {"groups": 4, "pad": 1, "stride": 2}),
    "first_layer_7x7": ((1, 3, 9, 9), (4, 3, 7, 7), {"pad": 3}),
    "first_layer_7x7_halving": ((1, 3, 12, 12), (4, 3, 7, 7), {"pad": 3, "stride": 2}),
    "one_channel": ((2, 1, 6, 6), (3, 1, 3, 3), {"pad": 1}),
    "one_filter": ((2, 4, 6, 6), (1, 4, 3, 3), {"pad": 1}),
    "one_row": ((2, 3, 1, 12), (3, 3, 1, 3), {"pad": (0, 1)}),
    "one_column": ((2, 3, 12, 1), (3, 3, 3, 1), {"pad": (1, 0), "stride": (2, 1)}),
    "one_row_padded": ((2, 3, 1, 5), (3, 3, 3, 3), {"pad": 1}),
    "primes": ((1, 7, 11, 13), (5, 7, 3, 3), {"stride": (1, 2), "pad": 1}),
    "wide_image": ((1, 1, 32, 256), (1, 1, 3, 3), {"stride": 2, "pad": 1}),
    "tall_image": ((1, 1, 256, 32), (1, 1, 3, 3), {"stride": 2, "pad": 1}),
    "channels_above_a_power_of_two": ((1, 65, 3, 4), (3, 65, 2, 2), {}),
    "filters_above_a_power_of_two": ((1, 3, 4, 4), (65, 3, 3, 3), {"pad": 1}),
    "long_sum": ((1, 64, 4, 4), (2, 64, 3, 3), {"pad": 1}),
    "many_small_images": ((37, 2, 3, 3), (2, 2, 2, 2), {}),
    "image_of_one_pixel_with_pad": ((3, 4, 1, 1), (4, 4, 3, 3), {"pad": 1}),
    **{f"3x3_on_{n}x{n}": ((1, 3, n, n), (2, 3, 3, 3), {"pad": 1}) for n in (2, 3, 4, 5, 6, 7, 8, 9)},
    **{
        f"1x1_stride_{s}_pad_{p}": ((2, 3, 5, 6), (4, 3, 1, 1), {"stride": s, "pad": p})
        for s in (1, 2, 3)
        for p in range(3)
    },
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # of an odd number of zeros, which makes a copy
@pytest.mark.parametrize("name", ONE_SIDED)
def test_one_sided_padding_is_that_of_a_framed_image(name, rng):
    torch = pytest.importorskip("torch")
    x, w, b, dy, z = arrays_of(ONE_SIDED[name], rng, "float64", normal)
    options = {**ONE_SIDED[name][2]}
    pad, frame = options.pop("pad"), [0, 0, 0, 0]
    if pad != "same":
        sides = [side if isinstance(side, tuple) else (side, side) for side in pad]
        pad, frame = 0, [*sides[1], *sides[0]]
    inputs = [torch.from_numpy(a).requires_grad_() for a in (x, w, b)]
    framed = torch.nn.functional.pad(inputs[0], frame)
    y = torch.nn.functional.conv2d(framed, *inputs[1:], padding=pad, **options)
    expected = y, *torch.autograd.grad(y, inputs, torch.from_numpy(dy))
    for actual, want in zip(by_oracle(x, w, b, dy, z), expected, strict=True):
        np.testing.assert_allclose(actual, want.detach().numpy(), rtol=1e-12, atol=1e-12)


# Against the oracle -------------------------------------------------------------------------------------------------


@pairs(
    case=CASES,
    make={"random": normal, "positive": positive, "integers": whole},
    stored=STORED,
    device=DEVICES,
    dtype=DTYPES,
)
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(case, make, stored, device, dtype, rng):
    """Bit for bit on integers; sums of positive numbers, which only grow, lose most to rounding."""
    x, w, b, dy, z = arrays_of(case, rng, dtype, make)
    last = stored == "channels_last"
    got = computed(device, (channels_last(x), w, b, channels_last(dy)) if last else (x, w, b, dy), case[2])
    if make is whole:
        for actual, expected in zip(got, by_oracle(x, w, b, dy, z), strict=True):
            assert_same(actual, expected, dtype=dtype)
    else:
        check_close(got, x, w, b, dy, z, zero_mean=make is normal)


@pytest.mark.parametrize("name", ["odd_everything", "groups", "depthwise", "halving_3x3", "1x1_stride_1_pad_0"])
def test_without_bias(name, device, dtype, rng):
    x, w, _, dy, z = arrays_of(CASES[name], rng, dtype, normal)
    check_close(computed(device, (x, w, None, dy), CASES[name][2]), x, w, None, dy, z)


@pytest.mark.parametrize("name", ["odd_everything", "groups", "depthwise", "empty_batch"])
def test_input_gradient_can_be_left_out(name, device, rng):
    *arrays, _ = arrays_of(CASES[name], rng, "float32", whole)
    y, _, dw, db = computed(device, arrays, CASES[name][2])
    without = computed(device, arrays, CASES[name][2], input_grad=False)
    assert without[1] is None
    for actual, expected in zip((without[0], *without[2:]), (y, dw, db), strict=True):
        assert_same(actual, expected)


@pytest.mark.parametrize("name", ["odd_everything", "groups", "depthwise", "empty_batch"])
def test_weight_gradient_can_be_left_out(name, device, rng):
    *arrays, _ = arrays_of(CASES[name], rng, "float32", whole)
    y, dx, _, db = computed(device, arrays, CASES[name][2])
    without = computed(device, arrays, CASES[name][2], weight_grad=False)
    assert without[2] is None
    for actual, expected in zip((*without[:2], without[3]), (y, dx, db), strict=True):
        assert_same(actual, expected)


@pytest.mark.parametrize("stride", [2, 3, 4, 5])
@pytest.mark.parametrize("size", range(6, 12))
def test_pixels_no_window_reaches_get_no_gradient(size, stride, device, rng):
    """Where the stride does not tile the image, its last rows and columns have gradient 0, and dx has x's shape."""
    x, w = whole(rng, (1, 2, size, size)), np.ones((1, 2, 3, 3))
    z = conv_sizes(x, w, None, stride=stride)
    dy = np.ones((1, 1, z.P, z.Q))
    _, dx, _, _ = computed(device, (x, w, None, dy), {"stride": stride})
    reached = np.zeros(size, dtype=int)
    for p in range(z.P):
        reached[p * stride : p * stride + 3] += 1
    assert_same(dx, np.broadcast_to(np.outer(reached, reached).astype(float), x.shape))


@pairs(
    layout=LAYOUTS,
    options={
        "no_pad": {},
        "pad": {"pad": 1},
        "stride": {"stride": 2, "pad": (1, 2)},
        "dilation": {"dilation": 2, "pad": 2},
    },
    groups={"one_group": 1, "groups": 2, "depthwise": 4},
    device=DEVICES,
)
def test_any_memory_layout(layout, options, groups, device, rng):
    """Layouts of all three arrays, with every kind of window: bit-equal results, in the memory format of x."""
    x, w, b = whole(rng, (2, 4, 6, 7)), whole(rng, (8, 4 // groups, 3, 3)), whole(rng, (8,))
    options = {**options, "groups": groups}
    z = conv_sizes(x, w, b, **options)
    dy = whole(rng, (z.N, z.K, z.P, z.Q))
    expected = by_oracle(x, w, b, dy, z)
    laid_out = [layout(a) for a in (x, w, b, dy)]
    odd_x, odd_w, odd_b, odd_dy = laid_out
    for arrays in ((odd_x, w, b, dy), (x, odd_w, odd_b, dy), (x, w, b, odd_dy), laid_out):
        got = computed(device, arrays, options)
        for actual, want in zip(got, expected, strict=True):
            assert_same(actual, want)
        assert is_channels_last(got[0]) == is_channels_last(arrays[0]) == is_channels_last(got[1])


@pytest.mark.parametrize("stored", ["c_order", "channels_last"])
def test_results_are_contiguous_in_the_format_of_x(stored, device, dtype, rng):
    x, w = normal(rng, (2, 4, 6, 7), dtype), normal(rng, (8, 4, 3, 3), dtype)
    dy = normal(rng, (2, 8, 4, 5), dtype)
    if stored == "channels_last":
        x, dy = channels_last(x), channels_last(dy)
    y, dx, dw, _ = computed(device, (x, w, None, dy), {})
    for array in (y, dx):
        assert (array.transpose(0, 2, 3, 1) if stored == "channels_last" else array).flags.c_contiguous
    assert dw.flags.c_contiguous


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_broadcast_views(axis, device, rng):
    """Elements that share one place in memory (stride 0) count as often as they appear."""
    shape, w_shape = [2, 3, 6, 6], [4, 3, 3, 3]
    x = np.broadcast_to(whole(rng, [1 if i == axis else n for i, n in enumerate(shape)]), shape)
    w = np.broadcast_to(whole(rng, [1 if i == axis else n for i, n in enumerate(w_shape)]), w_shape)
    dy = np.broadcast_to(whole(rng, (1, 1, 1, 1)), (2, 4, 4, 4))
    z = conv_sizes(x, w, None)
    got, expected = computed(device, (x, w, None, dy), {}), by_oracle(x, w, None, dy, z)
    for actual, want in zip(got[:3], expected[:3], strict=True):
        assert_same(actual, want)


# NaN and infinities -------------------------------------------------------------------------------------------------

SPECIAL = {
    "nan_in_x": ("x", (0, 1, 2, 3), np.nan),
    "nan_in_a_corner_of_x": ("x", (1, 0, 5, 6), np.nan),
    "inf_in_x": ("x", (0, 0, 0, 0), np.inf),
    "nan_in_w": ("w", (1, 0, 1, 1), np.nan),
    "inf_in_w_meets_the_padding": ("w", (1, 0, 0, 2), np.inf),
    "minus_inf_in_w": ("w", (0, 1, 2, 2), -np.inf),
    "nan_in_b": ("b", (1,), np.nan),
    "inf_in_b": ("b", (0,), -np.inf),
    "nan_in_dy": ("dy", (0, 1, 1, 1), np.nan),
    "inf_in_dy_meets_the_padding": ("dy", (1, 0, 0, 0), np.inf),
}


@pairs(
    special=SPECIAL,
    options={
        "no_pad": {},
        "pad": {"pad": 1},
        "stride": {"pad": 2, "stride": 2},
        "pad_and_stride_of_one_axis": {"pad": (0, 1), "stride": (1, 3)},
        "dilation": {"dilation": 2, "pad": 2},
    },
    groups={"one_group": 1, "depthwise": 2},
    stored=STORED,
    device=DEVICES,
)
def test_nan_and_infinity_spread_as_the_sums_say(special, options, groups, stored, device, rng):
    """Padding is the number 0 (0 * inf is NaN) in y and dw; dx sums over real outputs only."""
    name, place, value = special
    options, dtype = {**options, "groups": groups}, "float32"
    arrays = {"x": whole(rng, (2, 2, 6, 7), dtype), "w": whole(rng, (2, 2 // groups, 3, 3), dtype)}
    z = conv_sizes(*arrays.values(), None, **options)
    arrays |= {"b": whole(rng, (2,), dtype), "dy": whole(rng, (z.N, z.K, z.P, z.Q), dtype)}
    place = tuple(min(i, n - 1) for i, n in zip(place, arrays[name].shape, strict=True))
    arrays[name][place] = value
    if stored == "channels_last":
        for key in ("x", "dy"):
            arrays[key] = channels_last(arrays[key])
    got = computed(device, tuple(arrays.values()), options)
    for actual, expected in zip(got, by_oracle(*arrays.values(), z), strict=True):
        assert_same(actual, expected, dtype=dtype)


def test_float16_sums_do_not_overflow_on_the_way(device):
    """A sum that leaves float16's range and comes back is right: it is kept in float32."""
    x = np.full((1, 64, 4, 4), 256, np.float16)
    w = np.full((1, 64, 1, 1), 256, np.float16)
    w[0, 32:] = -256
    dy = np.full((1, 1, 4, 4), 256, np.float16)
    dy[..., 2:] = -256
    y, dx, dw, _ = computed(device, (x, w, None, dy), {})
    assert_same(y, np.zeros(y.shape, np.float16))
    assert_same(dw, np.zeros(dw.shape, np.float16))
    assert np.isinf(dx).all()  # 256 * 256 is beyond float16


# Second oracles, algebra, determinism -------------------------------------------------------------------------------

# Layers of real nets, with sums far longer than the loops can check.
LAYERS = {
    "first_layer_of_the_course": ((4, 3, 32, 32), (32, 3, 7, 7), {"pad": 3}),
    "resnet_stem": ((2, 3, 56, 56), (64, 3, 7, 7), {"pad": 3, "stride": 2}),
    "wide_and_shallow": ((4, 64, 32, 32), (64, 64, 3, 3), {"pad": 1}),
    "narrow_and_deep": ((4, 512, 8, 8), (64, 512, 3, 3), {"pad": 1}),
    "halving": ((4, 64, 32, 32), (128, 64, 3, 3), {"pad": 1, "stride": 2}),
    "one_by_one": ((4, 256, 16, 16), (64, 256, 1, 1), {}),
    "one_by_one_halving": ((4, 64, 17, 17), (128, 64, 1, 1), {"stride": 2}),
    "grouped": ((4, 64, 16, 16), (64, 8, 3, 3), {"pad": 1, "groups": 8}),
    "depthwise": ((4, 64, 33, 33), (64, 1, 3, 3), {"pad": 1, "stride": 2, "groups": 64}),
    "depthwise_7x7": ((2, 32, 28, 28), (32, 1, 7, 7), {"pad": 3, "groups": 32}),
    "dilated": ((2, 32, 31, 29), (32, 32, 3, 3), {"pad": 2, "dilation": 2}),
    "odd_sizes": ((3, 33, 31, 37), (35, 33, 3, 5), {"pad": (1, 2), "stride": (2, 1)}),
    "large_batch": ((300, 8, 8, 8), (8, 8, 3, 3), {"pad": 1}),
}


@pytest.mark.large
@pairs(layer=LAYERS, stored=STORED, device=DEVICES, dtype=DTYPES)
def test_layers_of_real_nets_match_pytorch(layer, stored, device, dtype, rng):
    """Outputs within the tolerance rule of PyTorch's float64 results."""
    torch = pytest.importorskip("torch")
    x, w, b, dy, z = arrays_of(layer, rng, dtype, normal)
    options = {"stride": z.stride, "padding": z.pad, "dilation": z.dilation, "groups": z.groups}

    def by_torch(*arrays):
        x, w, b, dy = (torch.from_numpy(a.astype(np.float64)) for a in arrays)
        inputs = [a.requires_grad_() for a in (x, w, b)]
        y = torch.nn.functional.conv2d(*inputs, **options)
        return [a.detach().numpy() for a in (y, *torch.autograd.grad(y, inputs, dy))]

    refs, scales = by_torch(x, w, b, dy), by_torch(*absolute(x, w, b, dy))
    if stored == "channels_last":
        x, dy = channels_last(x), channels_last(dy)
    got = computed(device, (x, w, b, dy), layer[2])
    for actual, ref, scale in zip(got, refs, scales, strict=True):
        assert_close(actual, ref, scale=scale, dtype=dtype)


@st.composite
def convolutions(draw):
    """Draw sizes and options of a small convolution that fits."""

    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    groups = draw(st.integers(1, 3))
    R, S = pair(1, 4)
    stride, pad, dilation = pair(1, 4), (pair(0, 4), pair(0, 4)), pair(1, 3)
    least = (max(1, dilation[0] * (R - 1) + 1 - sum(pad[0])), max(1, dilation[1] * (S - 1) + 1 - sum(pad[1])))
    H, W = draw(st.integers(least[0], least[0] + 6)), draw(st.integers(least[1], least[1] + 6))
    N, C, K = draw(st.integers(0, 3)), groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    options = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    return (N, C, H, W), (K, C // groups, R, S), options


@given(convolutions(), st.integers(0, 2**32), st.sampled_from(["c_order", "channels_last"]))
def test_random_sizes_match_oracle(device, case, seed, stored):
    x, w, b, dy, z = arrays_of(case, np.random.default_rng(seed), "float64", whole)
    if stored == "channels_last":
        x, dy = channels_last(x), channels_last(dy)
    for actual, expected in zip(computed(device, (x, w, b, dy), case[2]), by_oracle(x, w, b, dy, z), strict=True):
        assert_same(actual, expected)


@given(convolutions(), st.integers(0, 2**32))
def test_gradients_are_the_adjoints(device, case, seed):
    """<dy, conv(x, w)> = <dx, x> = <dw, w>, and sum(dy) = sum(db); exactly, on integers."""
    x, w, b, dy, _ = arrays_of(case, np.random.default_rng(seed), "float64", whole)
    y, dx, dw, db = computed(device, (x, w, np.zeros_like(b), dy), case[2])
    assert np.vdot(dy, y) == np.vdot(dx, x) == np.vdot(dw, w)
    assert np.array_equal(db, dy.sum(axis=(0, 2, 3)))


def test_groups_are_separate_convolutions(device, rng):
    x, w, b = whole(rng, (2, 6, 7, 7)), whole(rng, (4, 3, 3, 3)), whole(rng, (4,))
    y, _ = gpuconv.conv_forward(*map(device.array, (x, w, b)), groups=2)
    halves = [
        gpuconv.conv_forward(
            *(device.array(a) for a in (x[:, 3 * g : 3 * g + 3], w[2 * g : 2 * g + 2], b[2 * g : 2 * g + 2]))
        )
        for g in range(2)
    ]
    assert_same(device.numpy(y), np.concatenate([device.numpy(half) for half, _ in halves], axis=1))


def test_is_not_flipped(device):
    """Correlation, as in every framework: the filter is not turned round."""
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    w = np.array([[[[1.0, 0], [0, 0]]]])
    y, _ = gpuconv.conv_forward(*map(device.array, (x, w)))
    assert_same(device.numpy(y), x[:, :, :2, :2])


@pytest.mark.large
@pytest.mark.parametrize(
    "layer", ["wide_and_shallow", "halving", "depthwise", "grouped", "large_batch", "first_layer_of_the_course"]
)
@pytest.mark.parametrize("stored", ["c_order", "channels_last"])
def test_same_bits_every_time_and_for_any_number_of_threads(layer, stored, device, rng, monkeypatch):
    x, w, b, dy, _ = arrays_of(LAYERS[layer], rng, "float32", normal)
    if stored == "channels_last":
        x, dy = channels_last(x), channels_last(dy)
    runs = []
    for threads in ("1", "2", "3", "2"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        runs.append([a.tobytes() for a in computed(device, (x, w, b, dy), LAYERS[layer][2])])
    assert all(run == runs[0] for run in runs)


def test_one_image_alone_or_in_a_batch(device, rng):
    """An image's result does not depend on its neighbours: exactly, on integers."""
    x, w, b = whole(rng, (5, 3, 8, 8)), whole(rng, (4, 3, 3, 3)), whole(rng, (4,))
    together, _ = gpuconv.conv_forward(*map(device.array, (x, w, b)), pad=1)
    for n in range(5):
        alone, _ = gpuconv.conv_forward(*map(device.array, (x[n : n + 1], w, b)), pad=1)
        assert_same(device.numpy(alone), device.numpy(together)[n : n + 1])


def test_more_images_than_a_grid_axis_holds(device, rng):
    x, w = whole(rng, (70_001, 1, 1, 2)), whole(rng, (1, 1, 1, 2))
    dy = whole(rng, (70_001, 1, 1, 1))
    y, dx, dw, _ = computed(device, (x, w, None, dy), {})
    assert_same(y, x[..., :1] * w[..., 0] + x[..., 1:] * w[..., 1])
    assert_same(dx, dy * w)
    assert_same(dw, (dy * x).sum(axis=0, keepdims=True))


def test_memory_of_results_is_their_own(device, rng):
    """A second call with other numbers in the same arrays leaves the first results alone, and sees the new numbers."""
    x, w = whole(rng, (2, 3, 8, 8)), whole(rng, (3, 3, 3, 3))
    first, _ = gpuconv.conv_forward(device.array(x), device.array(w), pad=1)
    kept = device.numpy(first).copy()
    x += 1
    second, _ = gpuconv.conv_forward(device.array(x), device.array(w), pad=1)
    assert_same(device.numpy(first), kept)
    assert_same(device.numpy(second), naive.conv_forward(x, w, None, conv_sizes(x, w, None, pad=1)))


# Sums and absolute sums of the course's speed test (seed 231), computed once with float64 code that is not this one.
COURSE_SUMS = {
    "out": (55154.7760271, 2621193.12166),
    "dx": (2524.76308798, 1664528.26428),
    "dw": (2991.32751018, 81594.2235761),
}


@pytest.mark.large
def test_speed_test_of_the_course(device):
    draw = np.random.RandomState(231)
    x, w, b, dy = (draw.randn(*shape) for shape in ((100, 3, 31, 31), (25, 3, 3, 3), (25,), (100, 25, 16, 16)))
    y, dx, dw, db = computed(device, (x, w, b, dy), {"stride": 2, "pad": 1})
    for name, array in (("out", y), ("dx", dx), ("dw", dw)):
        np.testing.assert_allclose((array.sum(), np.abs(array).sum()), COURSE_SUMS[name], rtol=1e-11, err_msg=name)
    np.testing.assert_allclose(db.sum(), 2260.63574581, rtol=1e-11)
