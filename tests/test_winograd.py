"""Winograd's F(2x2, 3x3): where it serves, what it keeps exactly, and how far its rounding reaches."""

import numpy as np
import pytest
from compare import assert_close

import gpuconv
from gpuconv.cpu import conv

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

    original = conv._method
    monkeypatch.setattr(conv, "_method", method)
    return calls


@pytest.fixture
def exactly(monkeypatch):
    """Return a function that computes without Winograd's method."""

    def run(function, *args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(conv, "_method", lambda *_: "conv")
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


def test_inside_a_window_rounding_counts_with_all_taps(rng):
    """The bound for any data: 16 products a tile, each of at most 4 pixels with a sum of halved taps.

    A pixel meets every tap of the filter, so |error| <= c u max|x| sum|w| over channels, with c = 8 for the sum of the
    products as in compare.py, times 4 for the additions of both transforms.
    """
    x = rng.standard_normal((1, 16, 64, 64)).astype(np.float32)
    w = rng.standard_normal((16, 16, 3, 3), np.float32)
    x[0, :, 20, 21] *= 1e6
    w[:, :, 1, 1] = 0  # no tap meets it there
    got, wanted = (gpuconv.conv_forward(*(a.astype(kind) for a in (x, w)), pad=1)[0] for kind in ("f4", "f8"))
    error = np.abs(got - wanted)[0, :, 20, 21]
    most = (np.abs(x[0, :, 20, 21])[:, None, None] * np.abs(w)).sum(axis=(1, 2, 3))
    assert (error <= 32 * 2.0**-24 * most).all()


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
def test_equal_bits_for_any_number_of_threads(stored, rng, monkeypatch):
    x, w = (
        stored(rng.standard_normal((6, 32, 32, 32)).astype(np.float32)),
        rng.standard_normal((32, 32, 3, 3), np.float32),
    )
    dy = stored(rng.standard_normal((6, 32, 32, 32)).astype(np.float32))
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
