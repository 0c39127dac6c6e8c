"""Convolution of volumes, forward and backward, against the oracle, PyTorch and its own algebra."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from compare import assert_same, assert_same_bits, normal, whole
from conv_checks import arrays_of, by_oracle, channels_last, check_close, computed, positive
from hypothesis import given
from hypothesis import strategies as st
from pairs import DEVICES, DTYPES, STORED, pairs
from places import LAYOUTS

import gpuconv
from gpuconv.cpu import conv_volume
from gpuconv.errors import ShapeError
from gpuconv.shapes import conv_sizes, is_channels_last

pytestmark = pytest.mark.long  # the loops of the definition, in three more axes

# why the case exists: (x, w, options)
CASES = {
    "one_voxel": ((1, 1, 1, 1, 1), (1, 1, 1, 1, 1), {}),
    "empty_batch": ((0, 3, 4, 4, 4), (4, 3, 3, 3, 3), {"pad": 1}),
    "odd_everything": ((3, 5, 4, 5, 7), (2, 5, 2, 3, 5), {"pad": (1, 0, 2)}),
    "deep_filter": ((2, 3, 7, 3, 4), (3, 3, 5, 1, 1), {"pad": (2, 0, 0)}),
    "even_filter": ((2, 2, 5, 5, 5), (3, 2, 2, 4, 2), {"pad": 1}),
    "no_pad": ((2, 3, 4, 5, 6), (4, 3, 3, 3, 3), {}),
    "stride_drops_last_plane": ((2, 2, 6, 5, 5), (3, 2, 3, 3, 3), {"stride": 2}),
    "stride_drops_two_planes": ((2, 2, 8, 4, 4), (3, 2, 2, 2, 2), {"stride": (4, 1, 2)}),
    "stride_larger_than_filter": ((2, 2, 9, 5, 5), (3, 2, 2, 2, 2), {"stride": 3}),
    "stride_larger_than_volume": ((2, 3, 3, 3, 3), (3, 3, 3, 3, 3), {"stride": 7, "pad": 1}),
    "filter_larger_than_volume": ((1, 2, 2, 2, 2), (3, 2, 5, 5, 5), {"pad": 2}),
    "filter_fills_padded_volume": ((2, 2, 2, 3, 4), (3, 2, 4, 5, 6), {"pad": 1}),
    "pad_larger_than_filter": ((2, 2, 2, 3, 3), (2, 2, 1, 2, 1), {"pad": 3}),
    "pad_larger_than_volume": ((1, 2, 2, 2, 3), (2, 2, 3, 3, 3), {"pad": 4, "stride": 2}),
    "asymmetric_triples": (
        (2, 4, 7, 6, 9),
        (3, 4, 2, 3, 2),
        {"stride": (3, 2, 1), "pad": (1, 0, 2), "dilation": (2, 1, 3)},
    ),
    "dilation": ((2, 2, 6, 6, 6), (3, 2, 3, 3, 3), {"dilation": 2, "pad": 2}),
    "dilation_shares_a_factor_with_stride": ((1, 2, 11, 5, 6), (3, 2, 3, 2, 2), {"dilation": 2, "stride": 4, "pad": 1}),
    "dilation_prime_to_stride": ((1, 2, 11, 6, 6), (3, 2, 3, 2, 2), {"dilation": 3, "stride": 2, "pad": 2}),
    "dilation_reaches_into_pad_only_at_ends": ((1, 2, 3, 3, 3), (2, 2, 3, 3, 3), {"dilation": 3, "pad": 3}),
    "groups": ((2, 6, 4, 4, 4), (4, 3, 3, 3, 3), {"groups": 2, "pad": 1}),
    "groups_of_one_filter": ((2, 6, 3, 4, 4), (3, 2, 2, 3, 3), {"groups": 3}),
    "groups_with_stride": ((2, 6, 5, 6, 7), (9, 2, 3, 3, 2), {"groups": 3, "stride": (2, 1, 2), "pad": 1}),
    "depthwise": ((2, 5, 4, 5, 6), (5, 1, 3, 3, 3), {"groups": 5, "pad": 1}),
    "depthwise_multiplier": ((2, 3, 5, 5, 5), (6, 1, 3, 3, 3), {"groups": 3, "pad": 1, "stride": 2}),
    "depthwise_of_one_tap_in_depth": ((2, 4, 3, 5, 5), (4, 1, 1, 3, 3), {"groups": 4, "pad": (0, 1, 1)}),
    "one_tap_in_depth": ((2, 3, 4, 5, 5), (4, 3, 1, 3, 3), {"pad": (0, 1, 1)}),
    "one_tap_in_depth_padded": ((2, 3, 3, 4, 4), (4, 3, 1, 2, 2), {"pad": (2, 0, 0)}),
    "one_tap_in_depth_with_stride": ((2, 3, 7, 4, 4), (4, 3, 1, 2, 2), {"stride": (3, 1, 1)}),
    "one_by_one_by_one": ((2, 3, 4, 4, 5), (4, 3, 1, 1, 1), {}),
    "one_by_one_by_one_with_stride": ((2, 3, 5, 4, 5), (4, 3, 1, 1, 1), {"stride": 2}),
    "one_plane": ((2, 3, 1, 6, 6), (4, 3, 1, 3, 3), {"pad": (0, 1, 1)}),
    "one_plane_padded": ((2, 3, 1, 5, 5), (4, 3, 3, 3, 3), {"pad": 1}),
    "one_row": ((2, 3, 4, 1, 6), (4, 3, 3, 1, 3), {"pad": (1, 0, 1)}),
    "one_column": ((2, 3, 4, 6, 1), (4, 3, 3, 3, 1), {"pad": (1, 1, 0), "stride": (1, 2, 1)}),
    "one_channel": ((2, 1, 4, 5, 5), (3, 1, 3, 3, 3), {"pad": 1}),
    "one_filter": ((2, 4, 4, 4, 4), (1, 4, 3, 3, 3), {"pad": 1}),
    "more_channels_than_few": ((1, 7, 3, 4, 5), (5, 7, 2, 3, 3), {"pad": 1}),
    "padded_on_one_side": (
        (1, 2, 4, 5, 3),
        (3, 2, 2, 3, 2),
        {"pad": ((0, 2), (1, 0), (0, 1)), "stride": (1, 2, 1), "dilation": (2, 1, 1)},
    ),
    "one_tap_in_depth_padded_behind": ((2, 3, 3, 4, 4), (4, 3, 1, 1, 3), {"pad": ((0, 1), (0, 2), 1)}),
    "deep_filter_padded_behind": ((2, 3, 5, 3, 4), (3, 3, 3, 1, 1), {"pad": (1, (0, 1), (0, 2))}),
    "same_of_an_even_window": ((1, 2, 3, 4, 3), (3, 2, 2, 3, 4), {"pad": "same"}),
    "many_small_volumes": ((37, 2, 2, 2, 3), (2, 2, 2, 2, 2), {}),
}


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


@pairs(case=CASES, block_bytes={"one_plane": 1, "some_planes": 1000, "some_volumes": 10_000}, stored=STORED)
def test_any_blocks_give_the_same_sums(case, block_bytes, stored, rng, monkeypatch):
    """However few planes of a batch are unfolded at once."""
    monkeypatch.setattr(conv_volume, "_BLOCK_BYTES", block_bytes)
    x, w, b, dy, z = arrays_of(case, rng, "float32", whole)
    arrays = (channels_last(x), w, b, channels_last(dy)) if stored == "channels_last" else (x, w, b, dy)
    y, cache = gpuconv.conv_forward(*arrays[:3], **case[2])
    for actual, expected in zip((y, *gpuconv.conv_backward(arrays[3], cache)), by_oracle(x, w, b, dy, z), strict=True):
        assert_same(actual, expected, dtype="float32")


@pairs(name=["odd_everything", "groups", "depthwise", "one_tap_in_depth"], device=DEVICES, dtype=DTYPES)
def test_without_bias(name, device, dtype, rng):
    x, w, _, dy, z = arrays_of(CASES[name], rng, dtype, normal)
    check_close(computed(device, (x, w, None, dy), CASES[name][2]), x, w, None, dy, z)


@pairs(
    name=["odd_everything", "groups", "empty_batch"],
    wanted={
        "no_dx": {"input_grad": False},
        "no_dw": {"weight_grad": False},
        "db_alone": {"input_grad": False, "weight_grad": False},
    },
    device=DEVICES,
)
def test_gradients_can_be_left_out(name, wanted, device, rng):
    *arrays, _ = arrays_of(CASES[name], rng, "float32", whole)
    y, dx, dw, db = computed(device, arrays, CASES[name][2])
    some = computed(device, arrays, CASES[name][2], **wanted)
    for actual, expected, flag in zip(some, (y, dx, dw, db), ("", "input_grad", "weight_grad", ""), strict=True):
        if wanted.get(flag, True):
            assert_same(actual, expected)
        else:
            assert actual is None


@pairs(
    layout={**LAYOUTS, "channels_last": channels_last},
    options={
        "no_pad": {},
        "pad": {"pad": 1},
        "stride": {"stride": 2, "pad": (1, 2, 0)},
        "dilation": {"dilation": (1, 2, 1), "pad": 1},
        "one_tap": {},
    },
    groups={"one_group": 1, "groups": 2, "depthwise": 4},
    device=DEVICES,
)
def test_any_memory_layout(layout, options, groups, device, rng, request):
    """Layouts of all three arrays, with every kind of window: bit-equal results, in the memory format of x."""
    depth = 1 if "one_tap" in request.node.callspec.id else 2
    x, w, b = whole(rng, (2, 4, 3, 6, 5)), whole(rng, (8, 4 // groups, depth, 3, 2)), whole(rng, (8,))
    options = {**options, "groups": groups}
    z = conv_sizes(x, w, b, **options)
    dy = whole(rng, z.out)
    expected = by_oracle(x, w, b, dy, z)
    laid_out = [layout(a) if a is not b or layout is not channels_last else a for a in (x, w, b, dy)]
    odd_x, odd_w, odd_b, odd_dy = laid_out
    for arrays in ((odd_x, w, b, dy), (x, odd_w, odd_b, dy), (x, w, b, odd_dy), laid_out):
        got = computed(device, arrays, options)
        for actual, want in zip(got, expected, strict=True):
            assert_same(actual, want)
        assert is_channels_last(got[0]) == is_channels_last(arrays[0]) == is_channels_last(got[1])


@pairs(stored=STORED, depth=["one_tap", "two_taps"], device=DEVICES, dtype=DTYPES)
def test_results_are_contiguous_in_the_format_of_x(stored, depth, device, dtype, rng):
    x, w = normal(rng, (2, 4, 3, 6, 7), dtype), normal(rng, (8, 4, 1 if depth == "one_tap" else 2, 3, 3), dtype)
    dy = normal(rng, conv_sizes(x, w, None).out, dtype)
    if stored == "channels_last":
        x, dy = channels_last(x), channels_last(dy)
    y, dx, dw, _ = computed(device, (x, w, None, dy), {})
    for array in (y, dx):
        assert (np.moveaxis(array, 1, -1) if stored == "channels_last" else array).flags.c_contiguous
    assert dw.flags.c_contiguous


@pairs(axis=["batch", "channels", "depth", "rows", "columns"], device=DEVICES)
def test_broadcast_views(axis, device, rng):
    """Elements that share one place in memory (stride 0) count as often as they appear."""
    number = ["batch", "channels", "depth", "rows", "columns"].index(axis)
    shape, w_shape = [2, 3, 4, 5, 5], [4, 3, 2, 3, 3]
    x = np.broadcast_to(whole(rng, [1 if i == number else n for i, n in enumerate(shape)]), shape)
    w = np.broadcast_to(whole(rng, [1 if i == number else n for i, n in enumerate(w_shape)]), w_shape)
    z = conv_sizes(x, w, None)
    dy = np.broadcast_to(whole(rng, (1, 1, 1, 1, 1)), z.out)
    got, expected = computed(device, (x, w, None, dy), {}), by_oracle(x, w, None, dy, z)
    for actual, want in zip(got[:3], expected[:3], strict=True):
        assert_same(actual, want)


# NaN and infinities -------------------------------------------------------------------------------------------------

SPECIAL = {
    "nan_in_x": ("x", (0, 1, 1, 2, 3), np.nan),
    "inf_in_a_corner_of_x": ("x", (0, 0, 0, 0, 0), np.inf),
    "inf_in_the_last_plane_of_x": ("x", (1, 0, 3, 1, 1), -np.inf),
    "nan_in_w": ("w", (1, 0, 1, 1, 1), np.nan),
    "inf_in_w_meets_the_padding": ("w", (1, 0, 0, 1, 1), np.inf),
    "inf_in_a_corner_of_w": ("w", (0, 1, 2, 2, 0), -np.inf),
    "nan_in_b": ("b", (1,), np.nan),
    "nan_in_dy": ("dy", (0, 1, 1, 1, 1), np.nan),
    "inf_in_dy_meets_the_padding": ("dy", (1, 0, 0, 0, 0), np.inf),
}


@pairs(
    special=SPECIAL,
    options={
        "no_pad": {},
        "pad": {"pad": 1},
        "pad_in_depth": {"pad": (2, 0, 0), "stride": (2, 1, 1)},
        "stride": {"pad": 2, "stride": 2},
        "dilation": {"dilation": 2, "pad": 2},
    },
    groups={"one_group": 1, "depthwise": 2},
    channels={"few_channels": 2, "channels": 6},
    stored=STORED,
    device=DEVICES,
)
def test_nan_and_infinity_spread_as_the_sums_say(special, options, groups, channels, stored, device, rng):
    """Padding is the number 0 (0 * inf is NaN) in y and dw; dx sums over real outputs only."""
    name, place, value = special
    options, dtype = {**options, "groups": groups * channels // 2 if groups > 1 else 1}, "float32"
    w_shape = (channels, channels // options["groups"], 3, 3, 3)
    arrays = {"x": whole(rng, (2, channels, 4, 5, 6), dtype), "w": whole(rng, w_shape, dtype)}
    z = conv_sizes(*arrays.values(), None, **options)
    arrays |= {"b": whole(rng, (channels,), dtype), "dy": whole(rng, z.out, dtype)}
    place = tuple(min(i, n - 1) for i, n in zip(place, arrays[name].shape, strict=True))
    arrays[name][place] = value
    if stored == "channels_last":
        for key in ("x", "dy"):
            arrays[key] = channels_last(arrays[key])
    got = computed(device, tuple(arrays.values()), options)
    for actual, expected in zip(got, by_oracle(*arrays.values(), z), strict=True):
        assert_same(actual, expected, dtype=dtype)


@pairs(device=DEVICES)
def test_float16_sums_do_not_overflow_on_the_way(device):
    """A sum over taps in depth that leaves float16's range and comes back is right: it is rounded once."""
    x = np.full((1, 4, 8, 2, 2), 256, np.float16)
    w = np.full((4, 4, 8, 1, 1), 256, np.float16)
    w[:, :, 4:] = -256
    dy = np.full((1, 4, 1, 2, 2), 256, np.float16)
    dy[..., 1:] = -256
    y, dx, dw, _ = computed(device, (x, w, None, dy), {})
    assert_same(y, np.zeros(y.shape, np.float16))
    assert_same(dw, np.zeros(dw.shape, np.float16))
    assert np.isinf(dx).all()
    y, dx, _, _ = computed(device, (x, w, None, np.full((1, 4, 15, 2, 2), 256, np.float16)), {"pad": (7, 0, 0)})
    assert np.isfinite(y[:, :, 7]).all()
    assert_same(dx, np.zeros(dx.shape, np.float16))  # each plane is read by all eight taps


