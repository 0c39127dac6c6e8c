"""Gaussian error linear unit: its whole range and its tails; test_elementwise.py has the rest.

Phi(x) and x Phi'(x) are at most about 1, and are known to a few units of the numbers they are made of: y is held to
c = 8 units of |x|, dx to 8 units of |dy| (1 + |x|).
"""

import numpy as np
import pytest
from compare import assert_close, assert_same

import gpuconv
from gpuconv import naive


@pytest.fixture(params=["none", "tanh"])
def approximate(request):
    return request.param


def _check(device, x, dy, approximate):
    y, cache = gpuconv.gelu_forward(device.array(x), approximate=approximate)
    dx = gpuconv.gelu_backward(device.array(dy), cache)
    ref = naive.gelu_forward(x, approximate=approximate)
    size = np.abs(x.astype(np.float64))
    assert_close(device.numpy(y), ref, scale=size, dtype=x.dtype)
    ref = naive.gelu_backward(dy, x, approximate=approximate)
    assert_close(device.numpy(dx), ref, scale=np.abs(dy.astype(np.float64)) * (1 + size), dtype=x.dtype)
    return y, dx


def test_whole_range(approximate, device, dtype):
    """From far below, where y vanishes, to far above, where y is x; dense around 0."""
    far = np.linspace(-30, 30, 2001)
    near = np.geomspace(1e-7, 1, 500)
    x = np.concatenate([far, near, -near, [0.0, -0.0, 1e4, -1e4]]).astype(dtype)
    y, _ = _check(device, x, np.ones_like(x), approximate)
    assert_same(device.numpy(y)[x > 10], x[x > 10])


def test_lower_tail_keeps_its_digits(device):
    """Where Phi is small, a difference from 1 would have none left: relative error stays below 1e-12 down to x = -20."""
    x = np.linspace(-20, -1, 500)
    y, _ = gpuconv.gelu_forward(device.array(x))
    np.testing.assert_allclose(device.numpy(y), naive.gelu_forward(x, approximate="none"), rtol=1e-12)


def test_relative_errors_in_float32_grow_as_those_of_the_exponential_do(device):
    """Rounding -x^2 / 2 makes x^2 / 2 units of it.  erfc(a) has 2 a^2 of each unit in a = x / sqrt 2, whose factor and
    product are rounded: 2 x^2.  16 more for all other steps together."""
    x = np.linspace(-12.5, -1, 2000).astype(np.float32)  # below, results are not normal numbers
    y, cache = gpuconv.gelu_forward(device.array(x))
    dx = device.numpy(gpuconv.gelu_backward(device.array(np.ones_like(x)), cache))
    bound = (2 * x.astype(np.float64) ** 2 + 16) * 2.0**-24
    ref = naive.gelu_forward(x, approximate="none")
    assert (np.abs(device.numpy(y) - ref) <= bound * np.abs(ref)).all()
    ref = naive.gelu_backward(np.ones_like(x), x, approximate="none")
    below = x < -2  # Q(|x|) and |x| phi(x) meet at -0.75, where their difference has no digits to keep
    assert (np.abs(dx - ref) <= 2 * bound * np.abs(ref))[below].all()


def test_nan_and_infinity(approximate, device, dtype):
    x = np.array([np.nan, np.inf, 1.0, -np.inf], dtype)
    y, cache = gpuconv.gelu_forward(device.array(x), approximate=approximate)
    assert np.isnan(device.numpy(y)).tolist() == [True, False, False, True]  # -inf times 0
    assert device.numpy(y)[1] == np.inf
    dx = device.numpy(gpuconv.gelu_backward(device.array(np.array([1, 1, np.nan, 1], dtype)), cache))
    assert np.isnan(dx[[0, 2]]).all()
    if approximate == "none":
        assert np.isnan(dx).all()  # the slope has inf times 0 in it
