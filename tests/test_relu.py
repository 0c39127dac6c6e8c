"""Rectified linear unit: exact everywhere, at zero and at the edges of the number range."""

import numpy as np
import pytest
from compare import assert_same, normal, whole

import gpuconv
from gpuconv import naive
from gpuconv.shapes import is_channels_last

SHAPES = {
    "one_number": (1,),
    "no_axis": (),
    "empty_batch": (0, 3, 4, 4),
    "rows": (7, 11),
    "images": (2, 3, 5, 7),
    "five_axes": (2, 1, 3, 1, 4),
    "more_than_one_block": (3, 70_001),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(shape, device, dtype, rng):
    x, dy = whole(rng, shape, dtype), normal(rng, shape, dtype)
    y, cache = gpuconv.relu_forward(device.array(x))
    assert_same(device.numpy(y), naive.relu_forward(x), dtype=dtype)
    dx = gpuconv.relu_backward(device.array(dy), cache)
    assert_same(device.numpy(dx), naive.relu_backward(dy, naive.relu_forward(x)), dtype=dtype)


def test_any_memory_layout(layout, device, rng):
    x, dy = normal(rng, (2, 3, 4, 5)), normal(rng, (2, 3, 4, 5))
    view, grad = layout(x), layout(dy)
    y, cache = gpuconv.relu_forward(device.array(view))
    assert_same(device.numpy(y), np.maximum(x, 0))
    assert is_channels_last(device.numpy(y)) == is_channels_last(view)
    for upstream in (dy, grad):
        dx = device.numpy(gpuconv.relu_backward(device.array(upstream), cache))
        assert_same(dx, dy * (x > 0))
        assert is_channels_last(dx) == is_channels_last(view)
    assert_same(np.ascontiguousarray(view), x)


def test_special_numbers(device, dtype):
    """NaN stays; at 0 and -0 the gradient is 0, at the smallest number above it is not; dy's own specials pass."""
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, tiny, -tiny, 1.0, 1.0, -1.0, -1.0], dtype)
    dy = np.array([2, 3, 5, 7, 11, 13, 17, np.nan, np.inf, np.nan, np.inf], dtype)
    y, cache = gpuconv.relu_forward(device.array(x))
    assert_same(device.numpy(y), np.array([np.nan, np.inf, 0, 0, 0, tiny, 0, 1, 1, 0, 0], dtype))
    dx = device.numpy(gpuconv.relu_backward(device.array(dy), cache))
    assert_same(dx, np.array([0, 3, 0, 0, 0, 13, 0, np.nan, np.inf, 0, 0], dtype))


def test_same_bits_for_any_number_of_threads(device, rng, monkeypatch):
    x = normal(rng, (5, 70_001), "float32")
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        y, _ = gpuconv.relu_forward(device.array(x))
        assert_same(device.numpy(y), np.maximum(x, 0))
