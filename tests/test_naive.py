"""The oracle itself: its gradients are derivatives, PyTorch agrees with it, and so do the course's published numbers."""

import itertools

import numpy as np
import pytest

from gpuconv import naive
from gpuconv.errors import ArgTypeError, CacheError, ParamError
from gpuconv.naive import course
from gpuconv.shapes import conv_sizes, pool_sizes


def _normal(rng, *shapes):
    return [rng.standard_normal(shape) for shape in shapes]


def _derivative(f, array, step):
    """Return the central differences of the scalar f() for every element of array, changed in place."""
    grad = np.zeros(array.shape)
    for place in itertools.product(*map(range, array.shape)):
        keep = array[place]
        array[place] = keep + step
        up = f()
        array[place] = keep - step
        grad[place] = (up - f()) / (2 * step)
        array[place] = keep
    return grad


def _assert_derivative(grad, f, array, *, step, rtol):
    """Hold grad to the central differences, relative to its largest entry."""
    expected = _derivative(f, array, step)
    assert grad.shape == array.shape
    np.testing.assert_allclose(grad, expected, rtol=0, atol=rtol * max(1e-300, np.abs(expected).max()))


# Derivatives --------------------------------------------------------------------------------------------------------

CONV = {
    "plain": ((2, 2, 4, 5), (3, 2, 3, 2), {}),
    "stride_and_pad": ((1, 2, 5, 4), (2, 2, 3, 3), {"stride": (2, 1), "pad": (1, 2)}),
    "dilation": ((1, 2, 6, 5), (2, 2, 2, 3), {"dilation": (2, 1), "pad": 1}),
    "groups": ((1, 4, 4, 4), (6, 2, 2, 2), {"groups": 2}),
    "stride_drops_a_column": ((1, 1, 5, 6), (1, 1, 2, 2), {"stride": 3}),
}


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONV.values(), ids=CONV.keys())
def test_conv_gradients_are_derivatives(x_shape, w_shape, options, rng):
    """Linear in each argument, so a step of 1 has no error but rounding."""
    x, w, b = _normal(rng, x_shape, w_shape, w_shape[0])
    z = conv_sizes(x, w, b, **options)
    dy = rng.standard_normal((z.N, z.K, z.P, z.Q))
    grads = naive.conv_backward(dy, x, w, z, input_grad=True, bias_grad=True)
    for grad, array in zip(grads, (x, w, b), strict=True):
        _assert_derivative(grad, lambda: np.vdot(dy, naive.conv_forward(x, w, b, z)), array, step=1.0, rtol=1e-13)


@pytest.mark.parametrize(
    "options",
    [{}, {"window": 3, "stride": 1}, {"window": 3, "stride": 2, "pad": 1}, {"window": (1, 2), "stride": (2, 1)}],
    ids=str,
)
def test_max_pool_gradient_is_the_derivative(options, rng):
    """On distinct integers, where a step of 1/4 meets no tie and all sums are exact."""
    x = rng.permutation(2 * 2 * 5 * 6).reshape(2, 2, 5, 6).astype(float)
    z = pool_sizes(x, **{"window": 2, "stride": None, "pad": 0, **options})
    dy = rng.integers(-9, 10, (z.N, z.C, z.P, z.Q)).astype(float)
    dx = naive.max_pool_backward(dy, naive.max_pool_forward(x, z)[1], z)
    _assert_derivative(dx, lambda: np.vdot(dy, naive.max_pool_forward(x, z)[0]), x, step=0.25, rtol=0)


@pytest.mark.parametrize("count_pad", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"window": 3, "stride": 2, "pad": 1}, {"window": (1, 4), "pad": (0, 2)}], ids=str
)
def test_average_pool_gradient_is_the_derivative(options, count_pad, rng):
    x = rng.standard_normal((2, 2, 5, 6))
    z = pool_sizes(x, **{"window": 2, "stride": None, "pad": 0, **options})
    dy = rng.standard_normal((z.N, z.C, z.P, z.Q))
    dx = naive.average_pool_backward(dy, z, count_pad=count_pad)

    def f():
        return np.vdot(dy, naive.average_pool_forward(x, z, count_pad=count_pad))

    _assert_derivative(dx, f, x, step=1.0, rtol=1e-13)


