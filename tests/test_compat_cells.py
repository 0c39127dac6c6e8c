"""The test cells of the courses' notebooks, with their inputs and the numbers they expect.

Each runs on the oracle's loops, on the CPU and on the GPU (emulated, and a real one if there is one).  Numbers are those
that correct solutions print; seeded cells use 231.  Where a cell compares with a numerical gradient, that one is taken
on the CPU: its own error is what limits "e-8 or less", so bounds are what notebooks of correct solutions print.
"""

from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from places import CPU, EMULATED, GPU, device_cuda

from gpuconv import backend
from gpuconv.compat import (
    cnn,
    conv_layers,
    fast_layers,
    fc_net,
    gradient_check,
    layer_utils,
    layers,
    optim,
    optim_ucla,
    solver,
)


@contextmanager
def _at(name):
    if name == "oracle":
        with mock.patch.dict(backend._PACKAGE_OF, {"NumPy": "gpuconv.naive"}), backend.using("cpu"):
            yield name
    else:
        with device_cuda(name), backend.using(name.partition("-")[0]):
            yield name


_ON_LADDER = pytest.param(*EMULATED.values, marks=[*EMULATED.marks, pytest.mark.ladder])


@pytest.fixture(params=["oracle", CPU, _ON_LADDER, GPU])
def where(request):
    """Run a cell at every place; the operators behind it run in the emulator on every change, in tests of their own."""
    with _at(request.param) as name:
        yield name


@pytest.fixture(params=[CPU, _ON_LADDER, GPU])
def where_fast(request):
    """Run a cell of much work: the oracle would need minutes, the emulator seconds."""
    with _at(request.param) as name:
        yield name


def _error(x, y):
    """Return the notebooks' measure of difference."""
    return np.max(np.abs(x - y) / np.maximum(1e-8, np.abs(x) + np.abs(y)))


def _numeric(f, x, dout):
    with backend.using("cpu"), mock.patch.dict(backend._PACKAGE_OF, {"NumPy": "gpuconv.cpu"}):
        return gradient_check.eval_numerical_gradient_array(f, x, dout)


def _errors(grads, forward, arrays, dout):
    """Return the error of each gradient against the numerical one; forward() reads the arrays."""
    return [_error(grad, _numeric(lambda _: forward(), array, dout)) for grad, array in zip(grads, arrays, strict=True)]


def _seeded():
    return np.random.RandomState(231)


def _seed():
    np.random.seed(231)  # noqa: NPY002 - the generator that notebooks seed
    return np.random


# Convolution and pooling --------------------------------------------------------------------------------------------

CONV_OUT = [
    [
        [[-0.08759809, -0.10987781], [-0.18387192, -0.2109216]],
        [[0.21027089, 0.21661097], [0.22847626, 0.23004637]],
        [[0.50813986, 0.54309974], [0.64082444, 0.67101435]],
    ],
    [
        [[-0.98053589, -1.03143541], [-1.19128892, -1.24695841]],
        [[0.69108355, 0.66880383], [0.59480972, 0.56776003]],
        [[2.36270298, 2.36904306], [2.38090835, 2.38247847]],
    ],
]
POOL_OUT = [
    [
        [[-0.26315789, -0.24842105], [-0.20421053, -0.18947368]],
        [[-0.14526316, -0.13052632], [-0.08631579, -0.07157895]],
        [[-0.02736842, -0.01263158], [0.03157895, 0.04631579]],
    ],
    [
        [[0.09052632, 0.10526316], [0.14947368, 0.16421053]],
        [[0.20842105, 0.22315789], [0.26736842, 0.28210526]],
        [[0.32631579, 0.34105263], [0.38526316, 0.4]],
    ],
]
CONVS = [
    (conv_layers.conv_forward_naive, conv_layers.conv_backward_naive),
    (fast_layers.conv_forward_fast, fast_layers.conv_backward_fast),
]
POOLS = [
    (conv_layers.max_pool_forward_naive, conv_layers.max_pool_backward_naive),
    (fast_layers.max_pool_forward_fast, fast_layers.max_pool_backward_fast),
    (fast_layers.max_pool_forward_im2col, fast_layers.max_pool_backward_im2col),
]
TWO_BY_TWO = {"pool_height": 2, "pool_width": 2, "stride": 2}