# Long sums ----------------------------------------------------------------------------------------------------------

LONG = {
    "taps_in_depth": ((1, 1, 700, 1, 1), (1, 1, 400, 1, 1), {}),
    "outputs": ((1, 1, 5000, 1, 2), (1, 1, 2, 1, 1), {}),
    "volumes": ((4000, 1, 2, 1, 1), (1, 1, 2, 1, 1), {}),
}


@pairs(
    case=LONG,
    make={"equal": lambda rng, shape, dtype: np.full(shape, rng.uniform(), dtype), "positive": positive},
    device=["cpu"],  # what the kernels' long sums hold to is in test_long_sums_cuda.py
)
def test_long_sums_stay_accurate(case, make, device, rng, monkeypatch):
    """In blocks of few planes as well, whose gradients of filters are added up."""
    monkeypatch.setattr(conv_volume, "_BLOCK_BYTES", 64)
    shape, w_shape, options = case
    x, w, b, dy, z = arrays_of((shape, w_shape, options), rng, "float32", make)
    got = computed(device, (x, w, b, dy), options)
    wide = [a.astype(np.float64) for a in (x, w, b, dy)]
    by_rows = [wide[0][:, 0, :, 0], wide[1][0, 0, :, 0, 0], wide[2][0], wide[3][:, 0, :, 0]]
    refs = _along_depth(*by_rows)
    for actual, ref, terms in zip(got, refs, (z.T + 1, z.T, dy.size, dy.size), strict=True):
        error = np.abs(actual.astype(np.float64).reshape(ref.shape) - ref)
        assert (error <= ((4 + 2 * terms**0.5) + 1) * 2.0**-24 * np.abs(ref)).all()