def test_global_average_pool_gradient_is_the_derivative(rng):
    x, dy = _normal(rng, (2, 3, 4, 5), (2, 3))
    dx = naive.global_average_pool_backward(dy, x.shape, channels_last=False)
    _assert_derivative(dx, lambda: np.vdot(dy, naive.global_average_pool_forward(x)), x, step=1.0, rtol=1e-13)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 3)], ids=["rows", "images"])
@pytest.mark.parametrize("training", [True, False])
def test_batchnorm_gradients_are_derivatives(shape, training, rng):
    """Curved in x: a step of 1e-5 leaves 1e-10 of curvature and as much of rounding."""
    x, dy, gamma, beta, mean = _normal(rng, shape, shape, 3, 3, 3)
    var = rng.uniform(0.5, 2, 3)

    def forward():
        # Copies: the running statistics must not drift while differences are taken.
        return naive.batchnorm_forward(
            x, gamma, beta, mean.copy(), var.copy(), training=training, momentum=0.9, eps=1e-2
        )

    _, centre, inv_std = forward()
    grads = naive.batchnorm_backward(dy, x, gamma, centre, inv_std, training=training)
    for grad, array in zip(grads, (x, gamma, beta), strict=True):
        _assert_derivative(grad, lambda: np.vdot(dy, forward()[0]), array, step=1e-5, rtol=1e-8)


def test_affine_gradients_are_derivatives(rng):
    x, w, b, dy = _normal(rng, (3, 2, 4), (8, 5), 5, (3, 5))
    grads = naive.affine_backward(dy, x, w, input_grad=True, bias_grad=True)
    for grad, array in zip(grads, (x, w, b), strict=True):
        _assert_derivative(grad, lambda: np.vdot(dy, naive.affine_forward(x, w, b)), array, step=1.0, rtol=1e-13)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_gradient_is_the_derivative(approximate, rng):
    x, dy = _normal(rng, (4, 5), (4, 5))
    dx = naive.gelu_backward(dy, x, approximate=approximate)
    _assert_derivative(dx, lambda: np.vdot(dy, naive.gelu_forward(x, approximate=approximate)), x, step=1e-5, rtol=1e-9)


def test_relu_gradient_is_the_derivative(rng):
    x = rng.permutation(20) - 9.5
    dy = rng.standard_normal(20)
    dx = naive.relu_backward(dy, naive.relu_forward(x))
    _assert_derivative(dx, lambda: np.vdot(dy, naive.relu_forward(x)), x, step=0.25, rtol=1e-13)