@pytest.mark.parametrize(("forward", "backward"), CONVS, ids=["naive", "fast"])
def test_conv_forward(forward, backward, where):
    x = np.linspace(-0.1, 0.5, 96).reshape(2, 3, 4, 4)
    w = np.linspace(-0.2, 0.3, 144).reshape(3, 3, 4, 4)
    out, _ = forward(x, w, np.linspace(-0.1, 0.2, 3), {"stride": 2, "pad": 1})
    # Not 0, as the given numbers have 8 digits: the error everyone's notebook prints.
    assert _error(out, np.array(CONV_OUT)) == pytest.approx(2.2121476417505994e-08, rel=1e-4)


def test_image_filters_with_a_bias_of_integers(where):
    """The cell that makes pictures grey and finds their edges: 128 is no float."""
    x = _seeded().randint(0, 256, (2, 3, 20, 20)).astype(float)
    w = np.zeros((2, 3, 3, 3))
    w[0, :, 1, 1] = [0.3, 0.6, 0.1]
    w[1, 2] = [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]
    out, _ = fast_layers.conv_forward_fast(x, w, np.array([0, 128]), {"stride": 1, "pad": 1})
    np.testing.assert_allclose(out[:, 0], np.tensordot(x, [0.3, 0.6, 0.1], axes=(1, 0)), rtol=1e-14)
    inside = x[:, 2, :-2] - x[:, 2, 2:]
    edges = inside[:, :, :-2] + 2 * inside[:, :, 1:-1] + inside[:, :, 2:] + 128
    np.testing.assert_array_equal(out[:, 1, 1:-1, 1:-1], edges)


@pytest.mark.parametrize(("forward", "backward"), CONVS, ids=["naive", "fast"])
def test_conv_backward(forward, backward, where):
    draw, param = _seeded(), {"stride": 1, "pad": 1}
    x, w, b, dout = draw.randn(4, 3, 5, 5), draw.randn(2, 3, 3, 3), draw.randn(2), draw.randn(4, 2, 5, 5)
    grads = backward(dout, forward(x, w, b, param)[1])
    errors = _errors(grads, lambda: fast_layers.conv_forward_fast(x, w, b, param)[0], (x, w, b), dout)
    assert errors[0] < 5e-8
    assert errors[1] < 5e-9
    assert errors[2] < 5e-10


@pytest.mark.parametrize(("forward", "backward"), POOLS, ids=["naive", "fast", "im2col"])
def test_max_pool_forward(forward, backward, where):
    x = np.linspace(-0.3, 0.4, 96).reshape(2, 3, 4, 4)
    out, _ = forward(x, {"pool_width": 2, "pool_height": 2, "stride": 2})
    assert _error(out, np.array(POOL_OUT)) == pytest.approx(4.1666665157267834e-08, rel=1e-4)


@pytest.mark.parametrize(("forward", "backward"), POOLS, ids=["naive", "fast", "im2col"])
def test_max_pool_backward(forward, backward, where):
    draw = _seeded()
    x, dout = draw.randn(3, 2, 8, 8), draw.randn(3, 2, 4, 4)
    dx = backward(dout, forward(x, TWO_BY_TWO)[1])
    assert _errors([dx], lambda: fast_layers.max_pool_forward_fast(x, TWO_BY_TWO)[0], [x], dout)[0] < 1e-11


@pytest.mark.parametrize("images", [5, pytest.param(100, marks=pytest.mark.ladder)])
def test_fast_conv_against_naive(images, where):
    """The speed cell; the loops need half a minute for its hundred images."""
    if where == "oracle":
        pytest.skip("it is the naive side")
    draw, param = _seeded(), {"stride": 2, "pad": 1}
    x, w, b = draw.randn(100, 3, 31, 31)[:images], draw.randn(25, 3, 3, 3), draw.randn(25)
    dout = draw.randn(100, 25, 16, 16)[:images]
    (slow, slow_cache), (fast, fast_cache) = (forward(x, w, b, param) for forward, _ in CONVS)
    assert _error(slow, fast) < 1e-9
    slow_grads, fast_grads = (
        backward(dout, cache) for (_, backward), cache in zip(CONVS, (slow_cache, fast_cache), strict=True)
    )
    for slow_grad, fast_grad in zip(slow_grads, fast_grads, strict=True):
        assert _error(slow_grad, fast_grad) < 1e-9


