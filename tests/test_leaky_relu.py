"""Leaky ReLU: zeros, infinities, NaN, and slopes that its dtype cannot hold; test_elementwise.py has the rest."""

import numpy as np
import pytest
from compare import assert_same, assert_same_bits, normal

import gpuconv


def _results(device, x, dy, slope):
    y, cache = gpuconv.leaky_relu_forward(device.array(x), slope=slope)
    return device.numpy(y), device.numpy(gpuconv.leaky_relu_backward(device.array(dy), cache))


def test_special_numbers(device, dtype):
    """NaN stays, and has the slope for its gradient, as 0 and -0 have; the smallest number above 0 has not."""
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, tiny, 1.0, 1.0, -1.0, -1.0], dtype)
    dy = np.array([2, 4, 6, 8, 10, 12, np.nan, np.inf, np.nan, np.inf], dtype)
    y, dx = _results(device, x, dy, 0.25)
    assert_same_bits(y, np.array([np.nan, np.inf, -np.inf, 0, -0.0, tiny, 1, 1, -0.25, -0.25], dtype))
    assert_same(dx, np.array([0.5, 4, 1.5, 2, 2.5, 12, np.nan, np.inf, np.nan, np.inf], dtype))


def test_slope_of_0_is_relu(device, dtype, rng):
    """Where 0 times an infinity would be NaN, too."""
    x = np.append(normal(rng, 500), [np.nan, np.inf, -np.inf, 0.0, -0.0]).astype(dtype)
    dy = np.append(normal(rng, 500), [np.inf, np.nan, -np.inf, np.inf, np.nan]).astype(dtype)
    y, cache = gpuconv.relu_forward(device.array(x))
    for actual, expected in zip(
        _results(device, x, dy, 0), (y, gpuconv.relu_backward(device.array(dy), cache)), strict=True
    ):
        assert_same_bits(actual, device.numpy(expected))


@pytest.mark.parametrize("slope", [2.0**-140, 2.0**140])
def test_slopes_beyond_the_normal_numbers_of_float32(slope, device, dtype):
    """0 stays 0 where the slope itself would be infinite; a product that can be stored is, where the slope cannot be."""
    x = np.array([0.0, -0.0, -(2.0**15), 5.0], dtype)  # no product is below float32's normal numbers
    y, dx = _results(device, x, x, slope)
    with np.errstate(over="ignore", under="ignore"):
        expected = np.where(x > 0, x, x.astype(np.float64) * slope).astype(dtype)
    assert_same_bits(y, expected)
    assert_same_bits(dx, expected)


def test_slope_is_one_hundredth_by_default(device):
    y, _ = gpuconv.leaky_relu_forward(device.array(np.array([-100.0, 100.0])))
    assert_same(device.numpy(y), np.array([-1.0, 100.0]))
