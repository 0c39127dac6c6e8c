"""Max and average pooling of signals and volumes: held to the oracle, which is held to PyTorch."""

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, assert_same_bits, normal, whole
from hypothesis import given
from hypothesis import strategies as st
from pairs import DEVICES, DTYPES, STORED, pairs
from places import LAYOUTS

import gpuconv
from gpuconv import naive
from gpuconv.cuda import pool_volume
from gpuconv.cuda.layout import INT64
from gpuconv.pool_shapes import pool_sizes
from gpuconv.shapes import image_of_signal, is_channels_last, signal_of_image

pytestmark = pytest.mark.long  # the loops of the definition, in three more axes

# why the case exists: (x, options)
CASES = {
    "one_pixel": ((1, 1, 1, 1, 1), {"window": 1}),
    "empty_batch": ((0, 3, 4, 4, 4), {"window": 2}),
    "halving": ((2, 3, 4, 4, 6), {"window": 2}),
    "drops_a_last_plane_row_and_column": ((2, 3, 5, 7, 3), {"window": 2}),
    "tiles_of_planes_with_padding_before_them": ((2, 3, 5, 4, 6), {"window": 2, "pad": (1, 0, 0)}),
    "overlapping": ((2, 2, 5, 6, 7), {"window": 3, "stride": 2, "pad": 1}),
    "overlapping_on_every_pixel": ((1, 3, 4, 4, 5), {"window": 3, "stride": 1}),
    "every_axis_differs": ((2, 3, 6, 9, 5), {"window": (2, 5, 3), "stride": (3, 2, 1), "pad": (1, 2, 0)}),
    "planes_alone": ((2, 3, 3, 6, 6), {"window": (1, 2, 2)}),
    "ceil": ((2, 3, 4, 5, 6), {"window": (2, 3, 3), "stride": (3, 2, 2), "pad": (1, 0, 1), "ceil": True}),
    "padded_on_one_side": ((1, 3, 4, 5, 6), {"window": (2, 3, 2), "stride": (1, 2, 2), "pad": ((0, 1), (1, 0), 0)}),
    "dilated": ((2, 3, 5, 6, 7), {"window": (2, 3, 2), "stride": 1, "pad": (1, 0, 1), "dilation": (2, 1, 3)}),
    "dilated_with_ceil": ((1, 2, 5, 6, 5), {"window": 2, "stride": 3, "pad": (0, 1, 0), "dilation": 2, "ceil": True}),
    "depth_alone": ((2, 3, 6, 3, 2), {"window": (3, 1, 1), "stride": (2, 1, 1), "pad": (1, 0, 0)}),
    "pad_is_half_the_window": ((2, 2, 3, 4, 2), {"window": (2, 4, 2), "stride": 2, "pad": (1, 2, 1)}),
    "padded_by_all_but_a_tap": ((2, 2, 3, 4, 2), {"window": (2, 3, 2), "stride": (1, 2, 1), "pad": (1, 2, 1)}),
    "window_larger_than_the_volume": ((2, 3, 2, 2, 2), {"window": 4, "pad": 1}),
    "stride_larger_than_window": ((2, 3, 7, 6, 5), {"window": 2, "stride": 4}),
    "whole_volume": ((2, 3, 3, 4, 5), {"window": (3, 4, 5)}),
    "one_column_of_channels": ((2, 5, 4, 1, 1), {"window": (2, 1, 1)}),
    "one_channel": ((3, 1, 4, 3, 2), {"window": 2, "stride": 1}),
    "packs_of_channels": ((1, 16, 3, 4, 3), {"window": 2, "stride": 1}),
    "more_than_256_places": ((1, 2, 5, 9, 10), {"window": (4, 8, 9), "stride": 1}),
    "planes_of_more_than_64_places": ((1, 1, 3, 10, 9), {"window": (2, 9, 8), "stride": 1}),
    "deeper_than_64_places": ((1, 1, 70, 2, 2), {"window": (66, 1, 2), "stride": 1}),
    "many_small_volumes": ((67, 1, 2, 2, 2), {"window": 2}),
}
# Signals: options of their one axis.
SIGNALS = {
    "one_value": ((1, 1, 1), {"window": (1,)}),
    "empty_batch": ((0, 3, 8), {"window": (2,)}),
    "halving": ((2, 3, 8), {"window": (2,)}),
    "drops_a_value": ((2, 3, 9), {"window": [2]}),
    "overlapping": ((2, 3, 11), {"window": (3,), "stride": 2, "pad": (1,)}),
    "dilated": ((2, 3, 11), {"window": (3,), "stride": 2, "pad": 1, "dilation": (2,), "ceil": True}),
    "padded_by_all_but_a_tap": ((2, 3, 5), {"window": (4,), "stride": 1, "pad": ((2, 3),)}),
    "window_longer_than_the_signal": ((2, 3, 2), {"window": (4,), "pad": 1}),
    "stride_larger_than_window": ((2, 8, 9), {"window": (2,), "stride": (4,)}),
    "more_than_256_places": ((1, 2, 300), {"window": (270,), "stride": (7,)}),
}
OPTIONS = {
    "tiles": {"window": 2},
    "tiles_below_padding": {"window": 2, "pad": (1, 0, 0)},
    "overlapping": {"window": (2, 3, 3), "stride": (1, 2, 1), "pad": 1},
}
COUNT_PAD = {"count_pad": True, "real_pixels": False}


