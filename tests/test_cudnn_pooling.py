"""Pooling of gpuconv.cudnn against explicit loops: any size of y, any padding, NaN loses.

NaN is replaced by an array expression, and counts that our pooling does not know are: where these are needed, the places
are those whose arrays have arithmetic.
"""

import itertools
import tracemalloc

import numpy as np
import pytest
from compare import assert_close, assert_same, normal
from pairs import DEVICES, DTYPES, pairs
from places import CPU, GPU, place

import gpuconv
from gpuconv import cpu, cudnn
from gpuconv.cudnn import pooling

pytestmark = pytest.mark.core

ON = pytest.mark.parametrize("where", [CPU, GPU])
MAXIMA = {"max": 0, "deterministic": 3}
AVERAGES = {"include": 1, "exclude": 2}
# size of x, of y, ksize, stride, pad
OWN = {  # windows that our pooling lays itself
    "floor": ((6, 5), (3, 2), (2, 2), (2, 2), (0, 0)),
    "overlapping": ((6, 5), (3, 2), (2, 3), (2, 2), (0, 0)),
    "half_padding": ((6, 5), (4, 3), (2, 3), (2, 2), (1, 1)),
    "ceil": ((6, 5), (3, 3), (3, 3), (2, 2), (0, 0)),
    "ceil_of_tiles": ((7, 5), (3, 2), (3, 3), (3, 3), (0, 0)),
    "cropped": ((8, 7), (2, 2), (2, 3), (2, 2), (1, 0)),
    "halves_of_half_the_image": ((8, 8), (2, 3), (2, 2), (2, 2), (0, 0)),
    "padding_above_half": ((4, 5), (6, 7), (3, 4), (1, 1), (2, 3)),
    "window_larger_than_the_image": ((2, 3), (2, 1), (5, 6), (2, 2), (3, 2)),
    "signal": ((7,), (4,), (3,), (2,), (1,)),
    "signal_ceil": ((6,), (4,), (3,), (2,), (1,)),
    "volume": ((4, 5, 3), (3, 3, 1), (2, 3, 2), (2, 2, 2), (1, 1, 0)),
    "volume_ceil": ((4, 5, 3), (3, 3, 2), (2, 3, 2), (2, 2, 2), (1, 1, 0)),
    "volume_cropped": ((6, 5, 3), (2, 3, 1), (2, 1, 3), (2, 1, 2), (0, 0, 2)),
}
COPIED = {  # windows of padding alone
    "much_padding": ((3, 4), (7, 6), (3, 2), (1, 1), (3, 2)),
    "outside": ((4, 4), (3, 3), (1, 1), (3, 3), (0, 0)),
    "signal_outside": ((6,), (5,), (2,), (2,), (1,)),
    "volume_outside": ((3, 2, 3), (2, 2, 3), (1, 2, 2), (1, 1, 2), (0, 0, 0)),
}


def windows(case):
    """Yield the place of each window in y, and the places of x in it, in row order."""
    size, out, ksize, stride, pad = case
    for at in itertools.product(*map(range, out)):
        places = itertools.product(
            *(range(i * s - p, i * s - p + k) for i, s, p, k in zip(at, stride, pad, ksize, strict=True))
        )
        yield at, [place for place in places if all(0 <= i < n for i, n in zip(place, size, strict=True))]


def loops(x, case, mode):
    """Return y, in float64, by loops."""
    y = np.zeros((*x.shape[:2], *case[1]))
    for n, c in np.ndindex(*x.shape[:2]):
        for at, places in windows(case):
            values = [float(x[(n, c, *p)]) for p in places]
            if mode in (0, 3):
                y[(n, c, *at)] = max((v for v in values if not np.isnan(v)), default=-np.inf)
            else:
                y[(n, c, *at)] = sum(values) / (np.prod(case[2]) if mode == 1 else max(1, len(values)))
    return y


def loops_backward(x, gy, case, mode):
    """Return gx, in float64, by loops."""
    gx = np.zeros(x.shape)
    for n, c in np.ndindex(*x.shape[:2]):
        for at, places in windows(case):
            upstream = float(gy[(n, c, *at)])
            if mode in (0, 3):
                numbers = [p for p in places if not np.isnan(x[(n, c, *p)])]
                if numbers:
                    gx[(n, c, *max(numbers, key=lambda p: x[(n, c, *p)]))] += upstream
            else:
                for p in places:
                    gx[(n, c, *p)] += upstream / (np.prod(case[2]) if mode == 1 else len(places))
    return gx


def strided(device, a):
    """Return a on a device, backwards and with its last axes swapped in memory."""
    return device.array(np.ascontiguousarray(a[::-1].swapaxes(-1, -2)).swapaxes(-1, -2)[::-1])