@pytest.mark.parametrize("images", [5, pytest.param(100, marks=pytest.mark.ladder)])
def test_fast_pool_against_naive(images, where):
    draw = _seeded()
    x, dout = draw.randn(100, 3, 32, 32)[:images], draw.randn(100, 3, 16, 16)[:images]
    slow, cache = conv_layers.max_pool_forward_naive(x, TWO_BY_TWO)
    slow_dx = conv_layers.max_pool_backward_naive(dout, cache)
    for forward, backward in POOLS[1:]:
        fast, cache = forward(x, TWO_BY_TWO)
        np.testing.assert_array_equal(fast, slow)
        np.testing.assert_array_equal(backward(dout, cache), slow_dx)


def test_sums_of_the_speed_cells(where_fast):
    """Sums and absolute sums, computed once with float64 code that is not this one."""
    draw = _seeded()
    x, w, b = draw.randn(100, 3, 31, 31), draw.randn(25, 3, 3, 3), draw.randn(25)
    dout = draw.randn(100, 25, 16, 16)
    out, cache = fast_layers.conv_forward_fast(x, w, b, {"stride": 2, "pad": 1})
    arrays = out, *fast_layers.conv_backward_fast(dout, cache)
    sums = [55154.7760271, 2524.76308798, 2991.32751018, 2260.63574581]
    np.testing.assert_allclose([a.sum() for a in arrays], sums, rtol=1e-11)
    sizes = [np.abs(a).sum() for a in arrays[:3]]
    np.testing.assert_allclose(sizes, [2621193.12166, 1664528.26428, 81594.2235761], rtol=1e-11)

    draw = _seeded()
    x, dout = draw.randn(100, 3, 32, 32), draw.randn(100, 3, 16, 16)
    out, cache = fast_layers.max_pool_forward_fast(x, TWO_BY_TWO)
    dx = fast_layers.max_pool_backward_fast(dout, cache)
    np.testing.assert_allclose(
        [out.sum(), dx.sum(), np.abs(dx).sum()], [79169.7675172, 191.099410941, 61113.1214807], rtol=1e-11
    )


SANDWICHES = {
    "conv_relu_pool": ((2, 3, 8, 8), (3, 3, 3, 3), (2, 3, 4, 4), [{"stride": 1, "pad": 1}, TWO_BY_TWO]),
    "conv_relu": ((2, 3, 8, 8), (3, 3, 3, 3), (2, 3, 8, 8), [{"stride": 1, "pad": 1}]),
    "affine_relu": ((2, 3, 4), (12, 10), (2, 10), []),
}


@pytest.mark.parametrize("name", SANDWICHES)
def test_sandwich(name, where):
    x_shape, w_shape, dout_shape, params = SANDWICHES[name]
    draw = _seeded()
    x, w, b = draw.randn(*x_shape), draw.randn(*w_shape), draw.randn(dout_shape[1])
    dout = draw.randn(*dout_shape)
    forward, backward = (getattr(layer_utils, f"{name}_{way}") for way in ("forward", "backward"))
    grads = backward(dout, forward(x, w, b, *params)[1])
    assert max(_errors(grads, lambda: forward(x, w, b, *params)[0], (x, w, b), dout)) < 5e-8


@pytest.mark.parametrize("name", ["conv_bn_relu", "conv_bn_relu_pool", "affine_bn_relu"])
def test_sandwich_with_batchnorm(name, where):
    draw, images = _seeded(), name != "affine_bn_relu"
    x, w = (draw.randn(4, 2, 4, 6), draw.randn(3, 2, 3, 3)) if images else (draw.randn(6, 5), draw.randn(5, 3))
    b, gamma, beta = draw.randn(3), draw.randn(3), draw.randn(3)
    before = [{"stride": 1, "pad": 1}] if images else []
    after = [TWO_BY_TWO] if name.endswith("pool") else []
    forward, backward = (getattr(layer_utils, f"{name}_{way}") for way in ("forward", "backward"))

    def run():
        return forward(x, w, b, gamma, beta, *before, {"mode": "train"}, *after)

    out, cache = run()
    dout = draw.randn(*out.shape)
    grads = backward(dout, cache)
    # What batch normalisation does to a constant it takes off again: the gradient of b is rounding, and left out.
    pairs = [(grads[i], array) for i, array in ((0, x), (1, w), (3, gamma), (4, beta))]
    errors = _errors([g for g, _ in pairs], lambda: run()[0], [a for _, a in pairs], dout)
    assert max(errors) < 1e-5
    np.testing.assert_allclose(grads[2], 0, atol=1e-12)


