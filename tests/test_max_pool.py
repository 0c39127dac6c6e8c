"""Max-pooling, forward and backward: values and places bit for bit, gradients where they belong."""

import itertools

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, assert_same_bits, normal, whole
from hypothesis import given
from hypothesis import strategies as st
from pairs import DEVICES, DTYPES, STORED, pairs
from places import LAYOUTS

import gpuconv
from gpuconv import naive
from gpuconv.pool_shapes import pool_sizes
from gpuconv.shapes import is_channels_last, out_size

# Windows that stick out behind, or have gaps: why the case exists: (x, options)
ODD = {
    "ceil_adds_a_row_and_a_column": ((2, 3, 6, 8), {"window": 3, "stride": 2, "ceil": True}),
    "ceil_adds_to_tiles": ((2, 3, 7, 8), {"ceil": True}),
    "ceil_adds_nothing": ((2, 3, 6, 8), {"ceil": True}),
    "ceil_drops_a_window_behind_the_image": ((2, 3, 5, 6), {"window": 2, "stride": (3, 2), "pad": 1, "ceil": True}),
    "ceil_of_a_window_larger_than_the_image": ((1, 2, 2, 3), {"window": 5, "stride": 7, "pad": 1, "ceil": True}),
    "padded_behind": ((2, 3, 6, 7), {"window": 3, "stride": 2, "pad": ((0, 1), (1, 0))}),
    "padded_behind_to_whole_tiles": ((2, 3, 6, 8), {"pad": ((0, 0), (0, 1))}),
    "padded_by_all_but_a_tap": ((2, 3, 5, 6), {"window": 3, "stride": 1, "pad": 2}),
    "padded_by_all_but_a_tap_with_ceil": (
        (2, 8, 4, 5),
        {"window": (3, 4), "stride": (2, 3), "pad": (2, 3), "ceil": True},
    ),
    "padded_by_all_but_a_dilated_tap": (
        (2, 3, 5, 6),
        {"window": 2, "stride": (1, 2), "pad": ((3, 1), (0, 3)), "dilation": 3},
    ),
    "same": ((2, 3, 5, 6), {"window": (2, 3), "stride": 1, "pad": "same"}),
    "same_and_dilated": ((2, 8, 5, 6), {"window": (2, 3), "stride": 1, "pad": "same", "dilation": (3, 2)}),
    "dilated": ((2, 3, 9, 8), {"window": 3, "stride": 1, "dilation": 2}),
    "dilated_apart": ((2, 3, 9, 8), {"window": 2, "stride": 4, "dilation": 3}),
    "dilated_padded_with_stride": ((2, 3, 8, 9), {"window": 3, "stride": 2, "pad": (1, 0), "dilation": (1, 3)}),
    "dilated_with_ceil": ((2, 3, 8, 8), {"window": (3, 2), "stride": 3, "pad": 1, "dilation": 2, "ceil": True}),
    "dilated_wider_than_the_image": ((1, 2, 3, 4), {"window": 3, "stride": 1, "pad": 4, "dilation": 4}),
}