def test_dropout_gradient_is_the_derivative(rng):
    x, dy = _normal(rng, (4, 5), (4, 5))
    _, kept = naive.dropout_forward(x, rate=0.4, seed=1, step=2)
    dx = naive.dropout_backward(dy, kept, 1 / 0.6)
    _assert_derivative(
        dx, lambda: np.vdot(dy, naive.dropout_forward(x, rate=0.4, seed=1, step=2)[0]), x, step=1.0, rtol=1e-13
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_gradient_is_the_derivative(smoothing, rng):
    scores, labels = rng.standard_normal((4, 5)), rng.integers(0, 5, 4)
    _, dscores = naive.softmax_cross_entropy(scores, labels, label_smoothing=smoothing)

    def f():
        return float(naive.softmax_cross_entropy(scores, labels, label_smoothing=smoothing)[0])

    _assert_derivative(dscores, f, scores, step=1e-4, rtol=1e-8)


def test_svm_gradient_is_the_derivative(rng):
    scores, labels = rng.permutation(20).reshape(4, 5) / 4 + 0.1, rng.integers(0, 5, 4)
    _, dscores = naive.svm_loss(scores, labels, margin=1.1)
    _assert_derivative(
        dscores, lambda: float(naive.svm_loss(scores, labels, margin=1.1)[0]), scores, step=0.01, rtol=1e-12
    )


# PyTorch ------------------------------------------------------------------------------------------------------------


def _torch():
    return pytest.importorskip("torch")


def _by_torch(function, inputs, dy):
    """Return y and the gradients of sum(dy y), of PyTorch in float64."""
    torch = _torch()
    tensors = [torch.from_numpy(a.copy()).requires_grad_() for a in inputs]
    y = function(*tensors)
    grads = torch.autograd.grad(y, tensors, torch.from_numpy(dy) if dy is not None else None)
    return [a.detach().numpy() for a in (y, *grads)]


def _assert_all_close(got, expected):
    for actual, want in zip(got, expected, strict=True):
        np.testing.assert_allclose(actual, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONV.values(), ids=CONV.keys())
def test_conv_matches_pytorch(x_shape, w_shape, options, rng):
    torch = _torch()
    x, w, b = _normal(rng, x_shape, w_shape, w_shape[0])
    z = conv_sizes(x, w, b, **options)
    dy = rng.standard_normal((z.N, z.K, z.P, z.Q))

    def conv2d(x, w, b):
        return torch.nn.functional.conv2d(x, w, b, z.stride, z.pad, z.dilation, z.groups)

    got = naive.conv_forward(x, w, b, z), *naive.conv_backward(dy, x, w, z, input_grad=True, bias_grad=True)
    _assert_all_close(got, _by_torch(conv2d, (x, w, b), dy))


@pytest.mark.parametrize("options", [{}, {"window": 3, "stride": 1}, {"window": 3, "stride": 2, "pad": 1}], ids=str)
def test_pools_match_pytorch(options, rng):
    """Ties included: both give the gradient to the first maximum."""
    torch = _torch()
    x = rng.integers(-3, 4, (2, 3, 6, 7)).astype(float)
    z = pool_sizes(x, **{"window": 2, "stride": None, "pad": 0, **options})
    dy = rng.standard_normal((z.N, z.C, z.P, z.Q))
    y, argmax = naive.max_pool_forward(x, z)
    got = y, naive.max_pool_backward(dy, argmax, z)
    _assert_all_close(
        got, _by_torch(lambda x: torch.nn.functional.max_pool2d(x, (z.R, z.S), z.stride, z.pad), (x,), dy)
    )
    for count_pad in (True, False):
        got = (
            naive.average_pool_forward(x, z, count_pad=count_pad),
            naive.average_pool_backward(dy, z, count_pad=count_pad),
        )

        def pool(x, count_pad=count_pad):
            return torch.nn.functional.avg_pool2d(x, (z.R, z.S), z.stride, z.pad, count_include_pad=count_pad)

        _assert_all_close(got, _by_torch(pool, (x,), dy))


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4, 3)], ids=["rows", "images"])
@pytest.mark.parametrize("training", [True, False])
def test_batchnorm_matches_pytorch(shape, training, rng):
    torch = _torch()
    x, dy, gamma, beta, mean = _normal(rng, shape, shape, 3, 3, 3)
    var = rng.uniform(0.5, 2, 3)
    t_mean, t_var = torch.from_numpy(mean.copy()), torch.from_numpy(var.copy())

    def batch_norm(x, gamma, beta):
        return torch.nn.functional.batch_norm(x, t_mean, t_var, gamma, beta, training=training, momentum=0.1)

    expected = _by_torch(batch_norm, (x, gamma, beta), dy)
    old_var = var.copy()
    y, centre, inv_std = naive.batchnorm_forward(x, gamma, beta, mean, var, training=training, momentum=0.9, eps=1e-5)
    _assert_all_close((y, *naive.batchnorm_backward(dy, x, gamma, centre, inv_std, training=training)), expected)
    count = x.size // 3
    biased = old_var * 0.9 + (t_var.numpy() - old_var * 0.9) * (count - 1) / count if training else t_var.numpy()
    _assert_all_close((mean, var), (t_mean.numpy(), biased))