def test_gradients_of_many_blocks_are_added_up_in_runs(rng, monkeypatch):
    """Equal terms in float64, which are all rounded the same way: a running sum would lose too much of some."""
    monkeypatch.setattr(conv_volume, "_BLOCK_BYTES", 1)
    volumes, pixel = 4000, rng.uniform()
    x, gradients = np.full((volumes, 1, 2, 1, 1), pixel), rng.uniform(size=16)
    dy = np.broadcast_to(gradients[:, None, None, None], (volumes, 16, 1, 1, 1))
    _, cache = gpuconv.conv_forward(x, np.zeros((16, 1, 2, 1, 1)))
    _, dw, _ = gpuconv.conv_backward(dy, cache, input_grad=False)
    for got, gradient in zip(dw, gradients, strict=True):
        exact = volumes * Fraction(pixel) * Fraction(gradient)
        for value in got.ravel():
            assert abs(Fraction(value) - exact) <= Fraction(5 + 2 * volumes**0.5) * Fraction(2) ** -53 * exact


def _along_depth(x, w, b, dy):
    """Return y, dx, dw, db of x (N, D, W), w (T,), dy (N, Z, W), all positive, by sums of products in float64."""
    N, _, W = x.shape
    T, Z = len(w), dy.shape[1]
    y = np.stack([[np.correlate(x[n, :, q], w, "valid") for q in range(W)] for n in range(N)]).transpose(0, 2, 1) + b
    dx = np.stack([[np.convolve(dy[n, :, q], w, "full") for q in range(W)] for n in range(N)]).transpose(0, 2, 1)
    dw = np.array([np.vdot(dy, x[:, t : t + Z]) for t in range(T)])
    return y, dx, dw, np.array([dy.sum()])