# why the case exists: (x, options)
CASES = {
    **ODD,
    "one_pixel": ((1, 1, 1, 1), {"window": 1}),
    "empty_batch": ((0, 3, 8, 8), {}),
    "halving": ((2, 3, 8, 8), {}),
    "stride_drops_last_column": ((2, 3, 6, 7), {}),
    "stride_drops_two_rows": ((2, 3, 8, 6), {"window": 3}),
    "overlapping": ((2, 3, 9, 9), {"window": 3, "stride": 2}),
    "overlapping_on_every_pixel": ((2, 2, 6, 6), {"window": 3, "stride": 1}),
    "overlapping_with_pad": ((2, 3, 7, 8), {"window": 3, "stride": 2, "pad": 1}),
    "overlap_as_large_as_what_is_left_out": ((2, 3, 6, 6), {"window": 3, "stride": 2}),
    "pad_is_half_the_window": ((2, 2, 4, 4), {"window": 4, "stride": 2, "pad": 2}),
    "pad_on_one_axis": ((2, 2, 5, 5), {"window": (2, 3), "stride": (1, 2), "pad": (0, 1)}),
    "windows_with_one_real_pixel": ((1, 2, 2, 2), {"window": 2, "pad": 1}),
    "stride_larger_than_window": ((2, 3, 9, 10), {"window": 2, "stride": 4}),
    "stride_larger_than_image": ((2, 3, 4, 4), {"window": 3, "stride": 9}),
    "whole_image": ((2, 3, 5, 4), {"window": (5, 4)}),
    "window_larger_than_image": ((2, 3, 2, 2), {"window": 4, "pad": 1}),
    "asymmetric_pairs": ((2, 3, 9, 10), {"window": (2, 5), "stride": (3, 2), "pad": (1, 2)}),
    "window_1_stride_2": ((2, 3, 5, 6), {"window": 1, "stride": 2}),
    "one_row": ((2, 3, 1, 9), {"window": (1, 3), "stride": (1, 2)}),
    "one_column": ((2, 3, 9, 1), {"window": (3, 1), "stride": (2, 1)}),
    "primes": ((1, 5, 11, 13), {"window": (3, 2), "stride": (2, 3)}),
    "wide_image": ((1, 1, 32, 256), {}),
    "tall_image": ((1, 1, 256, 32), {}),
    "channels_above_a_power_of_two": ((1, 129, 5, 5), {"window": 3, "stride": 2}),
    "more_than_256_places": ((1, 1, 18, 20), {"window": (17, 16), "stride": 1}),
    "many_small_images": ((67, 1, 2, 2), {}),
}


