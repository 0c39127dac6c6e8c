"""Pooling of gpuconv.cudnn against explicit loops: any size of y, any padding, NaN loses.

NaN is replaced by an array expression, so that the places are those whose arrays have arithmetic.
"""

import itertools

import numpy as np
import pytest
from compare import assert_close, assert_same, normal
from pairs import DTYPES, pairs
from places import CPU, GPU, place

from gpuconv import cudnn

pytestmark = pytest.mark.core

ON = pytest.mark.parametrize("where", [CPU, GPU])
MODES = {"max": 0, "include": 1, "exclude": 2, "deterministic": 3}
CASES = {  # size of x, of y, ksize, stride, pad
    "floor": ((6, 5), (3, 2), (2, 2), (2, 2), (0, 0)),
    "ceil": ((6, 5), (3, 3), (3, 3), (2, 2), (0, 0)),
    "cropped": ((8, 7), (2, 2), (2, 3), (2, 2), (1, 0)),
    "much_padding": ((3, 4), (7, 6), (3, 2), (1, 1), (3, 2)),
    "outside": ((4, 4), (3, 3), (1, 1), (3, 3), (0, 0)),
    "signal": ((7,), (4,), (3,), (2,), (1,)),
    "volume": ((4, 5, 3), (3, 3, 2), (2, 3, 2), (2, 2, 2), (1, 1, 0)),
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


@ON
@pairs(case=CASES, mode=MODES, dtype=DTYPES)
def test_pooling_does_what_the_loops_say(rng, where, case, mode, dtype):
    device = place(where)
    x, gy = normal(rng, (2, 3, *case[0]), dtype), normal(rng, (2, 3, *case[1]), dtype)
    if mode in (0, 3):
        x[0, 0].flat[::3] = np.nan
        x[1, 1] = np.nan
    y = device.array(np.full(gy.shape, np.nan, dtype))
    assert cudnn.pooling_forward(strided(device, x), y, *case[2:], mode) is y
    got = device.numpy(cudnn.pooling_backward(strided(device, x), y, strided(device, gy), *case[2:], mode))
    y, size = device.numpy(y), int(np.prod(case[2]))
    if mode in (0, 3):
        assert_same(y, loops(x, case, mode), dtype=dtype)
    else:
        assert_close(
            y, loops(x, case, mode), scale=loops(np.abs(x), case, mode), dtype=dtype, terms=size, zero_mean=False
        )
    scale = loops_backward(x, np.abs(gy), case, mode)
    assert_close(got, loops_backward(x, gy, case, mode), scale=scale, dtype=dtype, terms=size, zero_mean=False)


def test_no_window_is_no_work_and_an_empty_image_is_all_padding():
    y = np.ones((0, 2, 2, 2))
    x = np.ones((0, 2, 4, 4))
    options = (2, 2), (2, 2), (0, 0)
    assert cudnn.pooling_forward(x, y, *options, 0) is y
    assert cudnn.pooling_backward(x, y, y, *options, 0).shape == x.shape
    y = np.ones((1, 1, 1, 1))
    cudnn.pooling_forward(np.ones((1, 1, 0, 3)), y, (2, 2), (2, 2), (1, 1), 0)
    assert y[0, 0, 0, 0] == -np.inf


def test_what_cudnn_refused_is_refused():
    x, y = np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2))
    options = (2, 2), (2, 2), (0, 0)
    with pytest.raises(ValueError, match="y must be C-contiguous"):
        cudnn.pooling_forward(x, y.repeat(2, axis=3)[..., ::2], *options, 0)
    with pytest.raises(ValueError, match="stride must have as many"):
        cudnn.pooling_forward(x, y, (2, 2), (2,), (0, 0), 0)
    with pytest.raises(TypeError, match="x must be float16"):
        cudnn.pooling_forward(x.astype(int), y, *options, 0)
    for wrong in ((x, y, *options, 4), (x, y[:, :, 0], *options, 0), (x, y.astype("float32"), *options, 0)):
        with pytest.raises(cudnn.CuDNNError, match="BAD_PARAM"):
            cudnn.pooling_forward(*wrong)
    assert (y == 1).all()