# Affine, ReLU, losses -----------------------------------------------------------------------------------------------


def test_affine(where):
    x = np.linspace(-0.1, 0.5, 240).reshape(2, 4, 5, 6)
    w, b = np.linspace(-0.2, 0.3, 360).reshape(120, 3), np.linspace(-0.3, 0.1, 3)
    correct = np.array([[1.49834967, 1.70660132, 1.91485297], [3.25553199, 3.5141327, 3.77273342]])
    assert _error(layers.affine_forward(x, w, b)[0], correct) == pytest.approx(9.769849468192957e-10, rel=1e-4)
    draw = _seeded()
    x, w, b, dout = draw.randn(10, 2, 3), draw.randn(6, 5), draw.randn(5), draw.randn(10, 5)
    grads = layers.affine_backward(dout, layers.affine_forward(x, w, b)[1])
    assert [grad.shape for grad in grads] == [x.shape, w.shape, b.shape]
    assert max(_errors(grads, lambda: layers.affine_forward(x, w, b)[0], (x, w, b), dout)) < 1e-8


def test_relu(where):
    x = np.linspace(-0.5, 0.5, 12).reshape(3, 4)
    np.testing.assert_array_equal(layers.relu_forward(x)[0], np.maximum(x, 0))
    draw = _seeded()
    x, dout = draw.randn(10, 10), draw.randn(10, 10)
    dx = layers.relu_backward(dout, layers.relu_forward(x)[1])
    assert _errors([dx], lambda: layers.relu_forward(x)[0], [x], dout)[0] < 1e-11
    assert layers.relu_backward(np.ones(1), np.zeros(1)) == 0


@pytest.mark.parametrize(("loss", "value"), [(layers.softmax_loss, 2.3), (layers.svm_loss, 9.0)])
def test_loss(loss, value, where):
    draw = _seeded()
    x, y = 0.001 * draw.randn(50, 10), draw.randint(10, size=50)
    got, dx = loss(x, y)
    assert isinstance(got, float)
    assert abs(got - value) < 0.01
    assert _error(dx, _numeric(lambda x: np.array(loss(x, y)[0]), x, 1.0)) < 1e-7


def test_two_layer_net(where):
    model = fc_net.TwoLayerNet(input_dim=5, hidden_dim=50, num_classes=7)
    for name, (low, high) in {"W1": (-0.7, 0.3), "b1": (-0.1, 0.9), "W2": (-0.3, 0.4), "b2": (-0.9, 0.1)}.items():
        shape = model.params[name].shape
        model.params[name] = np.linspace(low, high, model.params[name].size).reshape(shape)
    X = np.linspace(-5.5, 4.5, 15).reshape(5, 3).T
    y = np.array([0, 5, 1])
    assert abs(model.loss(X, y)[0] - 3.4702243556) < 1e-10
    model.reg = 1.0
    assert abs(model.loss(X, y)[0] - 26.5948426952) < 1e-10


# Update rules -------------------------------------------------------------------------------------------------------

W, DW = np.linspace(-0.4, 0.6, 20).reshape(4, 5), np.linspace(-0.6, 0.4, 20).reshape(4, 5)


def _between(low, high):
    return np.linspace(low, high, 20).reshape(4, 5)


