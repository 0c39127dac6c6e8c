"""gpuconv.cudnn: the functions of cupy.cudnn, with their conventions."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from compare import absolute, assert_close, normal

from gpuconv import cudnn, naive
from gpuconv.shapes import conv_sizes

pytestmark = pytest.mark.core
FREE = {"auto_tune": True, "tensor_core": "auto"}


@pytest.mark.parametrize(
    ("stride", "pad", "dilation", "groups"), [(1, 0, 1, 1), (2, 3, 1, 1), (1, 2, 2, 2), (5, 1, 1, 1)]
)
def test_convolutions_overwrite_what_the_loops_say(rng, dtype, stride, pad, dilation, groups):
    x, w, b = normal(rng, (2, 4, 7, 6), dtype), normal(rng, (4, 4 // groups, 3, 3), dtype), normal(rng, (4,), dtype)
    z = conv_sizes(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups)
    options = [(each, each) for each in (pad, stride, dilation)]
    x, w = x[:, :, ::-1], w[:, :, ::-1, ::-1]
    y = np.full((z.N, z.K, z.P, z.Q), np.nan, dtype)
    cudnn.convolution_forward(x, w, b, y, *options, groups, **FREE)
    terms = w[0].size + 1
    assert_close(
        y, naive.conv_forward(x, w, b, z), scale=naive.conv_forward(*absolute(x, w, b), z), dtype=dtype, terms=terms
    )
    gy = np.broadcast_to(normal(rng, (1, 4, 1, 1), dtype), y.shape)
    gx, gw = np.full(x.shape, np.nan, dtype), np.full(w.shape, np.nan, dtype)
    cudnn.convolution_backward_data(w, gy, None, gx, *options, groups, deterministic=False, **FREE)
    cudnn.convolution_backward_filter(x, gy, gw, *options, groups, deterministic=True, **FREE)
    ref = naive.conv_backward(gy, x, w, z, input_grad=True, bias_grad=False)
    size = naive.conv_backward(*absolute(gy, x, w), z, input_grad=True, bias_grad=False)
    assert_close(gx, ref[0], scale=size[0], zero_mean=False, dtype=dtype, terms=w[:, 0].size)
    assert_close(gw, ref[1], scale=size[1], zero_mean=False, dtype=dtype, terms=gy[:, 0].size)


@pytest.mark.parametrize("size", [(7,), (7, 6), (4, 5, 6)], ids=["1-D", "2-D", "3-D"])
def test_the_gradient_of_data_is_rounded_once_with_its_bias(rng, dtype, size):
    gy_size = tuple(n - 1 for n in size)
    w, gy = normal(rng, (4, 3) + (2,) * len(size), dtype), normal(rng, (2, 4, *gy_size), dtype)
    b = np.array([0.3, -50, 7], dtype)
    options = [(0,) * len(size), (1,) * len(size), None, 1]
    exact = np.empty((2, 3, *size))
    cudnn.convolution_backward_data(
        w.astype(np.float64), gy.astype(np.float64), b.astype(np.float64), exact, *options, deterministic=True, **FREE
    )
    scale = np.empty_like(exact)
    cudnn.convolution_backward_data(*absolute(w, gy, b), scale, *options, deterministic=True, **FREE)
    gx = np.full(exact.shape, np.nan, dtype)
    cudnn.convolution_backward_data(w, gy, b, gx, *options, deterministic=True, **FREE)
    assert_close(gx, exact, scale=scale, dtype=dtype, terms=w[:, 0].size + 1)


def test_sums_of_no_terms_are_zero(dtype):
    options = [(0, 0), (1, 1), (1, 1), 1]
    x, w, y, gw = (np.ones(s, dtype) for s in ((0, 2, 4, 4), (3, 2, 3, 3), (0, 3, 2, 2), (3, 2, 3, 3)))
    cudnn.convolution_forward(x, w, None, y, *options, **FREE)
    cudnn.convolution_backward_data(w, y, None, x, *options, deterministic=True, **FREE)
    cudnn.convolution_backward_filter(x, y, gw, *options, deterministic=True, **FREE)
    assert not gw.any()
    x, w, y = (np.ones(s, dtype) for s in ((2, 0, 4, 4), (3, 0, 3, 3), (2, 3, 2, 2)))
    cudnn.convolution_forward(x, w, None, y, *options, **FREE)
    assert not y.any()
    cudnn.convolution_forward(x, w, np.ones(3, dtype), y, *options, **FREE)
    assert (y == 1).all()


def test_layouts_with_channels_last_hold_the_same_numbers(rng, dtype):
    x, w = normal(rng, (2, 3, 5, 4), dtype), normal(rng, (4, 3, 3, 3), dtype)
    options = [(1, 1), (1, 1), (1, 1), 1]
    y, last = np.empty((2, 4, 5, 4), dtype), np.empty((2, 5, 4, 4), dtype)
    cudnn.convolution_forward(x, w, None, y, *options, **FREE)
    x_last, w_last = x.transpose(0, 2, 3, 1), w.transpose(0, 2, 3, 1)
    cudnn.convolution_forward(x_last, w_last, None, last, *options, **FREE, d_layout=1, w_layout=1)
    scale, terms = np.empty(y.shape), w[0].size
    cudnn.convolution_forward(*absolute(x, w), None, scale, *options, **FREE)
    assert_close(last.transpose(0, 3, 1, 2), y.astype(np.float64), scale=scale, dtype=dtype, terms=terms)


def test_an_output_may_be_an_input(rng, dtype):
    x, w = normal(rng, (2, 3, 4, 4), dtype), normal(rng, (3, 3, 3, 3), dtype)
    y, options = np.empty_like(x), [(1, 1), (1, 1), (1, 1), 1]
    cudnn.convolution_forward(x, w, None, y, *options, **FREE)
    cudnn.convolution_forward(x, w, None, x, *options, **FREE)
    np.testing.assert_array_equal(x, y)


def test_sizes_and_dtypes_that_cudnn_refused_are_its_errors():
    x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    for y in (np.zeros((1, 1, 3, 3)), np.zeros((1, 1, 2, 2), np.float32)):
        with pytest.raises(cudnn.CuDNNError, match="BAD_PARAM") as caught:
            cudnn.convolution_forward(x, w, None, y, (0, 0), (1, 1), (1, 1), 1, **FREE)
        assert caught.value.status == 3
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        assert not y.any()


def test_install_gives_the_modules_and_uninstall_takes_them(tmp_path):
    for name in ("cupy", "cupyx", "cupy/cuda"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    code = """