def test_softmax_and_gelu_match_pytorch(rng):
    torch = _torch()
    scores, labels = rng.standard_normal((5, 7)), rng.integers(0, 7, 5)
    target = torch.from_numpy(labels)
    for smoothing in (0.0, 0.2):

        def loss(scores, smoothing=smoothing):
            return torch.nn.functional.cross_entropy(scores, target, label_smoothing=smoothing)

        got = naive.softmax_cross_entropy(scores, labels, label_smoothing=smoothing)
        _assert_all_close(got, _by_torch(loss, (scores,), None))
    for approximate in ("none", "tanh"):

        def gelu(x, approximate=approximate):
            return torch.nn.functional.gelu(x, approximate=approximate)

        dy = rng.standard_normal(scores.shape)
        got = (
            naive.gelu_forward(scores, approximate=approximate),
            naive.gelu_backward(dy, scores, approximate=approximate),
        )
        _assert_all_close(got, _by_torch(gelu, (scores,), dy))


# Its own manners ----------------------------------------------------------------------------------------------------


def test_results_are_float64_whatever_goes_in(rng):
    """The reference is not rounded back."""
    x, w, b = (a.astype(np.float16) for a in _normal(rng, (1, 2, 4, 4), (3, 2, 3, 3), 3))
    z, pool = conv_sizes(x, w, b), pool_sizes(x, window=2, stride=None, pad=0)
    vectors = [np.ones(2, np.float16) for _ in range(4)]
    results = [
        naive.conv_forward(x, w, b, z),
        *naive.conv_backward(np.ones((1, 3, 2, 2), np.float16), x, w, z, input_grad=True, bias_grad=True),
        naive.max_pool_forward(x, pool)[0],
        naive.average_pool_forward(x, pool, count_pad=True),
        naive.global_average_pool_forward(x),
        *naive.batchnorm_forward(x, *vectors, training=True, momentum=0.9, eps=1e-5),
        naive.affine_forward(x, np.ones((32, 2), np.float16), None),
        naive.relu_forward(x),
        naive.gelu_forward(x, approximate="none"),
        naive.dropout_forward(x, rate=0.5, seed=0, step=0)[0],
        *naive.softmax_cross_entropy(x.reshape(4, 8), np.arange(4), label_smoothing=0.0),
        *naive.svm_loss(x.reshape(4, 8), np.arange(4), margin=1.0),
    ]
    assert {a.dtype for a in results} == {np.dtype(np.float64)}
    assert {a.dtype for a in vectors} == {np.dtype(np.float16)}  # these are written in place


def test_overflow_and_invalid_operations_are_silent():
    x = np.array([[[[1e308, -np.inf], [np.inf, np.nan]]]])
    w = np.full((1, 1, 2, 2), 10.0)
    y = naive.conv_forward(x, w, None, conv_sizes(x, w, None, pad=1))
    assert np.isinf(y[0, 0, 0, 0])
    assert np.isnan(y[0, 0, 1, 1])


def test_labels_out_of_range_are_named():
    for loss, options in ((naive.softmax_cross_entropy, {"label_smoothing": 0.0}), (naive.svm_loss, {"margin": 1.0})):
        for label in (-1, 3):
            with pytest.raises(ParamError, match=rf"label {label} with 3 classes"):
                loss(np.zeros((1, 3)), np.array([label]), **options)


# The course ---------------------------------------------------------------------------------------------------------


def _error(x, y):
    """Return the course's measure of difference."""
    return np.max(np.abs(x - y) / np.maximum(1e-8, np.abs(x) + np.abs(y)))


def _numeric(f, x, dout):
    """Return the central differences of sum(f(x) dout) as the course takes them: outputs first, then the sum."""
    grad = np.zeros(x.shape)
    for place in itertools.product(*map(range, x.shape)):
        keep = x[place]
        x[place] = keep + 1e-5
        up = f(x).copy()
        x[place] = keep - 1e-5
        grad[place] = np.sum((up - f(x)) * dout) / 2e-5
        x[place] = keep
    return grad