RULES = {
    "momentum": (
        optim.sgd_momentum,
        {"learning_rate": 1e-3, "velocity": _between(0.6, 0.9)},
        [0.1406, 0.20738947, 0.27417895, 0.34096842, 0.40775789],
    ),
    "nesterov": (
        optim.sgd_nesterov_momentum,
        {"learning_rate": 1e-3, "velocity": _between(0.6, 0.9)},
        [0.08714, 0.15246105, 0.21778211, 0.28310316, 0.34842421],
    ),
    "rmsprop": (
        optim.rmsprop,
        {"learning_rate": 1e-2, "cache": _between(0.6, 0.9)},
        [-0.39223849, -0.34037513, -0.28849239, -0.23659121, -0.18467247],
    ),
    "rmsprop_ucla": (
        optim_ucla.rmsprop,
        {"learning_rate": 1e-2, "a": _between(0.6, 0.9)},
        [-0.39223849, -0.34037513, -0.28849239, -0.23659121, -0.18467247],
    ),
    "adam": (
        optim.adam,
        {"learning_rate": 1e-2, "m": _between(0.6, 0.9), "v": _between(0.7, 0.5), "t": 5},
        [-0.40094747, -0.34836187, -0.29577703, -0.24319299, -0.19060977],
    ),
    "adam_ucla": (
        optim_ucla.adam,
        {"learning_rate": 1e-2, "v": _between(0.6, 0.9), "a": _between(0.7, 0.5), "t": 5},
        [-0.40094747, -0.34836187, -0.29577703, -0.24319299, -0.19060977],
    ),
    "adam_epsilon_hat": (
        optim.adam_epsilon_hat,
        {"learning_rate": 1e-2, "m": _between(0.6, 0.9), "v": _between(0.7, 0.5), "t": 5},
        [-0.40094747, -0.34836187, -0.29577703, -0.24319299, -0.19060977],
    ),
}


@pytest.mark.parametrize(("rule", "config", "first_row"), RULES.values(), ids=RULES.keys())
def test_update_rule(rule, config, first_row):
    w, config = W.copy(), {name: np.copy(value) if np.ndim(value) else value for name, value in config.items()}
    next_w, after = rule(w, DW, config)
    np.testing.assert_allclose(next_w[0], first_row, atol=6e-9)
    np.testing.assert_array_equal(w, W)
    assert after is config
    assert config.get("t", 6) == 6


def test_the_two_forms_of_adam_differ_in_their_epsilon():
    """The errors that notebooks print, as far as an error of the last digits can be told from five numbers."""
    textbook, reordered = (
        rule(W, DW, {"learning_rate": 1e-2, "m": _between(0.6, 0.9), "v": _between(0.7, 0.5), "t": 5})[0]
        for rule in (optim.adam, optim.adam_epsilon_hat)
    )
    m, v = 0.9 * _between(0.6, 0.9) + 0.1 * DW, 0.999 * _between(0.7, 0.5) + 0.001 * DW**2
    m_hat, v_hat = m / (1 - 0.9**6), v / (1 - 0.999**6)
    np.testing.assert_allclose(textbook, W - 1e-2 * m_hat / (np.sqrt(v_hat) + 1e-8), rtol=1e-13)
    rate = 1e-2 * np.sqrt(1 - 0.999**6) / (1 - 0.9**6)
    np.testing.assert_allclose(reordered, W - rate * m / (np.sqrt(v) + 1e-8), rtol=1e-13)
    assert 0 < np.abs(textbook - reordered).max() < 1e-8


def test_sgd_works_in_place():
    w = np.ones(3, np.float32)
    next_w, config = optim.sgd(w, np.full(3, 2.0))
    assert next_w is w
    assert w.dtype == np.float32
    np.testing.assert_allclose(w, 0.98, rtol=1e-6)
    assert config == {"learning_rate": 1e-2}


# Normalisation ------------------------------------------------------------------------------------------------------


def _two_layers(draw, w1, w2):
    return np.maximum(0, draw.randn(200, 50).dot(w1)).dot(w2)


def test_batchnorm_forward_in_training(where):
    draw = _seeded()
    x, w1, w2 = draw.randn(200, 50), draw.randn(50, 60), draw.randn(60, 3)
    a = np.maximum(0, x.dot(w1)).dot(w2)
    np.testing.assert_allclose(a.mean(axis=0), [-2.3814598, -13.18038246, 1.91780462], rtol=1e-7)
    out, _ = layers.batchnorm_forward(a, np.ones(3), np.zeros(3), {"mode": "train"})
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(out.std(axis=0), [0.99999999, 1, 1], atol=6e-9)
    gamma, beta = np.asarray([1.0, 2.0, 3.0]), np.asarray([11.0, 12.0, 13.0])
    out, _ = layers.batchnorm_forward(a, gamma, beta, {"mode": "train"})
    np.testing.assert_allclose(out.mean(axis=0), beta, rtol=1e-14)
    np.testing.assert_allclose(out.std(axis=0), gamma, rtol=2e-8)


