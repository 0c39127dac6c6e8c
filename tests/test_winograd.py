"""Winograd's F(2x2, 3x3): where it serves, what it keeps exactly, and how far its rounding reaches."""

import numpy as np
import pytest
from compare import assert_close

import gpuconv
from gpuconv.cpu import correlation
from gpuconv.cpu.windows import Block

FORMATS = {"NCHW": lambda a: a, "NHWC": lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)}

# (N, C, H, W), K, pad: sizes that do and do not divide into tiles, and that cut images in different ways.
CASES = {
    "whole_tiles": ((9, 16, 16, 16), 24, 1),
    "odd_sizes": ((5, 18, 23, 25), 17, 1),
    "no_padding": ((3, 16, 30, 33), 16, 0),
    "wide_padding": ((6, 16, 22, 21), 20, (3, 2)),
    "one_large_image": ((1, 32, 61, 64), 32, 1),
    "images_smaller_than_a_block": ((130, 16, 5, 4), 32, 1),
    "one_row": ((2100, 16, 1, 1), 16, 1),
}
case = pytest.mark.parametrize(("shape", "K", "pad"), CASES.values(), ids=CASES.keys())
stored = pytest.mark.parametrize("stored", FORMATS.values(), ids=FORMATS.keys())


@pytest.fixture
def served(monkeypatch):
    """Tell of each sum over windows whether Winograd's method serves it."""
    calls = []

    def method(*args):
        name = original(*args)
        calls.append(name == "winograd")
        return name

    original = correlation._method
    monkeypatch.setattr(correlation, "_method", method)
    return calls


