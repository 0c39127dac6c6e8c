"""Activations and softmax of gpuconv.cudnn, by their formulas in float64.

They are array expressions, so that the places are those whose arrays have arithmetic.
"""

import numpy as np
import pytest
from compare import assert_close, normal
from pairs import DTYPES, pairs
from places import CPU, GPU, place

from gpuconv import cudnn

pytestmark = pytest.mark.core

ON = pytest.mark.parametrize("where", [CPU, GPU])
MODES = {"sigmoid": 0, "relu": 1, "tanh": 2, "clipped": 3, "elu": 4}
ALGORITHMS = {"fast": 0, "accurate": 1, "log": 2}


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


@ON
@pairs(mode=MODES, dtype=DTYPES)
def test_every_activation_in_every_dtype(rng, where, mode, dtype):
    device = place(where)
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
    got = device.numpy(cudnn.activation_forward(device.array(x), mode, coef))
    assert_close(got, forward, scale=np.abs(forward), dtype=dtype)
    gx = device.numpy(cudnn.activation_backward(*map(device.array, (x, y, gy)), mode, coef))
    # out (1 - out) and 1 - out^2 cancel: their terms are the scale, where the ReLUs are exact
    scale = np.abs(up) * (np.abs(factor) if mode in (1, 3) else 1 + np.abs(out) + out * out)
    assert_close(gx, up * factor, scale=scale, dtype=dtype)


@ON
@pairs(algorithm=ALGORITHMS, dtype=DTYPES)
def test_every_softmax_in_every_dtype(rng, where, algorithm, dtype):
    device = place(where)
    x, gy = normal(rng, (2, 5, 3), dtype), normal(rng, (2, 5, 3), dtype)
    wide, up = x.astype(np.float64), gy.astype(np.float64)
    share = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    log = algorithm == cudnn.CUDNN_SOFTMAX_LOG
    expected = np.log(share) if log else share
    y = device.numpy(cudnn.softmax_forward(device.array(x), 1, algorithm))
    assert_close(y, expected, scale=np.abs(expected) + np.abs(wide), dtype=dtype)
    out = y.astype(np.float64)
    if log:
        ref = up - np.exp(out) * up.sum(axis=1, keepdims=True)
        scale = np.abs(up) + np.exp(out) * np.abs(up).sum(axis=1, keepdims=True)
    else:
        ref = out * (up - (up * out).sum(axis=1, keepdims=True))
        scale = out * (np.abs(up) + (np.abs(up) * out).sum(axis=1, keepdims=True))
    gx = device.numpy(cudnn.softmax_backward(device.array(y), device.array(gy), 1, algorithm))
    assert_close(gx, ref, scale=scale, dtype=dtype)


def test_an_empty_batch_is_empty(dtype):
    x = np.zeros((0, 3), dtype)
    assert cudnn.activation_forward(x, cudnn.CUDNN_ACTIVATION_TANH).shape == x.shape
    assert cudnn.activation_backward(x, x, x, cudnn.CUDNN_ACTIVATION_TANH).shape == x.shape
    for axis in (0, 1):
        assert cudnn.softmax_forward(x, axis, cudnn.CUDNN_SOFTMAX_ACCURATE).shape == x.shape
        assert cudnn.softmax_backward(x, x, axis, cudnn.CUDNN_SOFTMAX_ACCURATE).dtype == x.dtype


def test_what_cudnn_refused_is_refused(rng):
    x = normal(rng, (2, 3))
    for mode in (-1, cudnn.CUDNN_ACTIVATION_IDENTITY):
        with pytest.raises(cudnn.CuDNNError, match="BAD_PARAM\nmode must be an activation"):
            cudnn.activation_forward(x, mode)
        with pytest.raises(cudnn.CuDNNError, match="BAD_PARAM\nmode must be an activation"):
            cudnn.activation_backward(x, x, x, mode)
    for algorithm in (-1, 3):
        with pytest.raises(cudnn.CuDNNError, match="BAD_PARAM\nalgorithm must be 0, 1 or 2"):
            cudnn.softmax_forward(x, 1, algorithm)
        with pytest.raises(cudnn.CuDNNError, match="BAD_PARAM\nalgorithm must be 0, 1 or 2"):
            cudnn.softmax_backward(x, x, 1, algorithm)
    for other in (x[:1], x.astype("float32")):
        for arrays in ((x, x, other), (x, other, x)):
            with pytest.raises(cudnn.CuDNNError, match="arrays must share shape and dtype\nx: shape"):
                cudnn.activation_backward(*arrays, cudnn.CUDNN_ACTIVATION_RELU)
        with pytest.raises(cudnn.CuDNNError, match="arrays must share shape and dtype\ny: shape"):
            cudnn.softmax_backward(x, other, 1, cudnn.CUDNN_SOFTMAX_LOG)
    with pytest.raises(TypeError, match="x must be float16, float32 or float64, got int64"):
        cudnn.activation_forward(x.astype(int), cudnn.CUDNN_ACTIVATION_RELU)