def test_batchnorm_forward_at_test_time(where):
    """Fixes the running statistics: biased variance, momentum on the old value, both 0 at first."""
    draw = _seeded()
    w1, w2 = draw.randn(50, 60), draw.randn(60, 3)
    bn_param = {"mode": "train"}
    for _ in range(50):
        layers.batchnorm_forward(_two_layers(draw, w1, w2), np.ones(3), np.zeros(3), bn_param)
    bn_param["mode"] = "test"
    out, _ = layers.batchnorm_forward(_two_layers(draw, w1, w2), np.ones(3), np.zeros(3), bn_param)
    np.testing.assert_allclose(out.mean(axis=0), [-0.03927354, -0.04349152, -0.10452688], atol=6e-9)
    np.testing.assert_allclose(out.std(axis=0), [1.01531428, 1.01238373, 0.97819988], atol=6e-9)


@pytest.mark.parametrize("backward", [layers.batchnorm_backward, layers.batchnorm_backward_alt])
def test_batchnorm_backward(backward, where):
    draw = _seeded()
    x, gamma, beta, dout = 5 * draw.randn(4, 5) + 12, draw.randn(5), draw.randn(5), draw.randn(4, 5)

    def forward():
        return layers.batchnorm_forward(x, gamma, beta, {"mode": "train"})

    errors = _errors(backward(dout, forward()[1]), lambda: forward()[0], (x, gamma, beta), dout)
    assert errors[0] < 1e-8
    assert max(errors[1:]) < 1e-10


def test_batchnorm_backward_alt_is_the_plain_one(where):
    draw = _seeded()
    x, gamma, beta, dout = 5 * draw.randn(100, 50) + 12, draw.randn(50), draw.randn(50), draw.randn(100, 50)
    _, cache = layers.batchnorm_forward(x, gamma, beta, {"mode": "train"})
    for one, other in zip(
        layers.batchnorm_backward(dout, cache), layers.batchnorm_backward_alt(dout, cache), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_layernorm_forward(where):
    """Other keys, such as mode, are ignored."""
    draw = _seeded()
    x, w1, w2 = draw.randn(4, 50), draw.randn(50, 60), draw.randn(60, 3)
    a = np.maximum(0, x.dot(w1)).dot(w2)
    np.testing.assert_allclose(a.mean(axis=1), [-59.06673243, -47.60782686, -43.31137368, -26.40991744], rtol=1e-8)
    out, _ = layers.layernorm_forward(a, np.ones(3), np.zeros(3), {"mode": "train"})
    np.testing.assert_allclose(out.mean(axis=1), 0, atol=1e-14)
    deviations = np.sqrt(a.var(axis=1) / (a.var(axis=1) + 1e-5))
    np.testing.assert_allclose(out.std(axis=1), deviations, rtol=1e-13)
    gamma, beta = np.asarray([3.0, 3.0, 3.0]), np.asarray([5.0, 5.0, 5.0])
    out, _ = layers.layernorm_forward(a, gamma, beta, {})
    np.testing.assert_allclose(out.mean(axis=1), 5, rtol=1e-14)
    np.testing.assert_allclose(out.std(axis=1), 3 * deviations, rtol=1e-13)


def test_layernorm_backward(where):
    draw = _seeded()
    x, gamma, beta, dout = 5 * draw.randn(4, 5) + 12, draw.randn(5), draw.randn(5), draw.randn(4, 5)

    def forward():
        return layers.layernorm_forward(x, gamma, beta, {})

    errors = _errors(layers.layernorm_backward(dout, forward()[1]), lambda: forward()[0], (x, gamma, beta), dout)
    assert errors[0] < 1e-8
    assert max(errors[1:]) < 1e-10


def test_spatial_batchnorm_forward(where):
    """The second call has integer gamma and beta, as the cell does."""
    x = 4 * _seeded().randn(2, 3, 4, 5) + 10
    out, _ = conv_layers.spatial_batchnorm_forward(x, np.ones(3), np.zeros(3), {"mode": "train"})
    np.testing.assert_allclose(out.std(axis=(0, 2, 3)), [0.99999962, 0.99999951, 0.9999996], atol=6e-9)
    gamma, beta = np.asarray([3, 4, 5]), np.asarray([6, 7, 8])
    out, _ = conv_layers.spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})
    assert out.dtype == np.float64
    np.testing.assert_allclose(out.mean(axis=(0, 2, 3)), [6, 7, 8], rtol=1e-14)
    np.testing.assert_allclose(out.std(axis=(0, 2, 3)), [2.99999885, 3.99999804, 4.99999798], atol=6e-9)