def _stored(array, stored):
    return LAYOUTS["channels_last"](array) if stored == "channels_last" else array


def _sizes(x, options):
    return pool_sizes(x, **{"stride": None, "pad": 0, **options})


def _max(device, x, dy, options):
    """Return y, argmax, dx as NumPy arrays; the inputs must come out as they went in."""
    before = x.copy(), dy.copy()
    dev_x, dev_dy = device.array(x), device.array(dy)
    y, cache = gpuconv.max_pool_forward(dev_x, **options)
    dx = gpuconv.max_pool_backward(dev_dy, cache)
    for array, copy in zip((dev_x, dev_dy), before, strict=True):
        np.testing.assert_array_equal(device.numpy(array), copy, "an input was changed")
    return device.numpy(y), device.numpy(cache.argmax), device.numpy(dx)


def _average(device, x, dy, options):
    y, cache = gpuconv.average_pool_forward(device.array(x), **options)
    return device.numpy(y), device.numpy(gpuconv.average_pool_backward(device.array(dy), cache))


# Against the oracle -------------------------------------------------------------------------------------------------


@pairs(case=CASES, make={"random": normal, "with_ties": whole}, stored=STORED, device=DEVICES, dtype=DTYPES)
@pytest.mark.usefixtures("poisoned_memory")
def test_max_matches_oracle(case, make, stored, device, dtype, rng):
    """y and argmax bit for bit; dx within 4 units of its few terms."""
    shape, options = case
    x = make(rng, shape, dtype)
    z = _sizes(x, options)
    dy = normal(rng, z.out, dtype)
    expected, places = naive.max_pool_forward(x, z)
    y, argmax, dx = _max(device, _stored(x, stored), _stored(dy, stored), options)
    assert_same_bits(y, expected.astype(dtype))
    np.testing.assert_array_equal(argmax, places)
    ref, scale = (naive.max_pool_backward(a, places, z) for a in (dy, np.abs(dy)))
    assert_close(dx, ref, scale=scale, dtype=dtype, c=4)


@pairs(case=CASES, stored=STORED, device=DEVICES, dtype=DTYPES, place=False)
def test_gradient_of_the_maximum_is_exact_on_integers(case, stored, device, dtype, rng):
    shape, options = case
    x = whole(rng, shape, dtype)
    z = _sizes(x, options)
    dy = whole(rng, z.out, dtype)
    _, places = naive.max_pool_forward(x, z)
    dx = _max(device, _stored(x, stored), _stored(dy, stored), options)[2]
    assert_same(dx, naive.max_pool_backward(dy, places, z), dtype=dtype)
    assert dx.sum(dtype=np.float64) == dy.sum(dtype=np.float64)