def _channels_last(a):
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def _distinct(rng, shape, dtype):
    """Return well-spaced numbers without ties, both signs (exact in float16 up to 2048 of them)."""
    count = int(np.prod(shape))
    return (rng.permutation(count) - count // 2).reshape(shape).astype(dtype)


def _computed(device, x, dy, options):
    """Return y, argmax, dx as NumPy arrays; the inputs must come out as they went in."""
    before = x.copy(), dy.copy()
    dev_x, dev_dy = device.array(x), device.array(dy)
    y, cache = gpuconv.max_pool_forward(dev_x, **options)
    dx = gpuconv.max_pool_backward(dev_dy, cache)
    for array, copy in zip((dev_x, dev_dy), before, strict=True):
        np.testing.assert_array_equal(device.numpy(array), copy, "an input was changed")
    return device.numpy(y), device.numpy(cache.argmax), device.numpy(dx)


def _sizes(x, options):
    return pool_sizes(x, window=2, stride=None, pad=0) if not options else pool_sizes(x, **_full(options))


def _full(options):
    return {"window": 2, "stride": None, "pad": 0, **options}


def _overlap(z):
    return any(
        stride < (taps - 1) * apart + 1 for stride, taps, apart in zip(z.stride, z.window, z.dilation, strict=True)
    )


@pairs(case=CASES, make={"random": normal, "with_ties": whole}, stored=STORED, device=DEVICES, dtype=DTYPES)
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(case, make, stored, device, dtype, rng):
    """y and argmax bit for bit; dx too where windows do not overlap, else within 4 units of the few terms."""
    shape, options = case
    x = make(rng, shape, dtype)
    z = _sizes(x, options)
    dy = normal(rng, (z.N, z.C, z.P, z.Q), dtype)
    expected, places = naive.max_pool_forward(x, z)
    arrays = (_channels_last(x), _channels_last(dy)) if stored == "channels_last" else (x, dy)
    y, argmax, dx = _computed(device, *arrays, options)
    assert_same_bits(y, expected.astype(dtype))
    np.testing.assert_array_equal(argmax, places)
    ref = naive.max_pool_backward(dy, places, z)
    if _overlap(z):
        scale = naive.max_pool_backward(*absolute(dy), places, z)
        assert_close(dx, ref, scale=scale, dtype=dtype, c=4)
    else:
        assert_same(dx, ref, dtype=dtype)


@pairs(case=CASES, stored=STORED, device=DEVICES, dtype=DTYPES, place=False)
def test_gradient_is_exact_on_integers(case, stored, device, dtype, rng):
    shape, options = case
    x = whole(rng, shape, dtype)
    z = _sizes(x, options)
    dy = whole(rng, (z.N, z.C, z.P, z.Q), dtype)
    _, places = naive.max_pool_forward(x, z)
    arrays = (_channels_last(x), _channels_last(dy)) if stored == "channels_last" else (x, dy)
    assert_same(_computed(device, *arrays, options)[2], naive.max_pool_backward(dy, places, z), dtype=dtype)


@pairs(
    layout=LAYOUTS,
    options={
        "tiles": {},
        "overlapping_with_pad": {"window": 3, "stride": 2, "pad": 1},
        "overlapping_on_every_pixel": {"window": 3, "stride": 1},
    },
    device=DEVICES,
)
def test_any_memory_layout(layout, options, device, rng):
    x = whole(rng, (2, 4, 6, 7))
    z = _sizes(x, options)
    dy = whole(rng, (2, 4, z.P, z.Q))
    expected, places = naive.max_pool_forward(x, z)
    ref = naive.max_pool_backward(dy, places, z)
    for arrays in ((layout(x), dy), (x, layout(dy)), (layout(x), layout(dy))):
        y, argmax, dx = _computed(device, *arrays, options)
        assert_same(y, expected)
        np.testing.assert_array_equal(argmax, places)
        assert_same(dx, ref)
        assert is_channels_last(y) == is_channels_last(arrays[0]) == is_channels_last(dx)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_broadcast_views(axis, device, rng):
    shape = [2, 3, 6, 6]
    x = np.broadcast_to(whole(rng, [1 if i == axis else n for i, n in enumerate(shape)]), shape)
    dy = np.broadcast_to(whole(rng, (1, 1, 1, 1)), (2, 3, 3, 3))
    z = _sizes(x, {})
    expected, places = naive.max_pool_forward(x, z)
    y, _, dx = _computed(device, x, dy, {})
    assert_same(y, expected)
    assert_same(dx, naive.max_pool_backward(dy, places, z))


# Special values -----------------------------------------------------------------------------------------------------

_INF, _NAN = np.inf, np.nan
WINDOWS = {  # name: four values in row order, place of the winner
    "first_of_equal_values_wins": ([3, 3, 3, 3], 0),
    "first_of_two_maxima_wins": ([1, 5, 5, 2], 1),
    "last_wins": ([1, 2, 3, 4], 3),
    "all_negative": ([-4, -3, -5, -9], 1),
    "all_zero": ([0, 0, 0, 0], 0),
    "zero_after_minus_zero": ([-0.0, 0.0, -1, -0.0], 0),
    "minus_zero_after_zero": ([-1, 0.0, -0.0, -0.0], 1),
    "all_minus_infinity": ([-_INF, -_INF, -_INF, -_INF], 0),
    "minus_infinity_but_one": ([-_INF, -_INF, -60000, -_INF], 2),
    "infinity": ([1, 2, _INF, _INF], 2),
    "nan_beats_infinity": ([_INF, 1, _NAN, 2], 2),
    "nan_first": ([_NAN, _INF, 3, 4], 0),
    "nan_last": ([1, 2, 3, _NAN], 3),
    "first_of_two_nans": ([1, _NAN, 7, _NAN], 1),
    "all_nan": ([_NAN] * 4, 0),
    "nan_among_minus_infinities": ([-_INF, -_INF, -_INF, _NAN], 3),
}


@pairs(window=WINDOWS, stored=STORED, device=DEVICES, dtype=DTYPES)
def test_winner_of_one_window(window, stored, device, dtype):
    """In the middle of ordinary windows, so that nothing leaks to a neighbour."""
    values, winner = window
    x = np.arange(2 * 2 * 4 * 6, dtype=dtype).reshape(2, 2, 4, 6)
    x[1, 0, 2:4, 2:4] = np.reshape(values, (2, 2))
    dy = np.arange(1, 25, dtype=dtype).reshape(2, 2, 2, 3)
    expected = x[..., 1::2, 1::2].copy()
    places = np.full(dy.shape, 3)
    expected[1, 0, 1, 1], places[1, 0, 1, 1] = values[winner], winner
    dx_expected = np.zeros_like(x)
    dx_expected[..., 1::2, 1::2] = dy
    dx_expected[1, 0, 2:4, 2:4] = 0
    dx_expected[1, 0, 2 + winner // 2, 2 + winner % 2] = dy[1, 0, 1, 1]
    arrays = (_channels_last(x), _channels_last(dy)) if stored == "channels_last" else (x, dy)
    y, argmax, dx = _computed(device, *arrays, {})
    assert_same_bits(y, expected)
    np.testing.assert_array_equal(argmax, places)
    assert_same(dx, dx_expected)


@pytest.mark.parametrize("fill", [-_INF, _NAN, -1.0, -60000.0])
@pytest.mark.parametrize(
    "options",
    [
        {"window": 2, "pad": 1},
        {"window": 3, "stride": 1, "pad": 1},
        {"window": 5, "pad": 2},
        {"window": 5, "stride": 1, "pad": 2},
    ],
)
def test_padding_never_wins(fill, options, device, dtype):
    """Not even against minus infinity: the gradient goes to the first real pixel of the window."""
    x = np.full((2, 3, 5, 5), fill, dtype)
    z = _sizes(x, options)
    dy = np.ones((z.N, z.C, z.P, z.Q), dtype)
    expected, places = naive.max_pool_forward(x, z)
    y, argmax, dx = _computed(device, x, dy, options)
    assert_same(y, np.full(y.shape, fill, dtype))
    assert_same(y, expected, dtype=dtype)
    np.testing.assert_array_equal(argmax, places)
    assert_same(dx, naive.max_pool_backward(dy, places, z), dtype=dtype)
    assert dx.sum(dtype=np.float64) == dy.size


@pytest.mark.parametrize("options", [{}, {"window": 3, "stride": 1, "pad": 1}, {"window": 3, "stride": 2}], ids=str)
@pytest.mark.parametrize("value", [_NAN, _INF, -_INF])
def test_special_gradient_reaches_only_its_winner(value, options, device, dtype, rng):
    x = _distinct(rng, (2, 2, 6, 6), dtype)
    z = _sizes(x, options)
    dy = np.ones((z.N, z.C, z.P, z.Q), dtype)
    dy[1, 0, 1, 1] = value
    _, places = naive.max_pool_forward(x, z)
    dx = _computed(device, x, dy, options)[2]
    assert_same(dx, naive.max_pool_backward(dy, places, z), dtype=dtype)
    assert (~np.isfinite(dx)).sum() == 1


@pytest.mark.parametrize("options", [{"window": 3, "stride": 1}, {"window": 3, "stride": 2, "pad": 1}], ids=str)
def test_random_specials_match_oracle(options, device, dtype, rng):
    """Windows that overlap on NaN, infinities and both zeros."""
    x = rng.choice([_NAN, _INF, -_INF, 0.0, -0.0, 1.0, -1.0], (4, 3, 8, 9)).astype(dtype)
    z = _sizes(x, options)
    dy = whole(rng, (z.N, z.C, z.P, z.Q), dtype)
    expected, places = naive.max_pool_forward(x, z)
    for array in (x, _channels_last(x)):
        y, argmax, dx = _computed(device, array, dy, options)
        assert_same(y, expected, dtype=dtype)
        np.testing.assert_array_equal(argmax, places)
        assert_same(dx, naive.max_pool_backward(dy, places, z), dtype=dtype)


# PyTorch's own words for windows that stick out or have gaps; it refuses padding above half of the taps.
BY_PYTORCH = {
    name: case
    for name, case in ODD.items()
    if not ({"same"} & {case[1].get("pad")} or "behind" in name or name.startswith("padded_by_all_but"))
}


@pytest.mark.parametrize("name", [name for name in BY_PYTORCH if name != "dilated_wider_than_the_image"])
def test_the_oracle_of_odd_windows_is_pytorchs(name, rng):
    torch = pytest.importorskip("torch")
    shape, options = BY_PYTORCH[name]
    x = whole(rng, shape)
    z = _sizes(x, options)
    dy = whole(rng, z.out)
    y, places = naive.max_pool_forward(x, z)
    t = torch.from_numpy(x).requires_grad_()
    theirs = torch.nn.functional.max_pool2d(t, z.window, z.stride, z.pad, z.dilation, options.get("ceil", False))
    (dx,) = torch.autograd.grad(theirs, t, torch.from_numpy(dy))
    assert_same(y, theirs.detach().numpy())
    assert_same(naive.max_pool_backward(dy, places, z), dx.numpy())


@pytest.mark.parametrize("size", range(1, 12))
def test_ceil_keeps_the_windows_that_pytorch_keeps(size):
    torch = pytest.importorskip("torch")
    for window, stride, pad, dilation in itertools.product((1, 2, 3, 4), (1, 2, 3, 5), (0, 1, 2), (1, 2)):
        if 2 * pad > window:
            continue
        try:
            theirs = torch.nn.functional.max_pool1d(
                torch.ones(1, 1, size), window, stride, pad, dilation, ceil_mode=True
            )
        except RuntimeError:  # no window fits
            theirs = None
        count = out_size(size, window, stride, pad, dilation, ceil=True)
        assert count == theirs.shape[-1] if theirs is not None else count < 1


@pytest.mark.parametrize("name", ["padded_behind", "same", "same_and_dilated"])
def test_one_sided_padding_is_that_of_a_framed_image(name, device, rng):
    shape, options = ODD[name]
    x = whole(rng, shape)
    (top, left), (bottom, right) = _sizes(x, options).pad, _sizes(x, options).behind
    framed = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=-np.inf)
    y, _ = gpuconv.max_pool_forward(device.array(x), **options)
    expected, _ = gpuconv.max_pool_forward(device.array(framed), **{**options, "pad": 0})
    assert_same(device.numpy(y), device.numpy(expected))


# Second oracles, algebra, determinism -------------------------------------------------------------------------------


@pytest.mark.large
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((4, 64, 32, 32), {}),
        ((2, 64, 56, 56), {"window": 3, "stride": 2, "pad": 1}),
        ((3, 129, 31, 31), {"window": 3, "stride": 2}),
        ((2, 33, 17, 19), {"window": (5, 3), "stride": (2, 1), "pad": (2, 1)}),
        ((300, 8, 8, 8), {"window": 2}),
    ],
    ids=["halving", "resnet_stem", "channels_above_a_power_of_two", "asymmetric", "large_batch"],
)
@pytest.mark.parametrize("stored", ["c_order", "channels_last"])
def test_layers_of_real_nets_match_pytorch(shape, options, stored, device, rng):
    torch = pytest.importorskip("torch")
    x = whole(rng, shape, "float32", 20)
    z = _sizes(x, options)
    dy = whole(rng, (z.N, z.C, z.P, z.Q), "float32", 20)
    t = torch.from_numpy(x).requires_grad_()
    y_t = torch.nn.functional.max_pool2d(t, (z.R, z.S), z.stride, z.pad)
    (dx_t,) = torch.autograd.grad(y_t, t, torch.from_numpy(dy))
    arrays = (_channels_last(x), _channels_last(dy)) if stored == "channels_last" else (x, dy)
    y, _, dx = _computed(device, *arrays, options)
    assert_same(y, y_t.detach().numpy())
    assert_same(dx, dx_t.numpy())


