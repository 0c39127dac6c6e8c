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