def check(device, x, gy, case, mode):
    """Hold pooling forward and backward to the loops."""
    dtype, size = x.dtype, int(np.prod(case[2]))
    y = device.array(np.full(gy.shape, np.nan, dtype))
    assert cudnn.pooling_forward(strided(device, x), y, *case[2:], mode) is y
    gx = cudnn.pooling_backward(strided(device, x), y, strided(device, gy), *case[2:], mode)
    assert gx.flags.c_contiguous
    y, ref = device.numpy(y), loops(x, case, mode)
    if mode in MAXIMA.values():
        assert_same(y, ref, dtype=dtype)
    else:
        assert_close(y, ref, scale=loops(np.abs(x), case, mode), dtype=dtype, terms=size, zero_mean=False)
    ref, scale = (loops_backward(x, upstream, case, mode) for upstream in (gy, np.abs(gy)))
    assert_close(device.numpy(gx), ref, scale=scale, dtype=dtype, terms=size, zero_mean=False)


def drawn(rng, case, dtype):
    """Return x and gy of a case."""
    return (normal(rng, (2, 3, *size), dtype) for size in case[:2])


@ON
@pairs(case=OWN | COPIED, numbers=["all", "some", "none_in_an_image"], mode=MAXIMA, dtype=DTYPES)
def test_maxima_are_what_the_loops_say_and_nan_loses(rng, where, numbers, case, mode, dtype):
    x, gy = drawn(rng, case, dtype)
    if numbers != "all":
        x[0, 0].flat[::3] = np.nan
    if numbers == "none_in_an_image":
        x[1, 1] = np.nan
    check(place(where), x, gy, case, mode)


@pairs(case=OWN, mode=AVERAGES, device=DEVICES, dtype=DTYPES)
def test_averages_of_our_own_windows_are_what_the_loops_say(rng, device, case, mode, dtype):
    check(device, *drawn(rng, case, dtype), case, mode)


@ON
@pairs(case=COPIED, mode=AVERAGES, dtype=DTYPES)
def test_averages_of_other_windows_are_what_the_loops_say(rng, where, case, mode, dtype):
    check(place(where), *drawn(rng, case, dtype), case, mode)


@pairs(case=OWN | COPIED, mode=MAXIMA | AVERAGES, dtype=DTYPES)
def test_x_is_copied_only_where_our_pooling_has_other_windows(rng, monkeypatch, case, mode, dtype):
    """And where NaN has to lose."""
    copied = []
    padded, fmax = pooling._padded, np.fmax
    monkeypatch.setattr(pooling, "_padded", lambda *args: copied.append("padded") or padded(*args))
    monkeypatch.setattr(np, "fmax", lambda *args: copied.append("fmax") or fmax(*args))
    x, gy = drawn(rng, case, dtype)
    y = np.empty_like(gy)
    for call in (lambda: cudnn.pooling_forward(x, y, *case[2:], mode),
                 lambda: cudnn.pooling_backward(x, y, gy, *case[2:], mode)):  # fmt: skip
        copied.clear()
        call()
        assert copied == (["padded"] if case in COPIED.values() else [])
        x[0, 0].flat[0] = np.nan  # which lies under a window
        copied.clear()
        call()
        assert ("fmax" in copied) == (mode in MAXIMA.values())
        x[0, 0].flat[0] = 0


@pairs(case=OWN, mode=MAXIMA | AVERAGES, dtype=DTYPES)
def test_our_pooling_is_given_x_itself(rng, monkeypatch, case, mode, dtype):
    given = []
    for name in ("max_pool_forward", "average_pool_forward"):
        real = getattr(cpu, name)
        monkeypatch.setattr(cpu, name, lambda x, *args, real=real, **rest: given.append(x) or real(x, *args, **rest))
    x, gy = drawn(rng, case, dtype)
    cudnn.pooling_forward(x, np.empty_like(gy), *case[2:], mode)
    (source,) = given
    assert source.base is x or source is x
    assert source.size == x.size
    if mode in MAXIMA.values():
        cudnn.pooling_backward(x, np.empty_like(gy), gy, *case[2:], mode)
        assert given[1].base is x or given[1] is x


@pytest.mark.parametrize("mode", MAXIMA | AVERAGES)
def test_no_memory_of_the_size_of_x_is_taken_but_for_its_gradient(rng, mode):
    mode = (MAXIMA | AVERAGES)[mode]
    x = normal(rng, (2, 3, 200, 200), "float32")
    y = np.empty((2, 3, 40, 40), "float32")
    options = (6, 6), (5, 5), (2, 2), mode  # a last window that sticks out by 1

    def most(function):
        function()
        gpuconv.free_memory()
        tracemalloc.start()
        try:
            function()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert most(lambda: cudnn.pooling_forward(x, y, *options)) < x.nbytes / 4
    assert most(lambda: cudnn.pooling_backward(x, y, y, *options)) < x.nbytes * 1.4