@pytest.fixture
def exactly(monkeypatch):
    """Return a function that computes without Winograd's method."""

    def run(function, *args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(correlation, "_method", lambda *_: "conv")
            return function(*args, **options)

    return run


def _both_ways(x, w, b, dy, pad):
    y, cache = gpuconv.conv_forward(x, w, b, pad=pad)
    return y, *gpuconv.conv_backward(dy, cache)


@case
@stored
def test_whole_numbers_are_exact(shape, K, pad, stored, rng, served):
    x = stored(rng.integers(-4, 5, shape).astype(np.float32))
    w, b = rng.integers(-4, 5, (K, shape[1], 3, 3)).astype(np.float32), rng.integers(-4, 5, K).astype(np.float32)
    y, _ = gpuconv.conv_forward(x, w, b, pad=pad)
    dy = stored(rng.integers(-4, 5, y.shape).astype(np.float32))
    got = _both_ways(x, w, b, dy, pad)
    assert all(served)
    wide = _both_ways(*(a.astype(np.float64) for a in (x, w, b, dy)), pad)
    for actual, wanted in zip(got, wide, strict=True):
        np.testing.assert_array_equal(actual, wanted)


@case
@stored
def test_rounding_is_that_of_a_sum(shape, K, pad, stored, rng, served):
    x, w = stored(rng.standard_normal(shape).astype(np.float32)), rng.standard_normal((K, shape[1], 3, 3), np.float32)
    b = rng.standard_normal(K, np.float32)
    y, _ = gpuconv.conv_forward(x, w, b, pad=pad)
    dy = stored(rng.standard_normal(y.shape).astype(np.float32))
    got = _both_ways(x, w, b, dy, pad)
    assert all(served)
    wide = [a.astype(np.float64) for a in (x, w, b, dy)]
    for actual, wanted, size in zip(got, _both_ways(*wide, pad), _both_ways(*map(np.abs, wide), pad), strict=True):
        assert_close(actual, wanted, scale=size, dtype="float32")


def test_a_large_pixel_spoils_only_its_own_windows(rng):
    """An output of F(2, 3) is made of its own three pixels: beside the windows over a large one, nothing is lost."""
    x = rng.standard_normal((1, 16, 64, 64)).astype(np.float32)
    w = rng.standard_normal((16, 16, 3, 3), np.float32)
    x[0, :, 20, 21] *= 1e6
    wide = [a.astype(np.float64) for a in (x, w)]
    got, wanted, size = (gpuconv.conv_forward(*pair, pad=1)[0] for pair in ((x, w), wide, map(np.abs, wide)))
    outside = np.ones((64, 64), bool)
    outside[19:22, 20:23] = False
    assert_close(got[..., outside], wanted[..., outside], scale=size[..., outside], dtype="float32")


def _some(rng, array, share):
    """Return an array with so large a share of its values, and 0 elsewhere."""
    return array * (rng.random(array.shape) < share).astype(np.float32)


def _at(array, place, value):
    array = array.copy()
    array[place] = value
    return array


def _heavy_tailed(rng, array, spread):
    """Return values of both signs whose sizes lie e^spread times apart."""
    return array * np.exp(spread * rng.standard_normal(array.shape)).astype(np.float32)


def _dirac(w):
    """Return filters that pass on one channel each."""
    filters = np.zeros_like(w)
    filters[range(len(w)), np.arange(len(w)) % w.shape[1], 1, 1] = 1
    return filters


_ALL = slice(None)
_PIXEL, _TAP = (_ALL, 0, 5, 5), (_ALL, 0, 1, 1)

# What normal x, w and dy become: numbers of one size among zeros, which may meet zeros only, or a few that are far larger
# than all others.
FEW = {
    "half_rectified": lambda rng, x, w, dy: (np.maximum(x, 0), w, dy),
    "a_tenth_of_pixels": lambda rng, x, w, dy: (_some(rng, x, 0.1), w, dy),
    "a_fiftieth_of_pixels": lambda rng, x, w, dy: (_some(rng, x, 0.02), w, dy),
    "a_thousandth_of_pixels": lambda rng, x, w, dy: (_some(rng, x, 0.001), w, dy),
    "few_gradients": lambda rng, x, w, dy: (x, w, _some(rng, dy, 0.01)),
    "few_pixels_and_gradients": lambda rng, x, w, dy: (_some(rng, x, 0.03), w, _some(rng, dy, 0.03)),
    "few_taps": lambda rng, x, w, dy: (np.maximum(x, 0), _some(rng, w, 0.1), dy),
    "few_of_all": lambda rng, x, w, dy: (_some(rng, x, 0.2), _some(rng, w, 0.2), _some(rng, dy, 0.2)),
    "dirac": lambda rng, x, w, dy: (x, _dirac(w), dy),
    "a_column_of_taps": lambda rng, x, w, dy: (x, _at(w, (..., slice(1)), 0), dy),
    "taps_above_the_middle": lambda rng, x, w, dy: (x, _at(_at(w, (..., 2, _ALL), 0), (..., 1, slice(1, 3)), 0), dy),
    "every_second_pixel": lambda rng, x, w, dy: (
        _at(_at(x, (..., slice(1, None, 2), _ALL), 0), (..., slice(1, None, 2)), 0),
        _at(w, (..., 1), 0),
        _at(dy, (..., slice(1, None, 2)), 0),
    ),
    "one_channel": lambda rng, x, w, dy: (_at(x, (_ALL, slice(1, None)), 0), w, _at(dy, (_ALL, slice(1, None)), 0)),
    "a_nearly_dead_channel": lambda rng, x, w, dy: (_at(x, (_ALL, 3), _some(rng, x[:, 3], 1e-3)), w, dy),
    "tiny": lambda rng, x, w, dy: (x * np.float32(1e-25), w, dy * np.float32(1e-25)),
    "small": lambda rng, x, w, dy: (x * np.float32(1e-17), w, dy * np.float32(1e-17)),
    "large": lambda rng, x, w, dy: (x * np.float32(1e17), w, dy * np.float32(1e17)),
    "huge": lambda rng, x, w, dy: (x * np.float32(1e30), w * np.float32(1e5), dy),
}
LARGE = {
    "a_pixel_of_1e6": lambda rng, x, w, dy: (_at(x, _PIXEL, 1e6), w, dy),
    "a_pixel_of_1e3": lambda rng, x, w, dy: (_at(x, _PIXEL, 1e3), w, dy),
    "a_pixel_where_no_tap_meets_it": lambda rng, x, w, dy: (_at(x, _PIXEL, 1e6), _at(w, (..., 1, 1), 0), dy),
    "a_pixel_of_one_image": lambda rng, x, w, dy: (_at(x, (0, 0, 5, 5), 1e6), w, dy),
    "a_gradient_of_1e6": lambda rng, x, w, dy: (x, w, _at(dy, (0, 0, 5, 5), 1e6)),
    "both_of_1e6": lambda rng, x, w, dy: (_at(x, (0, _ALL, 5, 5), 1e6), w, _at(dy, (0, _ALL, 5, 6), 1e6)),
    "a_tap_of_1e3": lambda rng, x, w, dy: (x, _at(w, _TAP, 1e3), dy),
    "dirac_and_noise": lambda rng, x, w, dy: (x, _dirac(w) + w * np.float32(1e-3), dy),
    "a_large_channel": lambda rng, x, w, dy: (_at(x, (_ALL, 0), 99 * x[:, 0]), _at(w, (_ALL, 0), 99 * w[:, 0]), dy),
    "heavy_tailed_pixels": lambda rng, x, w, dy: (_heavy_tailed(rng, x, 2), w, dy),
    "heavy_tailed_taps": lambda rng, x, w, dy: (x, _heavy_tailed(rng, w, 2), dy),
    "heavy_tailed_gradients": lambda rng, x, w, dy: (x, w, _heavy_tailed(rng, dy, 2)),
    "heavy_tailed_all": lambda rng, x, w, dy: [_heavy_tailed(rng, each, 1.5) for each in (x, w, dy)],
}
SIZES = {"few_channels": ((9, 16, 16, 16), 16), "odd": ((5, 18, 23, 25), 17), "many": ((3, 96, 28, 28), 64)}


def _assert_rule(x, w, dy, pad=1, *, zero_mean=False):
    """Check the tolerance rule, for any data unless they are zero-mean and of one size."""
    b = np.zeros(len(w), np.float32)
    got = _both_ways(x, w, b, dy, pad)
    wide = [a.astype(np.float64) for a in (x, w, b, dy)]
    terms = w[0].size, w[:, 0].size, dy[:, 0].size, dy[:, 0].size
    results = zip(got, _both_ways(*wide, pad), _both_ways(*map(np.abs, wide), pad), terms, strict=True)
    for actual, wanted, size, count in results:
        assert_close(actual, wanted, scale=size, dtype="float32", terms=count, zero_mean=zero_mean)


@pytest.mark.parametrize("uneven", [*FEW, *LARGE])
@pytest.mark.parametrize(("shape", "K"), SIZES.values(), ids=SIZES.keys())
def test_few_numbers_make_a_sum(shape, K, uneven, rng, served):
    x, w, dy = (rng.standard_normal(s, np.float32) for s in (shape, (K, shape[1], 3, 3), (shape[0], K, *shape[2:])))
    stored = FORMATS["NHWC" if shape[1] == 18 else "NCHW"]
    x, w, dy = (FEW | LARGE)[uneven](rng, x, w, dy)
    _assert_rule(stored(x), w, stored(dy), zero_mean=uneven in FEW)
    assert any(served)


@pytest.mark.parametrize("seed", range(24))
def test_any_share_and_any_spread(seed):
    rng = np.random.default_rng(seed)
    C, K = rng.integers(16, 40, 2)
    shapes = (2, C, 33, 36), (K, C, 3, 3), (2, K, 33, 36)
    arrays = [
        _some(rng, _heavy_tailed(rng, rng.standard_normal(s, np.float32), 3 * rng.random()), 10 ** -(2 * rng.random()))
        for s in shapes
    ]
    _assert_rule(*arrays)


@pytest.fixture
def left(monkeypatch):
    """Tell what Winograd's method leaves to be done tap by tap: blocks of a correlation, filters and channels of dw."""
    results = []

    def noted(function, choose):
        def run(*args):
            result = function(*args)
            results.append(choose(result))
            return result

        return run

    winograd = correlation.passes("winograd", np.dtype(np.float32))
    monkeypatch.setattr(winograd, "correlate", noted(winograd.correlate, lambda blocks: blocks))
    monkeypatch.setattr(
        winograd, "weight_gradient", noted(winograd.weight_gradient, lambda result: [list(r) for r in result[1:]])
    )
    return results


@pytest.mark.parametrize("kind", ["normal", "half_rectified"])
@pytest.mark.parametrize("C", [32, 96])
@stored
def test_ordinary_data_leave_nothing(C, kind, stored, rng, left):
    x, w = rng.standard_normal((3, C, 30, 28), np.float32), rng.standard_normal((48, C, 3, 3), np.float32)
    dy = rng.standard_normal((3, 48, 30, 28), np.float32)
    _both_ways(stored(np.maximum(x, 0) if kind == "half_rectified" else x), w, None, stored(dy), 1)
    assert left == [[], [[], []], []]


@stored
def test_only_what_is_uneven_is_left(stored, rng, left):
    x, w = rng.standard_normal((3, 32, 30, 28), np.float32), rng.standard_normal((48, 32, 3, 3), np.float32)
    dy = rng.standard_normal((3, 48, 30, 28), np.float32)
    x[1, 7, 9, 12] = 1e6
    dy[2, 5, 28, 0] = 1e7
    _both_ways(stored(x), w, None, stored(dy), 1)
    forward, weights, backward = left
    assert forward == [Block(1, 2, 8, 12)]  # rows 8 to 10, in whole tiles
    assert backward == [Block(2, 3, 26, 30)]
    assert weights == [[5], [7]]


@pytest.mark.parametrize(("filters", "channels"), [([2], []), ([], [3, 9]), ([0, 15], [1]), (range(1, 24), [])])
def test_uneven_filters_and_channels_of_weights(filters, channels, rng, left):
    """Of the last ones there are too many for the others to be worth it."""
    x, w = rng.standard_normal((3, 32, 30, 28), np.float32), rng.standard_normal((24, 32, 3, 3), np.float32)
    dy = rng.standard_normal((3, 24, 30, 28), np.float32)
    x[0, channels, 4, 4] = 1e6
    dy[0, filters, 5, 4] = 1e6
    _assert_rule(x, w, dy)
    assert left[1] == [list(filters), list(channels)]


@stored
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.finfo(np.float32).max])
@pytest.mark.parametrize("where", ["x", "w", "dy"])
def test_what_is_not_finite_stays_in_its_windows(value, where, stored, rng, exactly):
    arrays = {
        "x": stored(rng.integers(-4, 5, (3, 16, 29, 27)).astype(np.float32)),
        "w": rng.integers(-4, 5, (16, 16, 3, 3)).astype(np.float32),
        "b": rng.integers(-4, 5, 16).astype(np.float32),
        "dy": stored(rng.integers(-4, 5, (3, 16, 29, 27)).astype(np.float32)),
    }
    arrays[where][1, 2, 0, 1] = value
    if where != "w":
        arrays[where][2, 3, -1, -1] = value
    got = _both_ways(*arrays.values(), pad=1)
    wanted = exactly(_both_ways, *arrays.values(), pad=1)
    for actual, expected in zip(got, wanted, strict=True):
        if np.isfinite(value):  # rounded to the large number in the windows around it, and exact elsewhere
            np.testing.assert_allclose(actual, expected, rtol=2.0**-19, atol=2.0**-19 * value * 16)
        else:
            np.testing.assert_array_equal(actual, expected)