@st.composite
def poolings(draw):
    """Draw sizes and options of a small pooling that fits."""

    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    window, stride, dilation, ceil = (
        pair(1, 5),
        pair(1, 5),
        draw(st.sampled_from([(1, 1), (2, 1), (3, 2)])),
        draw(st.booleans()),
    )
    reach = [(size - 1) * apart + 1 for size, apart in zip(window, dilation, strict=True)]
    pad = tuple((draw(st.integers(0, size - 1)), draw(st.integers(0, size - 1))) for size in reach)
    axes = zip(reach, pad, dilation, strict=True)
    H, W = (max(apart, size - sum(both)) + draw(st.integers(0, 6)) for size, both, apart in axes)
    N, C = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    options = {"window": window, "stride": stride, "pad": pad, "dilation": dilation, "ceil": ceil}
    return (N, C, H, W), options


@given(poolings(), st.integers(0, 2**32), st.sampled_from(["c_order", "channels_last"]))
def test_random_sizes_match_oracle(device, case, seed, stored):
    """Values and places as the oracle's; the gradient sums to that of dy."""
    rng = np.random.default_rng(seed)
    shape, options = case
    x = whole(rng, shape)
    z = _sizes(x, options)
    dy = whole(rng, (z.N, z.C, z.P, z.Q))
    expected, places = naive.max_pool_forward(x, z)
    arrays = (_channels_last(x), _channels_last(dy)) if stored == "channels_last" else (x, dy)
    y, argmax, dx = _computed(device, *arrays, options)
    assert_same(y, expected)
    np.testing.assert_array_equal(argmax, places)
    assert_same(dx, naive.max_pool_backward(dy, places, z))
    assert dx.sum() == dy.sum()
    assert np.vdot(dx, x) == np.vdot(dy, y)


