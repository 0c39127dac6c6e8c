"""Convolutions of gpuconv.cudnn: into the caller's array, of inputs with any strides, against the oracle.

What adds a bias to the gradient of data is an array expression, and runs where arrays have arithmetic.
"""

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, normal
from conv_checks import by_oracle
from pairs import DEVICES, DTYPES, pairs
from places import CPU, GPU, LAYOUTS, place

from gpuconv import cudnn
from gpuconv.shapes import conv_sizes

pytestmark = pytest.mark.core

FREE = {"auto_tune": True, "tensor_core": "auto"}
FREE_BACKWARD = {"deterministic": True, **FREE}
CASES = {  # x, W, pad, stride, dilation, groups
    "signal": ((2, 3, 9), (4, 3, 3), (1,), (2,), None, 1),
    "signal_groups": ((2, 4, 9), (6, 2, 3), (2,), (1,), (2,), 2),
    "image": ((2, 3, 6, 5), (4, 3, 3, 2), (1, 0), (1, 2), None, 1),
    "image_groups": ((2, 4, 7, 6), (4, 2, 3, 3), (2, 2), (1, 1), (2, 2), 2),
    "full_padding": ((1, 2, 3, 4), (3, 2, 3, 2), (2, 1), (1, 1), (1, 1), 1),
    "trailing_pixels_no_window_reaches": ((2, 4, 7, 6), (4, 4, 3, 3), (1, 1), (5, 5), (1, 1), 1),
    "volume": ((1, 2, 4, 5, 3), (3, 2, 2, 3, 2), (1, 1, 0), (2, 1, 1), None, 1),
    "volume_groups": ((2, 4, 4, 3, 5), (2, 2, 2, 2, 2), (1, 1, 1), (1, 2, 1), (2, 1, 2), 2),
}
CHANNELS_LAST = {"none_last": (0, 0), "data_last": (1, 0), "filters_last": (0, 1), "both_last": (1, 1)}


def laid(array, layout):
    """Return an array as a layout says: with its channels last, of four axes only."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if layout and array.ndim == 4 else array


def unlaid(array, layout):
    return np.moveaxis(array, -1, 1) if layout and array.ndim == 4 else array


@pairs(
    case=CASES,
    device=DEVICES,
    dtype=DTYPES,
    stored=["c_order", "negative_strides", "every_second_column", "last_axes_swapped"],
    layouts=CHANNELS_LAST,
)
def test_outputs_are_overwritten_with_what_the_oracle_says(rng, case, device, dtype, stored, layouts):
    x_shape, w_shape, *options = case
    x, w, b = (normal(rng, shape, dtype) for shape in (x_shape, w_shape, w_shape[:1]))
    pad, stride, dilation, groups = options
    z = conv_sizes(x, w, b, pad=pad, stride=stride, dilation=dilation or 1, groups=groups)
    gy = normal(rng, z.out if x.ndim > 3 else (z.N, z.K, z.Q), dtype)
    of_data, of_filters = layouts
    inputs = laid(x, of_data), laid(w, of_filters), laid(gy, of_data)
    dev_x, dev_w, dev_gy = (device.array(LAYOUTS[stored](array)) for array in inputs)
    y, gx, gw = (device.array(np.full(a.shape, np.nan, dtype)) for a in (inputs[2], inputs[0], inputs[1]))
    last = {"d_layout": of_data, "w_layout": of_filters}
    dev_b = device.array(LAYOUTS[stored](b))
    assert cudnn.convolution_forward(dev_x, dev_w, dev_b, y, *options, **FREE, **last) is None
    assert cudnn.convolution_backward_data(dev_w, dev_gy, None, gx, *options, **FREE_BACKWARD, **last) is None
    assert cudnn.convolution_backward_filter(dev_x, dev_gy, gw, *options, **FREE_BACKWARD, **last) is None
    for array, host in zip((dev_x, dev_w, dev_gy), inputs, strict=True):
        assert_same(device.numpy(array), host)
    got = [unlaid(device.numpy(a), layout) for a, layout in ((y, of_data), (gx, of_data), (gw, of_filters))]
    refs, scales = by_oracle(x, w, b, gy, z), by_oracle(*absolute(x, w, b, gy), z)
    terms = w[0].size + 1, w[:, 0].size // groups, gy[:, 0].size
    for actual, ref, scale, length in zip(got, refs[:3], scales[:3], terms, strict=True):
        assert_close(actual, ref, scale=scale, dtype=dtype, terms=length, zero_mean=False)


@pytest.mark.parametrize("where", [CPU, GPU])
@pairs(size={"signal": (7,), "image": (7, 6), "volume": (4, 5, 6)}, dtype=DTYPES)
def test_the_gradient_of_data_is_rounded_once_with_its_bias(rng, where, size, dtype):
    device = place(where)
    gy_size = tuple(n - 1 for n in size)
    w, gy = normal(rng, (4, 3) + (2,) * len(size), dtype), normal(rng, (2, 4, *gy_size), dtype)
    b = np.array([0.3, -50, 7], dtype)
    options = [(0,) * len(size), (1,) * len(size), None, 1]
    exact = np.empty((2, 3, *size))
    wide = (array.astype(np.float64) for array in (w, gy, b))
    cudnn.convolution_backward_data(*wide, exact, *options, **FREE_BACKWARD)
    scale = np.empty_like(exact)
    cudnn.convolution_backward_data(*absolute(w, gy, b), scale, *options, **FREE_BACKWARD)
    gx = device.array(np.full(exact.shape, np.nan, dtype))
    cudnn.convolution_backward_data(*map(device.array, (w, gy, b)), gx, *options, **FREE_BACKWARD)
    assert_close(device.numpy(gx), exact, scale=scale, dtype=dtype, terms=w[:, 0].size + 1)


def test_an_upstream_gradient_may_be_broadcast(rng, device, dtype):
    x, w = normal(rng, (2, 3, 5, 4), dtype), normal(rng, (4, 3, 2, 2), dtype)
    vector, options = normal(rng, (1, 4, 1, 1), dtype), [(0, 0), (1, 1), (1, 1), 1]
    results = []
    for gy in (np.broadcast_to(vector, (2, 4, 4, 3)), np.ascontiguousarray(np.broadcast_to(vector, (2, 4, 4, 3)))):
        gx, gw = (device.array(np.full(a.shape, np.nan, dtype)) for a in (x, w))
        upstream = device.array(gy)
        cudnn.convolution_backward_data(device.array(w), upstream, None, gx, *options, **FREE_BACKWARD)
        cudnn.convolution_backward_filter(device.array(x), upstream, gw, *options, **FREE_BACKWARD)
        results.append([device.numpy(gx), device.numpy(gw)])
    for broadcast, whole in zip(*results, strict=True):
        assert_same(broadcast, whole)


def test_an_output_may_be_an_input(rng, device, dtype):
    x, w = normal(rng, (2, 3, 4, 4), dtype), device.array(normal(rng, (3, 3, 3, 3), dtype))
    options = [(1, 1), (1, 1), (1, 1), 1]
    x, y = device.array(x), device.array(np.empty_like(x))
    cudnn.convolution_forward(x, w, None, y, *options, **FREE)
    cudnn.convolution_forward(x, w, None, x, *options, **FREE)
    assert_same(device.numpy(x), device.numpy(y))