def _seeded():
    return np.random.RandomState(231)


def test_course_conv_forward():
    x = np.linspace(-0.1, 0.5, 96).reshape(2, 3, 4, 4)
    w = np.linspace(-0.2, 0.3, 144).reshape(3, 3, 4, 4)
    b = np.linspace(-0.1, 0.2, 3)
    correct = [
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
    out, cache = course.conv_forward_naive(x, w, b, {"stride": 2, "pad": 1})
    # Not 0, as the given numbers have 8 digits: the error everyone's notebook prints.
    assert _error(out, np.array(correct)) == pytest.approx(2.2121476417505994e-08, rel=1e-4)
    assert len(cache) == 4
    assert cache[0] is x
    assert cache[3] == {"stride": 2, "pad": 1}


def test_course_conv_backward():
    draw = _seeded()
    x, w, b, dout = draw.randn(4, 3, 5, 5), draw.randn(2, 3, 3, 3), draw.randn(2), draw.randn(4, 2, 5, 5)
    parameters = {"stride": 1, "pad": 1}
    dx, dw, db = course.conv_backward_naive(dout, course.conv_forward_naive(x, w, b, parameters)[1])
    # "Errors should be around e-8 or less": those of the numbers' differences, not ours.
    assert _error(dx, _numeric(lambda x: course.conv_forward_naive(x, w, b, parameters)[0], x, dout)) < 5e-8
    assert _error(dw, _numeric(lambda w: course.conv_forward_naive(x, w, b, parameters)[0], w, dout)) < 5e-9
    assert _error(db, _numeric(lambda b: course.conv_forward_naive(x, w, b, parameters)[0], b, dout)) < 5e-10


@pytest.mark.parametrize("pad", [1.0, np.float64(1), np.float32(1), np.int64(1)])
def test_course_pad_may_be_an_integral_float(pad, rng):
    """(filter_size - 1) / 2 is one, and every net of the course passes it."""
    x, w, b = _normal(rng, (1, 2, 4, 4), (2, 2, 3, 3), 2)
    out, cache = course.conv_forward_naive(x, w, b, {"stride": 1, "pad": pad})
    assert out.shape == (1, 2, 4, 4)
    for a, e in zip(
        course.conv_backward_naive(out, cache),
        course.conv_backward_naive(out, (x, w, b, {"stride": 1, "pad": 1})),
        strict=True,
    ):
        np.testing.assert_array_equal(a, e)
    with pytest.raises(ArgTypeError, match=r"pad must be an int, got 0\.5"):
        course.conv_forward_naive(x, w, b, {"stride": 1, "pad": 0.5})


def test_course_max_pool_forward():
    x = np.linspace(-0.3, 0.4, 96).reshape(2, 3, 4, 4)
    correct = [
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
    out, cache = course.max_pool_forward_naive(x, {"pool_width": 2, "pool_height": 2, "stride": 2})
    assert _error(out, np.array(correct)) == pytest.approx(4.1666665157267834e-08, rel=1e-4)
    assert len(cache) == 2
    assert cache[0] is x


def test_course_max_pool_backward():
    draw = _seeded()
    x, dout = draw.randn(3, 2, 8, 8), draw.randn(3, 2, 4, 4)
    parameters = {"pool_height": 2, "pool_width": 2, "stride": 2}
    dx = course.max_pool_backward_naive(dout, course.max_pool_forward_naive(x, parameters)[1])
    assert _error(dx, _numeric(lambda x: course.max_pool_forward_naive(x, parameters)[0], x, dout)) < 1e-11


def test_course_gives_the_whole_gradient_to_every_tied_maximum():
    x = np.ones((1, 1, 2, 2))
    _, cache = course.max_pool_forward_naive(x, {"pool_height": 2, "pool_width": 2, "stride": 2})
    np.testing.assert_array_equal(course.max_pool_backward_naive(np.full((1, 1, 1, 1), 3.0), cache), np.full_like(x, 3))


def test_course_pools_that_overlap_add_up(rng):
    """3x3 windows on every pixel: the case a `=` for `+=` gets wrong."""
    x = rng.permutation(36).reshape(1, 1, 6, 6).astype(float)
    parameters = {"pool_height": 3, "pool_width": 3, "stride": 1}
    out, cache = course.max_pool_forward_naive(x, parameters)
    dx = course.max_pool_backward_naive(np.ones_like(out), cache)
    assert dx.sum() == out.size
    for value in np.unique(out):
        assert dx[x == value] == (out == value).sum()


def _two_layers(draw, w1, w2):
    return np.maximum(0, draw.randn(200, 50).dot(w1)).dot(w2)


def test_course_batchnorm_forward_in_training():
    draw = _seeded()
    x, w1, w2 = draw.randn(200, 50), draw.randn(50, 60), draw.randn(60, 3)
    a = np.maximum(0, x.dot(w1)).dot(w2)
    np.testing.assert_allclose(a.mean(axis=0), [-2.3814598, -13.18038246, 1.91780462], rtol=1e-7)
    out, _ = course.batchnorm_forward(a, np.ones(3), np.zeros(3), {"mode": "train"})
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(out.std(axis=0), [0.99999999, 1, 1], atol=6e-9)
    gamma, beta = np.asarray([1.0, 2.0, 3.0]), np.asarray([11.0, 12.0, 13.0])
    out, _ = course.batchnorm_forward(a, gamma, beta, {"mode": "train"})
    np.testing.assert_allclose(out.mean(axis=0), beta, rtol=1e-14)
    np.testing.assert_allclose(out.std(axis=0), gamma, rtol=2e-8)


def test_course_batchnorm_forward_at_test_time():
    """Fixes the running statistics: biased variance, momentum on the old value, both 0 at first."""
    draw = _seeded()
    w1, w2 = draw.randn(50, 60), draw.randn(60, 3)
    parameters = {"mode": "train"}
    for _ in range(50):
        course.batchnorm_forward(_two_layers(draw, w1, w2), np.ones(3), np.zeros(3), parameters)
    parameters["mode"] = "test"
    out, _ = course.batchnorm_forward(_two_layers(draw, w1, w2), np.ones(3), np.zeros(3), parameters)
    np.testing.assert_allclose(out.mean(axis=0), [-0.03927354, -0.04349152, -0.10452688], atol=6e-9)
    np.testing.assert_allclose(out.std(axis=0), [1.01531428, 1.01238373, 0.97819988], atol=6e-9)


def test_course_batchnorm_backward():
    draw = _seeded()
    x, gamma, beta, dout = 5 * draw.randn(4, 5) + 12, draw.randn(5), draw.randn(5), draw.randn(4, 5)
    grads = course.batchnorm_backward(dout, course.batchnorm_forward(x, gamma, beta, {"mode": "train"})[1])

    def forward(_):
        return course.batchnorm_forward(x, gamma, beta, {"mode": "train"})[0]

    for grad, array, limit in zip(grads, (x, gamma, beta), (1e-8, 1e-10, 1e-10), strict=True):
        assert _error(grad, _numeric(forward, array, dout)) < limit


def test_course_spatial_batchnorm_forward():
    """The second call has integer gamma and beta, as the course's cell does."""
    x = 4 * _seeded().randn(2, 3, 4, 5) + 10
    out, _ = course.spatial_batchnorm_forward(x, np.ones(3), np.zeros(3), {"mode": "train"})
    np.testing.assert_allclose(out.std(axis=(0, 2, 3)), [0.99999962, 0.99999951, 0.9999996], atol=6e-9)
    out, _ = course.spatial_batchnorm_forward(x, np.asarray([3, 4, 5]), np.asarray([6, 7, 8]), {"mode": "train"})
    assert out.dtype == np.float64
    np.testing.assert_allclose(out.mean(axis=(0, 2, 3)), [6, 7, 8], rtol=1e-14)
    np.testing.assert_allclose(out.std(axis=(0, 2, 3)), [2.99999885, 3.99999804, 4.99999798], atol=6e-9)


def test_course_spatial_batchnorm_at_test_time():
    draw, parameters = _seeded(), {"mode": "train"}
    for _ in range(50):
        x = 2.3 * draw.randn(10, 4, 11, 12) + 13
        course.spatial_batchnorm_forward(x, np.ones(4), np.zeros(4), parameters)
    parameters["mode"] = "test"
    out, _ = course.spatial_batchnorm_forward(2.3 * draw.randn(10, 4, 11, 12) + 13, np.ones(4), np.zeros(4), parameters)
    means, deviations = out.mean(axis=(0, 2, 3)), out.std(axis=(0, 2, 3))
    np.testing.assert_allclose(means, [-0.08034406, 0.07562881, 0.05716371, 0.04378383], atol=6e-9)
    np.testing.assert_allclose(deviations, [0.96718744, 1.0299714, 1.02887624, 1.00585577], atol=6e-9)


def test_course_spatial_batchnorm_backward():
    draw = _seeded()
    x, gamma, beta, dout = 5 * draw.randn(2, 3, 4, 5) + 12, draw.randn(3), draw.randn(3), draw.randn(2, 3, 4, 5)
    grads = course.spatial_batchnorm_backward(
        dout, course.spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})[1]
    )

    def forward(_):
        return course.spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})[0]

    for grad, array, limit in zip(grads, (x, gamma, beta), (1e-6, 1e-10, 1e-10), strict=True):
        assert _error(grad, _numeric(forward, array, dout)) < limit