@pairs(case=CASES, count_pad=COUNT_PAD, stored=STORED, device=DEVICES, dtype=DTYPES)
@pytest.mark.usefixtures("poisoned_memory")
def test_average_matches_oracle(case, count_pad, stored, device, dtype, rng):
    shape, options = case
    x = normal(rng, shape, dtype)
    z = _sizes(x, options)
    dy = normal(rng, z.out, dtype)
    y, dx = _average(device, _stored(x, stored), _stored(dy, stored), {**options, "count_pad": count_pad})
    (size_x,), (size_dy,) = absolute(x), absolute(dy)
    ref, scale = (naive.average_pool_forward(a, z, count_pad=count_pad) for a in (x, size_x))
    assert_close(y, ref, scale=scale, dtype=dtype, terms=z.places)
    ref, scale = (naive.average_pool_backward(a, z, count_pad=count_pad) for a in (dy, size_dy))
    assert_close(dx, ref, scale=scale, dtype=dtype, terms=z.places)


@pairs(case=CASES, ties=["split", "every"], stored=STORED, device=DEVICES, dtype=DTYPES)
@pytest.mark.usefixtures("poisoned_memory")
def test_shared_ties_match_oracle(case, ties, stored, device, dtype, rng):
    """Small whole numbers: most windows hold ties, in one plane and in several."""
    shape, options = case
    x = whole(rng, shape, dtype)
    z = _sizes(x, options)
    dy = normal(rng, z.out, dtype)
    top = naive.max_pool_forward(x, z)[0]
    y, cache = gpuconv.max_pool_forward(device.array(_stored(x, stored)), ties=ties, **options)
    dx = device.numpy(gpuconv.max_pool_backward(device.array(_stored(dy, stored)), cache))
    assert_same(device.numpy(y), top, dtype=dtype)
    ref, scale = (naive.max_pool_backward(a, None, z, ties=ties, x=x, y=top) for a in (dy, np.abs(dy)))
    assert_close(dx, ref, scale=scale, dtype=dtype)


@pairs(case=SIGNALS, stored=STORED, device=DEVICES, dtype=DTYPES)
def test_signals_are_images_of_one_row(case, stored, device, dtype, rng):
    shape, options = case
    x = whole(rng, shape, dtype)
    z = _sizes(x, options)
    dy = whole(rng, (z.N, z.C, z.Q), dtype)
    image, gradient = (image_of_signal(array).astype(np.float64) for array in (x, dy))
    expected, places = naive.max_pool_forward(image, z)

    def view(array):
        return np.ascontiguousarray(array.transpose(0, 2, 1)).transpose(0, 2, 1) if stored == "channels_last" else array

    y, argmax, dx = _max(device, view(x), view(dy), options)
    assert_same(y, signal_of_image(expected), dtype=dtype)
    np.testing.assert_array_equal(argmax, signal_of_image(places))
    assert_same(dx, signal_of_image(naive.max_pool_backward(gradient, places, z)), dtype=dtype)
    for ties in ("split", "every"):
        _, cache = gpuconv.max_pool_forward(device.array(view(x)), ties=ties, **options)
        dx = device.numpy(gpuconv.max_pool_backward(device.array(view(dy)), cache))
        ref, scale = (
            signal_of_image(naive.max_pool_backward(a, None, z, ties=ties, x=image, y=expected))
            for a in (gradient, np.abs(gradient))
        )
        assert_close(dx, ref, scale=scale, dtype=dtype)
    for count_pad in (True, False):
        y, dx = _average(device, view(x), view(dy), {**options, "count_pad": count_pad})
        for actual, function, array in (
            (y, naive.average_pool_forward, image),
            (dx, naive.average_pool_backward, gradient),
        ):
            ref, scale = (signal_of_image(function(a, z, count_pad=count_pad)) for a in (array, np.abs(array)))
            assert_close(actual, ref, scale=scale, dtype=dtype, terms=z.places, zero_mean=False)