# Copies and memory --------------------------------------------------------------------------------------------------


def _made(monkeypatch):
    """Return a list that the sizes in bytes of what conv_volume unfolds, or copies later, are put in."""
    made = []
    empty = conv_volume.empty

    def counted(*args, **kwargs):
        array = empty(*args, **kwargs)
        made.append(array.nbytes)
        return array

    monkeypatch.setattr(conv_volume, "empty", counted)
    return made


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(
    ("w_shape", "options"), [((5, 3, 1, 3, 3), {}), ((5, 3, 1, 1, 1), {"stride": 2}), ((5, 3, 1, 1, 1), {})], ids=str
)
def test_one_tap_in_depth_needs_no_copies(stored, w_shape, options, rng, monkeypatch):
    made = _made(monkeypatch)
    x, w, b, dy, _ = arrays_of(((2, 3, 5, 6, 7), w_shape, options), rng, "float32", whole)
    if stored == "channels_last":
        x, dy = channels_last(x), channels_last(dy)
    _, cache = gpuconv.conv_forward(x, w, b, **options)
    gpuconv.conv_backward(dy, cache)
    assert not made


# Filters that see a volume as one image: (w, options), and the pixels of that image of 5 planes of 6 x 7.
FOLDED = {
    "one_by_one_by_one": (((5, 3, 1, 1, 1), {}), (30, 7)),
    "along_rows": (((5, 3, 1, 1, 3), {"stride": (1, 1, 2), "pad": (0, 0, 1), "dilation": (1, 1, 2)}), (30, 7)),
    "along_rows_of_many_filters_a_channel": (((6, 1, 1, 1, 2), {"groups": 3}), (30, 7)),
    "along_rows_of_one_filter_a_channel": (((3, 1, 1, 1, 2), {"groups": 3}), (30, 7)),
    "along_depth": (((5, 3, 3, 1, 1), {"stride": (2, 1, 1), "pad": (1, 0, 0)}), (5, 42)),
    "along_depth_dilated": (((5, 3, 2, 1, 1), {"dilation": (3, 1, 1)}), (5, 42)),
}
# Steps and padding that such an image would not have, and sums that it would not keep short.
UNFOLDED = {
    "steps_in_depth_and_rows": ((5, 3, 1, 1, 1), {"stride": (2, 2, 1)}),
    "step_in_rows": ((5, 3, 1, 1, 3), {"stride": (1, 2, 1)}),
    "padding_of_rows": ((5, 3, 1, 1, 3), {"pad": (0, 1, 0)}),
    "padding_of_planes": ((5, 3, 1, 1, 3), {"pad": (1, 0, 1)}),
    "step_in_columns": ((5, 3, 2, 1, 1), {"stride": (1, 1, 2)}),
    "padding_of_columns": ((5, 3, 2, 1, 1), {"pad": (0, 0, 1)}),
    "two_axes": ((5, 3, 1, 2, 2), {}),
}