def test_course_batchnorm_keeps_its_statistics_in_the_dict(rng):
    x = rng.standard_normal((5, 3)).astype(np.float32)
    parameters = {"mode": "train", "momentum": 0.5}
    course.batchnorm_forward(x, np.ones(3), np.zeros(3), parameters)
    assert parameters["running_mean"].dtype == np.float32
    np.testing.assert_allclose(parameters["running_mean"], x.mean(axis=0) / 2, rtol=1e-6)
    np.testing.assert_allclose(parameters["running_var"], x.var(axis=0) / 2, rtol=1e-6)
    first = parameters["running_mean"]
    kept = first.copy()
    course.batchnorm_forward(x, np.ones(3), np.zeros(3), parameters)
    np.testing.assert_array_equal(first, kept)  # replaced, not overwritten: the course's code may hold on to it
    parameters["mode"] = "eval"
    with pytest.raises(ParamError, match='Invalid forward batchnorm mode "eval"'):
        course.batchnorm_forward(x, np.ones(3), np.zeros(3), parameters)


def test_course_dropout():
    """p is the probability to keep; numbers of the course's notebook, from NumPy's global generator."""
    np.random.seed(231)  # noqa: NPY002
    x = np.random.randn(500, 500) + 10  # noqa: NPY002
    np.testing.assert_allclose(x.mean(), 10.0002078784775, rtol=1e-14)
    for p, mean, zeros in ((0.25, 10.0141, 0.749784), (0.4, 9.9779, 0.600796), (0.7, 9.9878, 0.30074)):
        out, (_, mask) = course.dropout_forward(x, {"mode": "train", "p": p})
        assert abs(out.mean() - mean) < 5e-5
        assert (out == 0).mean() == zeros
        np.testing.assert_array_equal(course.dropout_backward(np.ones_like(x), ({}, mask)), mask)
        out, cache = course.dropout_forward(x, {"mode": "test", "p": p})
        np.testing.assert_array_equal(out, x)
        assert cache[1] is None
    with pytest.raises(ParamError, match='Invalid forward dropout mode "run"'):
        course.dropout_forward(x, {"mode": "run", "p": 0.5})