@pairs(layout=LAYOUTS, options=OPTIONS, device=DEVICES)
def test_any_memory_layout(layout, options, device, rng):
    x = whole(rng, (2, 4, 3, 6, 7))
    z = _sizes(x, options)
    dy = whole(rng, z.out)
    expected, places = naive.max_pool_forward(x, z)
    refs = naive.max_pool_backward(dy, places, z), naive.average_pool_forward(x, z, count_pad=True)
    for arrays in ((layout(x), dy), (x, layout(dy)), (layout(x), layout(dy))):
        y, argmax, dx = _max(device, *arrays, options)
        assert_same(y, expected)
        np.testing.assert_array_equal(argmax, places)
        assert_same(dx, refs[0])
        assert is_channels_last(y) == is_channels_last(arrays[0]) == is_channels_last(dx)
        y, dx = _average(device, *arrays, options)
        assert_close(y, refs[1], scale=naive.average_pool_forward(np.abs(x), z, count_pad=True), dtype=y.dtype)
        assert is_channels_last(y) == is_channels_last(arrays[0])
        assert is_channels_last(dx) == is_channels_last(arrays[1])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_random_specials_match_oracle(options, device, dtype, rng):
    """NaN, infinities and both zeros, in one plane of a window and in several."""
    x = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0], (4, 3, 5, 6, 7)).astype(dtype)
    z = _sizes(x, options)
    dy = whole(rng, z.out, dtype)
    expected, places = naive.max_pool_forward(x, z)
    for stored in ("c_order", "channels_last"):
        y, argmax, dx = _max(device, _stored(x, stored), dy, options)
        assert_same_bits(y, expected.astype(dtype))
        np.testing.assert_array_equal(argmax, places)
        assert_same(dx, naive.max_pool_backward(dy, places, z), dtype=dtype)


_INF, _NAN = np.inf, np.nan
WINDOWS = {  # name: two planes of two rows, place of the winner
    "first_of_equal_planes_wins": ([1, 3, 3, 1, 3, 3, 3, 3], 1),
    "later_plane_is_greater": ([1, 3, 3, 1, 2, 2, 4, 4], 6),
    "nan_in_a_later_plane": ([_INF, 1, 2, 3, 5, _NAN, 6, _NAN], 5),
    "first_of_two_planes_with_nan": ([1, 2, 3, _NAN, _NAN, 1, 1, 1], 3),
    "zero_after_minus_zero": ([-0.0, -1, -0.0, -1, 0.0, 0.0, 0.0, 0.0], 0),
    "minus_zero_after_zero": ([-1, 0.0, -1, -1, -0.0, -0.0, -0.0, -0.0], 1),
    "all_minus_infinity": ([-_INF] * 8, 0),
    "nan_after_minus_infinities": ([-_INF] * 7 + [_NAN], 7),
}