@stored
@pytest.mark.parametrize("uneven", ["a_tenth_of_pixels", "heavy_tailed_all", "a_nearly_dead_channel"])
def test_equal_bits_for_any_number_of_threads(uneven, stored, rng, monkeypatch):
    x, w = (
        stored(rng.standard_normal((6, 32, 32, 32)).astype(np.float32)),
        rng.standard_normal((32, 32, 3, 3), np.float32),
    )
    dy = stored(rng.standard_normal((6, 32, 32, 32)).astype(np.float32))
    x[3:], w, dy[3:] = (FEW | LARGE)[uneven](rng, x[3:], w, dy[3:])
    results = []
    for threads in "13":
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        results.append(_both_ways(x, w, None, dy, 1)[:3])
    for one, three in zip(*results, strict=True):
        np.testing.assert_array_equal(one, three)


def test_float16_is_summed_in_float32(rng, served):
    x, w = (rng.standard_normal(s).astype(np.float16) for s in ((4, 16, 24, 24), (16, 16, 3, 3)))
    y, _ = gpuconv.conv_forward(x, w, pad=1)
    assert served == [True]
    wide = [a.astype(np.float64) for a in (x, w)]
    (wanted, _), (size, _) = (gpuconv.conv_forward(*arrays, pad=1) for arrays in (wide, map(np.abs, wide)))
    assert_close(y, wanted, scale=size, dtype="float16")


@pytest.mark.parametrize(
    "reason",
    [
        {"dtype": np.float64},
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"filter": 5},
        {"C": 8},
        {"K": 8},
        {"N": 1},
    ],
    ids=lambda reason: next(iter(reason)),
)
def test_other_cases_are_left_alone(reason, rng, served):
    z = {"dtype": np.float32, "stride": 1, "dilation": 1, "groups": 1, "filter": 3, "C": 32, "K": 32, "N": 8} | reason
    x = rng.standard_normal((z["N"], z["C"], 20, 20)).astype(z["dtype"])
    w = rng.standard_normal((z["K"], z["C"] // z["groups"], z["filter"], z["filter"])).astype(z["dtype"])
    gpuconv.conv_forward(x, w, pad=1, stride=z["stride"], dilation=z["dilation"], groups=z["groups"])
    assert served == [False]