def test_course_dropout_backward():
    x, dout = _seeded().randn(2, 10, 10)
    parameters = {"mode": "train", "p": 0.2, "seed": 123}
    dx = course.dropout_backward(dout, course.dropout_forward(x, parameters)[1])
    assert _error(dx, _numeric(lambda x: course.dropout_forward(x, parameters)[0], x, dout)) < 1e-10


def test_course_affine():
    x = np.linspace(-0.1, 0.5, 240).reshape(2, 4, 5, 6)
    w, b = np.linspace(-0.2, 0.3, 360).reshape(120, 3), np.linspace(-0.3, 0.1, 3)
    out, _ = course.affine_forward(x, w, b)
    correct = np.array([[1.49834967, 1.70660132, 1.91485297], [3.25553199, 3.5141327, 3.77273342]])
    assert _error(out, correct) == pytest.approx(9.769849468192957e-10, rel=1e-4)
    draw = _seeded()
    x, w, b, dout = draw.randn(10, 2, 3), draw.randn(6, 5), draw.randn(5), draw.randn(10, 5)
    grads = course.affine_backward(dout, course.affine_forward(x, w, b)[1])
    for grad, array in zip(grads, (x, w, b), strict=True):
        assert _error(grad, _numeric(lambda _: course.affine_forward(x, w, b)[0], array, dout)) < 1e-8