@pairs(window=WINDOWS, stored=STORED, device=DEVICES, dtype=DTYPES)
def test_winner_of_one_window(window, stored, device, dtype):
    values, winner = window
    x = np.arange(2 * 2 * 4 * 4 * 4, dtype=dtype).reshape(2, 2, 4, 4, 4)
    x[1, 0, 2:, :2, 2:] = np.reshape(values, (2, 2, 2))
    dy = np.arange(1, 33, dtype=dtype).reshape(2, 2, 2, 2, 2)
    y, argmax, dx = _max(device, _stored(x, stored), _stored(dy, stored), {"window": 2})
    expected, places = x[..., 1::2, 1::2, 1::2].copy(), np.full(dy.shape, 7)
    expected[1, 0, 1, 0, 1], places[1, 0, 1, 0, 1] = values[winner], winner
    assert_same_bits(y, expected)
    np.testing.assert_array_equal(argmax, places)
    assert dx[1, 0, 2 + winner // 4, winner // 2 % 2, 2 + winner % 2] == dy[1, 0, 1, 0, 1]
    assert_same(dx.reshape(2, 2, 2, 2, 2, 2, 2, 2).sum(axis=(3, 5, 7), dtype=dtype), dy)


@pytest.mark.parametrize("fill", [-_INF, _NAN, -1.0])
@pytest.mark.parametrize(
    "options", [{"window": 2, "pad": 1}, {"window": 3, "stride": 1, "pad": 1}, {"window": 2, "pad": (1, 0, 0)}], ids=str
)
def test_padding_never_wins(fill, options, device, dtype):
    """Not even against minus infinity: the gradient goes to the first real pixel of the window."""
    x = np.full((1, 2, 3, 4, 3), fill, dtype)
    z = _sizes(x, options)
    dy = np.ones(z.out, dtype)
    expected, places = naive.max_pool_forward(x, z)
    y, argmax, dx = _max(device, x, dy, options)
    assert_same(y, expected, dtype=dtype)
    np.testing.assert_array_equal(argmax, places)
    assert_same(dx, naive.max_pool_backward(dy, places, z), dtype=dtype)


@pytest.mark.parametrize("value", [_NAN, _INF, -_INF])
def test_special_gradient_reaches_only_its_winner(value, device, dtype, rng):
    options = {"window": 3, "stride": 1, "pad": 1}
    x = rng.permutation(2 * 4 * 3 * 4).reshape(1, 2, 4, 3, 4).astype(dtype)
    dy = np.ones(x.shape, dtype)
    dy[0, 1, 2, 1, 1] = value
    assert (~np.isfinite(_max(device, x, dy, options)[2])).sum() == 1


@pytest.mark.parametrize("stored", ["c_order", "channels_last"])
def test_nan_and_infinity_reach_their_windows_only(stored, device, dtype, rng):
    options = {"window": 3, "stride": 1, "pad": 1}
    x = whole(rng, (1, 2, 4, 5, 4), dtype)
    dy = whole(rng, x.shape, dtype)
    x[0, 0, 0, 2, 2], x[0, 1, 3, 0, 3], dy[0, 1, 2, 2, 0] = _NAN, _INF, -_INF
    z = _sizes(x, options)
    y, dx = _average(device, _stored(x, stored), _stored(dy, stored), {**options, "count_pad": False})
    for actual, ref in (
        (y, naive.average_pool_forward(x, z, count_pad=False)),
        (dx, naive.average_pool_backward(dy, z, count_pad=False)),
    ):
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(ref))
        np.testing.assert_array_equal(np.isinf(actual), np.isinf(ref))
        assert 0 < (~np.isfinite(actual)).sum() < actual.size / 2


def test_float16_sums_are_rounded_once(device):
    """Sums of planes between two steps would lose the 1 beside 2048, and are beyond float16 for whole volumes."""
    x = np.zeros((1, 1, 2, 2, 2), np.float16)
    x[0, 0, 0, 0], x[0, 0, 1, 0, 0] = (2048, 1), -2048
    assert device.numpy(gpuconv.average_pool_forward(device.array(x))[0]) == np.float16(0.125)
    x = np.full((1, 1, 16, 16, 16), 1024, np.float16)
    y, cache = gpuconv.average_pool_forward(device.array(x), window=16)
    assert_same(device.numpy(y), np.full((1, 1, 1, 1, 1), 1024, np.float16))
    assert_same(device.numpy(gpuconv.average_pool_backward(y, cache)), np.full(x.shape, 0.25, np.float16))


# Algebra ------------------------------------------------------------------------------------------------------------