def test_spatial_batchnorm_at_test_time(where):
    draw, bn_param = _seeded(), {"mode": "train"}
    for _ in range(50):
        x = 2.3 * draw.randn(10, 4, 11, 12) + 13
        conv_layers.spatial_batchnorm_forward(x, np.ones(4), np.zeros(4), bn_param)
    bn_param["mode"] = "test"
    x = 2.3 * draw.randn(10, 4, 11, 12) + 13
    out, _ = conv_layers.spatial_batchnorm_forward(x, np.ones(4), np.zeros(4), bn_param)
    means, deviations = out.mean(axis=(0, 2, 3)), out.std(axis=(0, 2, 3))
    np.testing.assert_allclose(means, [-0.08034406, 0.07562881, 0.05716371, 0.04378383], atol=6e-9)
    np.testing.assert_allclose(deviations, [0.96718744, 1.0299714, 1.02887624, 1.00585577], atol=6e-9)


def test_spatial_batchnorm_backward(where):
    draw = _seeded()
    x, gamma, beta, dout = 5 * draw.randn(2, 3, 4, 5) + 12, draw.randn(3), draw.randn(3), draw.randn(2, 3, 4, 5)

    def forward():
        return conv_layers.spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})

    grads = conv_layers.spatial_batchnorm_backward(dout, forward()[1])
    errors = _errors(grads, lambda: forward()[0], (x, gamma, beta), dout)
    assert errors[0] < 1e-6
    assert max(errors[1:]) < 1e-10


def test_spatial_groupnorm_forward(where):
    x = 4 * _seeded().randn(2, 6, 4, 5) + 10
    out, _ = conv_layers.spatial_groupnorm_forward(x, np.ones((1, 6, 1, 1)), np.zeros((1, 6, 1, 1)), 2, {})
    groups = out.reshape(4, -1)
    np.testing.assert_allclose(groups.mean(axis=1), 0, atol=1e-14)
    np.testing.assert_allclose(groups.std(axis=1), [0.99999963, 0.99999948, 0.99999973, 0.99999968], atol=6e-9)


def test_spatial_groupnorm_backward(where):
    draw = _seeded()
    x, gamma, beta = 5 * draw.randn(2, 6, 4, 5) + 12, draw.randn(1, 6, 1, 1), draw.randn(1, 6, 1, 1)
    dout = draw.randn(2, 6, 4, 5)

    def forward():
        return conv_layers.spatial_groupnorm_forward(x, gamma, beta, 2, {})

    grads = conv_layers.spatial_groupnorm_backward(dout, forward()[1])
    assert [grad.shape for grad in grads] == [x.shape, gamma.shape, beta.shape]
    errors = _errors(grads, lambda: forward()[0], (x, gamma, beta), dout)
    assert errors[0] < 2e-7
    assert max(errors[1:]) < 1e-10


# Dropout ------------------------------------------------------------------------------------------------------------


def test_dropout_forward(where_fast):
    """p is the probability to keep; the numbers come from NumPy's global generator."""
    draw = _seed()
    x = draw.randn(500, 500) + 10
    np.testing.assert_allclose(x.mean(), 10.0002078784775, rtol=1e-14)
    for p, mean, zeros in ((0.25, 10.0141, 0.749784), (0.4, 9.9779, 0.600796), (0.7, 9.9878, 0.30074)):
        out, (_, mask) = layers.dropout_forward(x, {"mode": "train", "p": p})
        assert abs(out.mean() - mean) < 5e-5
        assert (out == 0).mean() == zeros
        np.testing.assert_array_equal(out, x * mask)
        out, (_, mask) = layers.dropout_forward(x, {"mode": "test", "p": p})
        np.testing.assert_array_equal(out, x)
        assert mask is None


def test_dropout_backward(where):
    draw = _seeded()
    x, dout = draw.randn(10, 10) + 10, draw.randn(10, 10)
    dropout_param = {"mode": "train", "p": 0.2, "seed": 123}
    dx = layers.dropout_backward(dout, layers.dropout_forward(x, dropout_param)[1])
    assert _errors([dx], lambda: layers.dropout_forward(x, dropout_param)[0], [x], dout)[0] < 1e-10


# Nets ---------------------------------------------------------------------------------------------------------------