@pairs(case=FOLDED, stored=STORED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_filters_along_one_axis_see_an_image_that_is_a_view(case, stored, dtype, rng, monkeypatch):
    """With the values that unfolding gives, exactly on integers."""
    (w_shape, options), pixels = case
    x, w, b, dy, z = arrays_of(((2, 3, 5, 6, 7), w_shape, options), rng, dtype, whole)
    if stored == "channels_last":
        x, dy = channels_last(x), channels_last(dy)
    _, x_image, filters, y_image = conv_volume._folded(z, x, w, dy)
    assert x_image.shape[2:] == pixels
    assert all(np.shares_memory(*both) for both in ((x, x_image), (w, filters), (dy, y_image)))
    made = _made(monkeypatch)
    as_images = _computed(x, w, b, dy, options)
    assert not made
    monkeypatch.setattr(conv_volume, "_folded", lambda *_: None)
    for image, unfolded in zip(as_images, _computed(x, w, b, dy, options), strict=True):
        np.testing.assert_array_equal(image, unfolded)


@pytest.mark.parametrize(("w_shape", "options"), UNFOLDED.values(), ids=UNFOLDED)
def test_what_is_no_image_is_not_seen_as_one(w_shape, options, rng):
    x, w, _, dy, z = arrays_of(((2, 3, 5, 6, 7), w_shape, options), rng, "float32", whole)
    assert conv_volume._folded(z, x, w, dy) is None


@pytest.mark.parametrize("name", FOLDED)
def test_volumes_with_gaps_are_not_copied_to_be_seen_as_images(name, rng):
    (w_shape, options), _ = FOLDED[name]
    x, w, b, dy, z = arrays_of(((2, 3, 5, 6, 7), w_shape, options), rng, "float32", whole)
    gaps = np.zeros((2, 3, 5, 8, 9), np.float32)[:, :, :, 1:7, 1:8]
    gaps[...] = x
    assert conv_volume._folded(z, gaps, w, dy) is None
    for one, other in zip(_computed(gaps, w, b, dy, options), _computed(x, w, b, dy, options), strict=True):
        np.testing.assert_array_equal(one, other)


# (x, w, options), and the taps of planes that are done together where filters are finite
JOINED = {
    "every_plane_but_the_ends_has_every_tap": (((2, 3, 8, 4, 4), (4, 3, 3, 3, 3), {"pad": 1}), [[0, 1, 2]]),
    "each_phase_of_a_stride": (((2, 3, 8, 4, 4), (4, 3, 3, 3, 3), {"pad": 1, "stride": 2}), [[1], [0, 2]]),
    "planes_that_nothing_reads": (((2, 3, 9, 4, 4), (4, 3, 1, 3, 3), {"pad": (0, 1, 1), "stride": 3}), [[0], [], []]),
}


@pairs(case=JOINED, stored=STORED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_planes_are_joined_without_another_value(case, stored, dtype, rng, monkeypatch):
    """The planes beside dy are zeros, which filters that are finite do not notice: the same values on integers."""
    (x_shape, w_shape, options), expected = case
    x, w, b, dy, z = arrays_of((x_shape, w_shape, options), rng, dtype, whole)
    if stored == "channels_last":
        x, dy = channels_last(x), channels_last(dy)
    assert [taps for _, taps in conv_volume._depths_by_taps(z, joined=True)] == expected
    joined = _computed(x, w, b, dy, options)[1]
    monkeypatch.setattr(conv_volume, "all_finite", lambda _: False)
    np.testing.assert_array_equal(joined, _computed(x, w, b, dy, options)[1])


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_every_plane_is_written_once_with_all_its_taps(name, joined):
    x_shape, w_shape, options = CASES[name]
    z = conv_sizes(np.empty(x_shape), np.empty(w_shape), None, **options)
    parts = list(conv_volume._depths_by_taps(z, joined=joined))
    assert sorted(d for depths, _ in parts for d in depths) == list(range(z.D))
    for depths, taps in parts:
        for d in depths:
            reached = [(t, *divmod(d + z.pad[0] - t * z.dilation[0], z.stride[0])) for t in range(z.T)]
            needed = {t for t, output, rest in reached if rest == 0 and 0 <= output < z.Z}
            assert needed <= set(taps)
            assert joined or needed == set(taps)
            assert all(reached[t][2] == 0 for t in taps)


def _computed(x, w, b, dy, options):
    """Return y, dx, dw, db on the CPU."""
    y, cache = gpuconv.conv_forward(x, w, b, **options)
    return y, *gpuconv.conv_backward(dy, cache)


@pytest.mark.parametrize("stored", STORED)
def test_what_is_unfolded_is_bounded_whatever_the_batch(stored, rng, monkeypatch):
    made = _made(monkeypatch)
    monkeypatch.setattr(conv_volume, "_BLOCK_BYTES", 20_000)
    for batch in (1, 2, 30):
        x, w, b, dy, _ = arrays_of(((batch, 3, 8, 9, 9), (4, 3, 3, 3, 3), {"pad": 1}), rng, "float32", whole)
        if stored == "channels_last":
            x, dy = channels_last(x), channels_last(dy)
        _, cache = gpuconv.conv_forward(x, w, b, pad=1)
        gpuconv.conv_backward(dy, cache)
    assert len(made) > 30
    assert max(made) <= 20_000


# Second oracles, algebra, determinism -------------------------------------------------------------------------------


@pairs(stored=STORED, device=DEVICES, dtype=DTYPES)
def test_volumes_of_one_plane_are_images(stored, device, dtype, rng):
    """On NumPy arrays the same bits, whatever the method: nothing is unfolded."""
    x, w, b = normal(rng, (3, 16, 12, 30), dtype), normal(rng, (20, 16, 3, 3), dtype), normal(rng, (20,), dtype)
    dy = normal(rng, (3, 20, 12, 30), dtype)
    if stored == "channels_last":
        x, dy = channels_last(x), channels_last(dy)
    images = computed(device, (x, w, b, dy), {"pad": 1})
    volumes = computed(device, (x[:, :, None], w[:, :, None], b, dy[:, :, None]), {"pad": (0, 1, 1)})
    if device.name == "cpu" and (stored == "channels_last" or dtype == "float64"):
        for image, volume in zip(images, volumes, strict=True):
            assert_same_bits(volume.reshape(image.shape), image)
    check_close([v.reshape(i.shape) for v, i in zip(volumes, images, strict=True)], x, w, b, dy, _image_sizes(x, w))


def _image_sizes(x, w):
    return conv_sizes(x, w, None, pad=1)


LAYERS = {
    "first_layer_of_a_video_net": ((2, 3, 8, 28, 28), (16, 3, 3, 7, 7), {"pad": (1, 3, 3), "stride": (1, 2, 2)}),
    "winograd": ((2, 16, 6, 20, 20), (16, 16, 3, 3, 3), {"pad": 1}),
    "halving": ((2, 16, 8, 14, 14), (32, 16, 3, 3, 3), {"pad": 1, "stride": 2}),
    "grouped": ((2, 32, 6, 8, 8), (32, 8, 3, 3, 3), {"pad": 1, "groups": 4}),
    "depthwise": ((2, 32, 6, 9, 9), (32, 1, 3, 3, 3), {"pad": 1, "groups": 32}),
    "spatial": ((2, 16, 8, 14, 14), (24, 16, 1, 3, 3), {"pad": (0, 1, 1)}),
    "temporal": ((2, 24, 8, 14, 14), (16, 24, 3, 1, 1), {"pad": (1, 0, 0)}),
    "dilated": ((2, 8, 9, 13, 11), (8, 8, 3, 3, 3), {"pad": 2, "dilation": 2}),
}


@pytest.mark.large
@pairs(layer=LAYERS, stored=STORED, device=DEVICES, dtype=DTYPES)
def test_layers_of_real_nets_match_pytorch(layer, stored, device, dtype, rng):
    """Outputs within the tolerance rule of PyTorch's float64 results."""
    torch = pytest.importorskip("torch")
    from compare import absolute, assert_close

    x, w, b, dy, z = arrays_of(layer, rng, dtype, normal)
    options = {"stride": z.stride, "padding": z.pad, "dilation": z.dilation, "groups": z.groups}

    def by_torch(*arrays):
        x, w, b, dy = (torch.from_numpy(a.astype(np.float64)) for a in arrays)
        inputs = [a.requires_grad_() for a in (x, w, b)]
        y = torch.nn.functional.conv3d(*inputs, **options)
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

    def triple(low, high):
        return draw(st.tuples(*(st.integers(low, high) for _ in range(3))))

    groups = draw(st.integers(1, 2))
    window, stride, pad, dilation = triple(1, 3), triple(1, 3), triple(0, 3), triple(1, 3)
    least = [max(1, d * (n - 1) + 1 - 2 * p) for d, n, p in zip(dilation, window, pad, strict=True)]
    size = [draw(st.integers(n, n + 3)) for n in least]
    N, C, K = draw(st.integers(0, 2)), groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    options = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    return (N, C, *size), (K, C // groups, *window), options


@pairs(device=DEVICES)
@given(convolutions(), st.integers(0, 2**32), st.sampled_from(STORED))
def test_random_sizes_match_oracle(device, case, seed, stored):
    x, w, b, dy, z = arrays_of(case, np.random.default_rng(seed), "float64", whole)
    if stored == "channels_last":
        x, dy = channels_last(x), channels_last(dy)
    for actual, expected in zip(computed(device, (x, w, b, dy), case[2]), by_oracle(x, w, b, dy, z), strict=True):
        assert_same(actual, expected)


@pairs(device=DEVICES)
@given(convolutions(), st.integers(0, 2**32))
def test_gradients_are_the_adjoints(device, case, seed):
    """<dy, conv(x, w)> = <dx, x> = <dw, w>, and sum(dy) = sum(db); exactly, on integers."""
    x, w, b, dy, _ = arrays_of(case, np.random.default_rng(seed), "float64", whole)
    y, dx, dw, db = computed(device, (x, w, np.zeros_like(b), dy), case[2])
    assert np.vdot(dy, y) == np.vdot(dx, x) == np.vdot(dw, w)
    assert np.array_equal(db, dy.sum(axis=(0, 2, 3, 4)))


@pairs(
    layer={name: LAYERS[name] for name in ("winograd", "halving", "grouped", "depthwise", "spatial")},
    stored=STORED,
    device=DEVICES,
)
def test_same_bits_every_time_and_for_any_number_of_threads(layer, stored, device, rng, monkeypatch):
    x, w, b, dy, _ = arrays_of(layer, rng, "float32", normal)
    if stored == "channels_last":
        x, dy = channels_last(x), channels_last(dy)
    runs = []
    for threads in ("1", "2", "3", "2"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        runs.append([a.tobytes() for a in computed(device, (x, w, b, dy), layer[2])])
    assert all(run == runs[0] for run in runs)


# Bad input ----------------------------------------------------------------------------------------------------------


@pairs(device=DEVICES)
def test_a_wrong_gradient_is_refused(device):
    _, cache = gpuconv.conv_forward(device.array(np.zeros((2, 3, 4, 5, 6))), device.array(np.zeros((4, 3, 3, 3, 3))))
    for shape in itertools.permutations((2, 4, 2, 3)):
        with pytest.raises(ShapeError, match=r"^dy must have the shape of the forward's output \(2, 4, 2, 3, 4\)"):
            gpuconv.conv_backward(device.array(np.zeros(shape)), cache)