@ON
def test_the_gradient_of_minus_infinity_goes_to_none(where):
    device = place(where)
    x = np.full((1, 1, 4, 4), -np.inf)
    x[0, 0, 0, 0] = np.nan
    x[0, 0, 3, 3] = 5
    y, gy = device.array(np.empty((1, 1, 2, 2))), device.array(np.ones((1, 1, 2, 2)))
    options = (2, 2), (2, 2), (0, 0), 0
    cudnn.pooling_forward(device.array(x), y, *options)
    gx = device.numpy(cudnn.pooling_backward(device.array(x), y, gy, *options))
    assert_same(device.numpy(y), np.array([[[[-np.inf, -np.inf], [-np.inf, 5]]]]))
    assert_same(gx, (x == 5).astype(float))


def test_no_window_is_no_work_and_an_empty_image_is_all_padding():
    y = np.ones((0, 2, 2, 2))
    x = np.ones((0, 2, 4, 4))
    options = (2, 2), (2, 2), (0, 0)
    assert cudnn.pooling_forward(x, y, *options, 0) is y
    assert cudnn.pooling_backward(x, y, y, *options, 0).shape == x.shape
    y = np.ones((1, 1, 1, 1))
    cudnn.pooling_forward(np.ones((1, 1, 0, 3)), y, (2, 2), (2, 2), (1, 1), 0)
    assert y[0, 0, 0, 0] == -np.inf


X, Y = np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2))
REFUSED = {  # what differs from a valid call, the error, its words
    "ksize_list": ({"ksize": [2, 2]}, TypeError, "ksize must be a tuple"),
    "stride_list": ({"stride": [2, 2]}, TypeError, "stride must be a tuple"),
    "pad_int": ({"pad": 0}, TypeError, "pad must be a tuple"),
    "stride_short": ({"stride": (2,)}, ValueError, "stride must have as many entries as ksize, 2"),
    "pad_long": ({"pad": (0, 0, 0)}, ValueError, "pad must have as many entries as ksize, 2"),
    "x_dtype": ({"x": X.astype(int)}, TypeError, "x must be float16"),
    "y_byte_order": ({"y": Y.astype(">f8")}, TypeError, "y must be float16"),
    "x_list": ({"x": [1.0]}, TypeError, "x must be a NumPy or CuPy array"),
    "y_none": ({"y": None}, TypeError, "y must be an array"),
    "mode_4": ({"mode": 4}, cudnn.CuDNNError, "mode must be 0, 1, 2 or 3, got 4"),
    "mode_-1": ({"mode": -1}, cudnn.CuDNNError, "mode must be 0, 1, 2 or 3, got -1"),
    "ksize_0": ({"ksize": (0, 2)}, cudnn.CuDNNError, "must be positive"),
    "stride_0": ({"stride": (2, 0)}, cudnn.CuDNNError, "must be positive"),
    "pad_-1": ({"pad": (0, -1)}, cudnn.CuDNNError, "pad=.* not negative"),
    "no_axes": ({"ksize": (), "stride": (), "pad": ()}, cudnn.CuDNNError, "two axes more than ksize"),
    "axes_of_x": ({"x": X[0]}, cudnn.CuDNNError, "two axes more than ksize"),
    "axes_of_y": ({"y": Y[0]}, cudnn.CuDNNError, "two axes more than ksize"),
    "batch": ({"y": np.ones((2, 1, 2, 2))}, cudnn.CuDNNError, "share batch and channels"),
    "channels": ({"y": np.ones((1, 2, 2, 2))}, cudnn.CuDNNError, "share batch and channels"),
    "dtypes": ({"y": Y.astype("float32")}, cudnn.CuDNNError, "share one dtype"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cudnn_refused_is_refused(name):
    changes, error, match = REFUSED[name]
    given = {"x": X, "y": Y, "ksize": (2, 2), "stride": (2, 2), "pad": (0, 0), "mode": 0, **changes}
    with pytest.raises(error, match=match):
        cudnn.pooling_forward(**given)
    with pytest.raises(error, match=match):
        cudnn.pooling_backward(**given, gy=given["y"])
    assert (Y == 1).all()


def test_an_output_that_is_not_contiguous_is_refused():
    with pytest.raises(ValueError, match="y must be C-contiguous"):
        cudnn.pooling_forward(X, Y.repeat(2, axis=3)[..., ::2], (2, 2), (2, 2), (0, 0), 0)


def test_an_upstream_gradient_unlike_y_is_refused():
    for gy, match in ((Y[:, :, :1], "gy must have the shape of y"), (Y.astype("float32"), "share one dtype")):
        with pytest.raises(cudnn.CuDNNError, match=match):
            cudnn.pooling_backward(X, Y, gy, (2, 2), (2, 2), (0, 0), 0)
