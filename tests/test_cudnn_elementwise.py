"""Activations and softmax of gpuconv.cudnn, by their formulas in float64."""

import numpy as np
import pytest
from compare import assert_close, normal

from gpuconv import cudnn


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