def test_sanity_of_the_loss(where_fast):
    """About log(10) for small weights, and 0.5 reg of the sum of squares more with a penalty."""
    draw = _seed()
    model = cnn.ThreeLayerConvNet()
    X, y = draw.randn(50, 3, 32, 32), draw.randint(10, size=50)
    loss, _ = model.loss(X, y)
    assert abs(loss - np.log(10)) < 1e-4
    model.reg = 0.5
    assert model.loss(X, y)[0] == pytest.approx(2.5082556, abs=2e-3)


# The errors that correct nets print: of the two sets that are about, the larger one.  They are the differences' own, of
# tiny gradients near kinks, and depend on the last bit of the loss.
NET_ERRORS = {
    "W1": 3.053965e-04,
    "W3": 3.422399e-04,
    "b1": 3.477652e-05,
    "b2": 2.517459e-03,
    "b3": 9.711800e-10,
    "W2": 1.822723e-02,
}


@pytest.mark.parametrize("name", [*list(NET_ERRORS)[:-1], pytest.param("W2", marks=pytest.mark.ladder)])
def test_gradient_check_of_the_net(name, where):
    draw = _seed()
    X, y = draw.randn(2, 3, 16, 16), draw.randint(10, size=2)
    settings = {"input_dim": (3, 16, 16), "num_filters": 3, "filter_size": 3, "hidden_dim": 7, "dtype": np.float64}
    model = cnn.ThreeLayerConvNet(**settings)
    _, grads = model.loss(X, y)
    numeric = _numeric_of_loss(lambda: model.loss(X, y)[0], model.params[name], h=1e-6)
    assert _error(numeric, grads[name]) < 2 * NET_ERRORS[name]


def _numeric_of_loss(loss, array, h=1e-5):
    with backend.using("cpu"), mock.patch.dict(backend._PACKAGE_OF, {"NumPy": "gpuconv.cpu"}):
        return gradient_check.eval_numerical_gradient(lambda _: loss(), array, verbose=False, h=h)


@pytest.mark.parametrize(("reg", "expected"), [(0, 2.2611955101340957), (3.14, 6.996533220108303)])
def test_fully_connected_net_with_batchnorm(reg, expected, where):
    draw = _seed()
    X, y = draw.randn(2, 15), draw.randint(10, size=(2,))
    for strength in (0, 3.14):
        settings = {"reg": strength, "weight_scale": 5e-2, "dtype": np.float64, "normalization": "batchnorm"}
        model = fc_net.FullyConnectedNet([20, 30], input_dim=15, num_classes=10, **settings)
        if strength == reg:
            assert model.loss(X, y)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm"])
@pytest.mark.parametrize("keep", [1, 0.75])
def test_fully_connected_net_gradients(normalization, keep, where_fast):
    draw = _seed()
    X, y = draw.randn(4, 5), draw.randint(3, size=4)
    model = fc_net.FullyConnectedNet(
        [4, 6],
        input_dim=5,
        num_classes=3,
        dropout_keep_ratio=keep,
        normalization=normalization,
        reg=0.3,
        weight_scale=0.5,
        dtype=np.float64,
        seed=123,
    )
    _, grads = model.loss(X, y)
    assert grads.keys() == model.params.keys()
    for name, grad in grads.items():
        numeric = _numeric_of_loss(lambda: model.loss(X, y)[0], model.params[name])
        np.testing.assert_allclose(grad, numeric, atol=1e-7)


def test_overfits_a_little_data(where_fast, capsys):
    """A hundred pictures, fifteen epochs in the notebook; here a dozen of noise, learnt by heart."""
    draw = _seed()
    data = {"X_train": draw.randn(12, 3, 8, 8), "y_train": draw.randint(10, size=12)}
    data |= {"X_val": draw.randn(6, 3, 8, 8), "y_val": draw.randint(10, size=6)}
    model = cnn.ThreeLayerConvNet(input_dim=(3, 8, 8), num_filters=6, filter_size=3, weight_scale=1e-2)
    course = solver.Solver(
        model,
        data,
        num_epochs=40,
        batch_size=6,
        update_rule="adam",
        optim_config={"learning_rate": 1e-2},
        print_every=1,
    )
    course.train()
    assert course.train_acc_history[-1] == 1.0
    assert len(course.loss_history) == 80
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"(Iteration 1 / 80) loss: {course.loss_history[0]:f}"
    assert lines[1].startswith("(Epoch 0 / 40) train acc: ")