@pytest.mark.large
@pytest.mark.parametrize("options", [{}, {"window": 3, "stride": 1, "pad": 1}], ids=str)
@pytest.mark.parametrize("stored", ["c_order", "channels_last"])
def test_same_bits_every_time_and_for_any_number_of_threads(options, stored, device, rng, monkeypatch):
    x = normal(rng, (50, 16, 20, 20), "float32")
    z = _sizes(x, options)
    dy = normal(rng, (z.N, z.C, z.P, z.Q), "float32")
    if stored == "channels_last":
        x, dy = _channels_last(x), _channels_last(dy)
    runs = []
    for threads in ("1", "2", "3", "2"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        runs.append([a.tobytes() for a in _computed(device, x, dy, options)])
    assert all(run == runs[0] for run in runs)


@pytest.mark.parametrize("shape", [(70_001, 1, 2, 2), (1, 70_001, 2, 2)], ids=["images", "channels"])
def test_more_planes_than_a_grid_axis_holds(shape, device, rng):
    x = whole(rng, shape, "float32", 100)
    dy = np.ones((*shape[:2], 1, 1), "float32")
    y, _, dx = _computed(device, x, dy, {})
    assert_same(y, x.max(axis=(2, 3), keepdims=True))
    assert_same(dx.sum(axis=(2, 3)), dy[..., 0, 0])


def test_changing_x_after_forward_does_not_move_the_gradient(device, rng):
    """The cache holds places, not the input."""
    before = whole(rng, (1, 2, 4, 4), largest=9)
    x, dy = device.array(before), device.array(np.ones((1, 2, 2, 2)))
    y, cache = gpuconv.max_pool_forward(x)
    first = device.numpy(gpuconv.max_pool_backward(dy, cache))
    x[...] = device.array(-before)
    y[...] = 0
    assert_same(device.numpy(gpuconv.max_pool_backward(dy, cache)), first)
