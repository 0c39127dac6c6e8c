"""Rectified linear unit: exact at zero and at the edges of the number range; test_elementwise.py has the rest."""

import numpy as np
from compare import assert_same

import gpuconv


def test_special_numbers(device, dtype):
    """NaN stays; at 0 and -0 the gradient is 0, at the smallest number above it is not; dy's own specials pass."""
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, tiny, -tiny, 1.0, 1.0, -1.0, -1.0], dtype)
    dy = np.array([2, 3, 5, 7, 11, 13, 17, np.nan, np.inf, np.nan, np.inf], dtype)
    y, cache = gpuconv.relu_forward(device.array(x))
    assert_same(device.numpy(y), np.array([np.nan, np.inf, 0, 0, 0, tiny, 0, 1, 1, 0, 0], dtype))
    dx = device.numpy(gpuconv.relu_backward(device.array(dy), cache))
    assert_same(dx, np.array([0, 3, 0, 0, 0, 13, 0, np.nan, np.inf, 0, 0], dtype))