def test_course_relu():
    x = np.linspace(-0.5, 0.5, 12).reshape(3, 4)
    out, cache = course.relu_forward(x)
    assert cache is x
    np.testing.assert_array_equal(out, np.maximum(x, 0))
    draw = _seeded()
    x, dout = draw.randn(10, 10), draw.randn(10, 10)
    assert _error(course.relu_backward(dout, x), _numeric(lambda x: course.relu_forward(x)[0], x, dout)) < 1e-11
    assert course.relu_backward(np.ones(1), np.zeros(1)) == 0


def test_course_losses():
    draw = _seeded()
    x, y = 0.001 * draw.randn(50, 10), draw.randint(10, size=50)
    for loss, value in ((course.softmax_loss, 2.3), (course.svm_loss, 9.0)):
        got, dx = loss(x, y)
        assert isinstance(got, float)
        assert abs(got - value) < 0.01
        assert _error(dx, _derivative(lambda loss=loss: loss(x, y)[0], x, 1e-5)) < 1e-6


@pytest.mark.parametrize(
    ("kinds", "result"),
    [
        (("f8", "f8", "f8"), "f8"),
        (("f4", "f4", "f4"), "f4"),
        (("f8", "f4", "f4"), "f8"),
        (("f4", "f4", "i8"), "f8"),
        (("u1", "f4", "f4"), "f4"),
        (("i8", "i8", "i8"), "f8"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else value,
)
def test_course_results_have_numpy_s_promotion(kinds, result, rng):
    """Float64 pictures with float32 weights compute in float64; integers give floats."""
    x, w, b = (
        rng.integers(0, 4, shape).astype(kind)
        for shape, kind in zip(((1, 2, 4, 4), (2, 2, 3, 3), 2), kinds, strict=True)
    )
    out, cache = course.conv_forward_naive(x, w, b, {"stride": 1, "pad": 1})
    assert out.dtype == result
    assert {grad.dtype.str[1:] for grad in course.conv_backward_naive(out, cache)} == {result}
    out, cache = course.affine_forward(x, w.reshape(2, -1).T[:1].repeat(32, axis=0), b)
    assert out.dtype == result


def test_course_caches_are_checked(rng):
    out = rng.standard_normal((1, 2, 4, 4))
    for backward in (
        course.conv_backward_naive,
        course.max_pool_backward_naive,
        course.batchnorm_backward,
        course.affine_backward,
        course.dropout_backward,
    ):
        for cache in (None, (), (1, 2, 3, 4, 5, 6)):
            with pytest.raises(CacheError, match="cache must be the tuple of"):
                backward(out, cache)