import importlib.util
from gpuconv import cudnn as ours
assert ours.install() and ours.install()
assert importlib.util.find_spec("cupy.cuda.cudnn") is not None
from cupy import cudnn
import cupy.cuda.cudnn, cupyx.cudnn
assert cudnn.convolution_forward is ours.convolution_forward and cupy.cuda.cudnn.getVersion() == 8900
for name in set(ours.__all__) - {"install", "installed", "uninstall"}:
    assert getattr(cudnn, name) is getattr(cupyx.cudnn, name) is getattr(ours, name), name
assert cupy.cuda.cudnn.CUDNN_POOLING_MAX_DETERMINISTIC == cudnn.CUDNN_POOLING_MAX_DETERMINISTIC == 3
assert not hasattr(cupy.cuda.cudnn, "convolutionForward")
try:
    cudnn.setTensor4dDescriptor
except AttributeError as error:
    assert "gpuconv serves no setTensor4dDescriptor" in str(error)
else:
    raise AssertionError
ours.uninstall()
assert importlib.util.find_spec("cupy.cuda.cudnn") is None and not hasattr(cupy, "cudnn")
"""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"]
    subprocess.run(command, check=True)


def test_activations_and_softmax_follow_their_formulas(rng):
    x, gy = normal(rng, (3, 5)), normal(rng, (3, 5))
    np.testing.assert_allclose(
        cudnn.activation_forward(x, cudnn.CUDNN_ACTIVATION_SIGMOID), 1 / (1 + np.exp(-x)), rtol=1e-13
    )
    np.testing.assert_array_equal(
        cudnn.activation_backward(x, x, gy, cudnn.CUDNN_ACTIVATION_RELU), np.where(x > 0, gy, 0)
    )
    y = cudnn.softmax_forward(x, axis=-1, algorithm=cudnn.CUDNN_SOFTMAX_LOG)
    np.testing.assert_allclose(np.exp(y).sum(axis=1), 1, rtol=1e-13)
    gx = cudnn.softmax_backward(y, gy, -1, cudnn.CUDNN_SOFTMAX_LOG)
    np.testing.assert_allclose(gx, gy - np.exp(y) * gy.sum(axis=1, keepdims=True), rtol=1e-13)


@pytest.mark.parametrize("mode", range(5), ids=["sigmoid", "relu", "tanh", "clipped", "elu"])
def test_every_activation_in_every_dtype(rng, dtype, mode):
    x, y, gy = (normal(rng, (3, 5), dtype) for _ in range(3))
    coef = np.float32(0.75)
    wide, out, up = (array.astype(np.float64) for array in (x, y, gy))
    forward = [
        1 / (1 + np.exp(-wide)), wide * (wide > 0), np.tanh(wide), np.clip(wide, 0, 0.75),
        np.where(wide > 0, wide, 0.75 * np.expm1(wide)),
    ][mode]  # fmt: skip
    factor = [
        out * (1 - out), wide > 0, 1 - out * out, (wide > 0) & (wide < 0.75), np.where(wide > 0, 1, out + 0.75),
    ][mode]  # fmt: skip
    assert_close(cudnn.activation_forward(x, mode, coef), forward, scale=np.abs(forward), dtype=dtype)
    gx = cudnn.activation_backward(x, y, gy, mode, coef)
    # out (1 - out) and 1 - out^2 cancel: their terms are the scale, where the ReLUs are exact
    scale = np.abs(up) * (np.abs(factor) if mode in (1, 3) else 1 + np.abs(out) + out * out)
    assert_close(gx, up * factor, scale=scale, dtype=dtype)


@pytest.mark.parametrize("algorithm", range(3), ids=["fast", "accurate", "log"])
def test_every_softmax_in_every_dtype(rng, dtype, algorithm):
    x, gy = normal(rng, (2, 5, 3), dtype), normal(rng, (2, 5, 3), dtype)
    wide, up = x.astype(np.float64), gy.astype(np.float64)
    share = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    log = algorithm == cudnn.CUDNN_SOFTMAX_LOG
    expected = np.log(share) if log else share
    y = cudnn.softmax_forward(x, 1, algorithm)
    assert_close(y, expected, scale=np.abs(expected) + np.abs(wide), dtype=dtype)
    out = y.astype(np.float64)
    if log:
        ref = up - np.exp(out) * up.sum(axis=1, keepdims=True)
        scale = np.abs(up) + np.exp(out) * np.abs(up).sum(axis=1, keepdims=True)
    else:
        ref = out * (up - (up * out).sum(axis=1, keepdims=True))
        scale = out * (np.abs(up) + (np.abs(up) * out).sum(axis=1, keepdims=True))
    assert_close(cudnn.softmax_backward(y, gy, 1, algorithm), ref, scale=scale, dtype=dtype)
