"""Convolution of signals (N, C, L): images of one row, by the kernels and passes of images, without copies."""

import numpy as np
import pytest
from compare import assert_same, assert_same_bits, normal, whole
from conv_checks import arrays_of, by_oracle, channels_last, check_close, computed, positive
from pairs import DEVICES, DTYPES, STORED, pairs

import gpuconv
from gpuconv import backend, naive
from gpuconv.shapes import conv_sizes, is_channels_last

# why the case exists: (x, w, options)
CASES = {
    "one_sample": ((1, 1, 1), (1, 1, 1), {}),
    "empty_batch": ((0, 3, 8), (4, 3, 3), {"pad": 1}),
    "odd_everything": ((3, 5, 9), (2, 5, 5), {"pad": 2}),
    "no_pad": ((2, 3, 8), (4, 3, 3), {}),
    "options_as_tuples_of_one": ((2, 3, 11), (4, 3, 3), {"stride": (2,), "pad": (1,), "dilation": (2,)}),
    "stride_drops_last_sample": ((2, 3, 8), (4, 3, 3), {"stride": 2}),
    "stride_larger_than_signal": ((2, 3, 4), (3, 3, 3), {"stride": 7, "pad": 1}),
    "filter_larger_than_signal": ((1, 2, 2), (3, 2, 5), {"pad": 2}),
    "pad_larger_than_signal": ((1, 2, 2), (2, 2, 3), {"pad": 5, "stride": 2}),
    "dilation_shares_a_factor_with_stride": ((2, 3, 13), (3, 3, 3), {"dilation": 2, "stride": 4, "pad": 1}),
    "groups": ((2, 6, 7), (4, 3, 3), {"groups": 2, "pad": 1}),
    "depthwise": ((2, 5, 8), (5, 1, 3), {"groups": 5, "pad": 1}),
    "one_by_one": ((2, 4, 9), (3, 4, 1), {}),
    "causal": ((2, 3, 9), (4, 3, 3), {"pad": ((4, 0),), "dilation": 2}),
    "same": ((2, 3, 9), (4, 3, 4), {"pad": "same"}),
    "long_filter": ((1, 2, 70), (2, 2, 65), {}),
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
    """Bit for bit on integers; results in the memory format of x."""
    x, w, b, dy, z = arrays_of(case, rng, dtype, make)
    last = stored == "channels_last"
    got = computed(device, (channels_last(x), w, b, channels_last(dy)) if last else (x, w, b, dy), case[2])
    if make is whole:
        for actual, expected in zip(got, by_oracle(x, w, b, dy, z), strict=True):
            assert_same(actual, expected, dtype=dtype)
    else:
        check_close(got, x, w, b, dy, z, zero_mean=make is normal)
    if last and min(x.shape) > 1:
        assert is_channels_last(got[1])


@pairs(name=["odd_everything", "groups", "depthwise"], stored=STORED, device=DEVICES, dtype=DTYPES)
def test_is_that_of_images_of_one_row(name, stored, device, dtype, rng):
    """The same bits as of the call on images."""
    x, w, b, dy, _ = arrays_of(CASES[name], rng, dtype, normal)
    if stored == "channels_last":
        x, dy = channels_last(x), channels_last(dy)
    options = dict(CASES[name][2])
    signals = computed(device, (x, w, b, dy), options)
    options["pad"] = (0, options["pad"])
    images = computed(device, (x[:, :, None], w[:, :, None], b, dy[:, :, None]), options)
    for signal, image in zip(signals, images, strict=True):
        assert_same_bits(signal, image.reshape(signal.shape))


@pytest.mark.parametrize("stored", STORED)
def test_nothing_is_copied_on_the_way(stored, rng, monkeypatch):
    """The backend is given views of the arrays, and what it returns is what the user gets."""
    x, w, b, dy, z = arrays_of(CASES["groups"], rng, "float32", whole)
    if stored == "channels_last":
        x, dy = channels_last(x), channels_last(dy)
    here = backend.backend_of(x=x)
    seen, made = [], []

    def watched(function):
        def call(*args, **options):
            seen.extend(array for array in args if isinstance(array, np.ndarray))
            results = function(*args, **options)
            made.extend(results if isinstance(results, tuple) else [results])
            return results

        return call

    for name in ("conv_forward", "conv_backward"):
        monkeypatch.setattr(here, name, watched(getattr(here, name)))
    y, cache = gpuconv.conv_forward(x, w, b, **CASES["groups"][2])
    results = (y, *gpuconv.conv_backward(dy, cache))
    assert cache.sizes == z
    for array, given in zip(seen, (x, w, b, dy, x, w), strict=True):
        assert np.shares_memory(array, given)
    for array, result in zip(made, results, strict=True):
        assert np.shares_memory(array, result)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_broadcast_and_flipped_views(axis, device, rng):
    shape = [2, 3, 9]
    x = np.broadcast_to(whole(rng, [1 if i == axis else n for i, n in enumerate(shape)]), shape)
    w = whole(rng, (4, 3, 3))[:, :, ::-1]
    z = conv_sizes(x, w, None, pad=1)
    dy = whole(rng, (2, 4, 9))[::-1, :, ::-1]
    got, expected = computed(device, (x, w, None, dy), {"pad": 1}), by_oracle(x, w, None, dy, z)
    for actual, want in zip(got[:3], expected[:3], strict=True):
        assert_same(actual, want)


@pytest.mark.parametrize("name", ["x", "w", "dy"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_spread_as_the_sums_say(name, value, device, rng):
    arrays = dict(zip(("x", "w", "b", "dy"), arrays_of(CASES["odd_everything"], rng, "float32", whole), strict=False))
    arrays[name][0, 1, 0] = value
    z = conv_sizes(arrays["x"], arrays["w"], None, pad=2)
    got = computed(device, tuple(arrays.values()), {"pad": 2})
    for actual, expected in zip(got, by_oracle(*arrays.values(), z), strict=True):
        assert_same(actual, expected, dtype="float32")


def test_signals_match_numpy(rng):
    """One channel: what numpy.correlate says."""
    x, w = whole(rng, (1, 1, 50)), whole(rng, (1, 1, 7))
    y, _ = gpuconv.conv_forward(x, w, pad=6)
    assert_same(y[0, 0], np.correlate(x[0, 0], w[0, 0], "full"))
    z = conv_sizes(x, w, None, pad=6)
    assert_same(y[:, :, None], naive.conv_forward(x[:, :, None], w[:, :, None], None, z))