@st.composite
def _volumes(draw):
    window = tuple(draw(st.integers(1, 3)) for _ in range(3))
    dilation = draw(st.sampled_from([(1, 1, 1), (2, 1, 3)]))
    options = {
        "window": window,
        "stride": tuple(draw(st.integers(1, 3)) for _ in range(3)),
        "pad": tuple((draw(st.integers(0, size // 2)), draw(st.integers(0, size // 2))) for size in window),
        "dilation": dilation,
        "ceil": draw(st.booleans()),
    }
    reach = ((size - 1) * apart + 1 for size, apart in zip(window, dilation, strict=True))
    return (2, draw(st.integers(1, 4)), *(size + draw(st.integers(0, 3)) for size in reach)), options


@given(_volumes(), st.integers(0, 2**32))
def test_gradients_of_maxima_add_up(device, case, seed):
    """The sum of dx is that of dy, and <dx, x> = <dy, y>: exactly, on whole numbers."""
    shape, options = case
    rng = np.random.default_rng(seed)
    x = whole(rng, shape, largest=9)
    dy = whole(rng, _sizes(x, options).out)
    y, _, dx = _max(device, x, dy, options)
    assert dx.sum() == dy.sum()
    assert np.vdot(dx, x) == np.vdot(dy, y)


@given(_volumes(), st.integers(0, 2**32), st.booleans())
def test_average_and_its_gradient_are_adjoint(device, case, seed, count_pad):
    """<dy, pool(x)> = <dx, x>; every term is rounded a few times: 16 u of the sum of their sizes."""
    shape, options = case
    rng = np.random.default_rng(seed)
    x = normal(rng, shape)
    z = _sizes(x, options)
    dy = normal(rng, z.out)
    y, dx = _average(device, x, dy, {**options, "count_pad": count_pad})
    size = np.vdot(np.abs(dy), naive.average_pool_forward(np.abs(x), z, count_pad=count_pad))
    assert abs(np.vdot(dy, y) - np.vdot(dx, x)) <= 16 * 2.0**-53 * size


@pytest.mark.parametrize("name", ["every_axis_differs", "overlapping", "more_than_256_places"])
def test_64_bit_indices(name, gpu, rng, monkeypatch):
    """The kernels for arrays of 2^31 elements, on small ones."""
    monkeypatch.setattr(pool_volume, "volume_pool_index", lambda z: INT64)
    shape, options = CASES[name]
    x = whole(rng, shape, "float32")
    z = _sizes(x, options)
    dy = whole(rng, z.out, "float32")
    expected, places = naive.max_pool_forward(x, z)
    for stored in ("c_order", "channels_last"):
        y, argmax, dx = _max(gpu, _stored(x, stored), _stored(dy, stored), options)
        assert_same(y, expected, dtype="float32")
        np.testing.assert_array_equal(argmax, places)
        assert_same(dx, naive.max_pool_backward(dy, places, z), dtype="float32")
        y, dx = _average(gpu, _stored(x, stored), _stored(dy, stored), options)
        ref, scale = (naive.average_pool_forward(a, z, count_pad=True) for a in (x, np.abs(x)))
        assert_close(y, ref, scale=scale, dtype="float32", terms=z.places)


@pytest.mark.parametrize(("depth", "bits"), [(2**31 - 8, 32), (2**31 - 1, 64)])
def test_64_bit_indices_only_where_needed(depth, bits):
    z = pool_sizes(np.broadcast_to(np.float32(0), (1, 1, depth, 1, 1)), window=(2, 1, 1), stride=None, pad=0)
    assert pool_volume.volume_pool_index(z).itemsize == bits // 8


@pytest.mark.large
def test_same_bits_for_any_number_of_threads(device, rng, monkeypatch):
    x = normal(rng, (20, 4, 8, 20, 20), "float32")
    options = {"window": 3, "stride": 2, "pad": 1}
    dy = normal(rng, _sizes(x, options).out, "float32")
    for stored in ("c_order", "channels_last"):
        runs = []
        for threads in ("1", "2", "3"):
            monkeypatch.setenv("GPUCONV_THREADS", threads)
            arrays = _stored(x, stored), _stored(dy, stored)
            results = *_max(device, *arrays, options), *_average(device, *arrays, options)
            runs.append([array.tobytes() for array in results])
        assert runs[0] == runs[1] == runs[2]


# The oracle against PyTorch -----------------------------------------------------------------------------------------


def _torch_places(index, z, axes):
    """Return PyTorch's indices into the image as places in the windows."""
    size, window, stride, pad, dilation = (values[3 - axes :] for values in _triples(z))
    pixels = np.unravel_index(index, size)
    out = np.indices(index.shape)[2:]
    taps = [(i - (o * s - p)) // d for i, o, s, p, d in zip(pixels, out, stride, pad, dilation, strict=True)]
    return np.ravel_multi_index(taps, window)


def _triples(z):
    if hasattr(z, "D"):
        return (z.D, z.H, z.W), (z.T, z.R, z.S), z.stride, z.pad, z.dilation
    return (1, z.H, z.W), (1, z.R, z.S), (1, *z.stride), (0, *z.pad), (1, *z.dilation)


@pytest.mark.parametrize("name", [*CASES, *(f"signal_{name}" for name in SIGNALS)])
def test_oracle_agrees_with_pytorch(name, rng):
    torch = pytest.importorskip("torch")
    shape, options = CASES[name] if name in CASES else SIGNALS[name.removeprefix("signal_")]
    if shape[0] == 0:
        pytest.skip("PyTorch has no indices of an empty batch")
    axes = len(shape) - 2
    x = whole(rng, shape)
    z = _sizes(x, options)
    if z.pad != z.behind:
        pytest.skip("PyTorch's pools have as much padding on both sides")
    if any(2 * pad > (taps - 1) * apart + 1 for pad, taps, apart in zip(z.pad, z.window, z.dilation, strict=True)):
        pytest.skip("PyTorch's pools have padding of half a window at most")
    _, window, stride, pad, dilation = (values[3 - axes :] for values in _triples(z))
    pooled, ceil = torch.from_numpy(x).requires_grad_(), options.get("ceil", False)
    function = getattr(torch.nn.functional, f"max_pool{axes}d")
    y, index = function(pooled, window, stride, pad, dilation, ceil, return_indices=True)
    dy = whole(rng, tuple(y.shape))

    image, gradient = (image_of_signal(a) if axes == 1 else a for a in (x, dy))
    got, places = naive.max_pool_forward(image, z)
    dx = naive.max_pool_backward(gradient, places, z)
    if axes == 1:
        got, places, dx = map(signal_of_image, (got, places, dx))
    np.testing.assert_array_equal(got, y.detach().numpy())
    np.testing.assert_array_equal(places, _torch_places(index.numpy(), z, axes))
    np.testing.assert_array_equal(dx, torch.autograd.grad(y, pooled, torch.from_numpy(dy))[0].numpy())
    if name == "window_larger_than_the_volume" or "dilation" in options:
        return  # which PyTorch refuses to average
    for count_pad in (True, False):
        average = getattr(torch.nn.functional, f"avg_pool{axes}d")
        y = average(pooled, window, stride, pad, ceil, count_pad)
        got = naive.average_pool_forward(image, z, count_pad=count_pad)
        dx = naive.average_pool_backward(gradient, z, count_pad=count_pad)
        (size,), (size_dy,) = absolute(image), absolute(gradient)
        scale = naive.average_pool_forward(size, z, count_pad=count_pad)
        dx_scale = naive.average_pool_backward(size_dy, z, count_pad=count_pad)
        if axes == 1:
            got, dx, scale, dx_scale = map(signal_of_image, (got, dx, scale, dx_scale))
        grad = torch.autograd.grad(y, pooled, torch.from_numpy(dy))[0].numpy()
        options_of_rule = {"dtype": "float64", "terms": z.places, "zero_mean": False}
        assert_close(y.detach().numpy(), got, scale=scale, **options_of_rule)
        assert_close(grad, dx, scale=dx_scale, **options_of_rule)
