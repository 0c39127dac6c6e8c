"""The oracle itself: its gradients are derivatives, and PyTorch agrees with it (single elements: test_elementwise.py;
published numbers: test_compat_cells.py)."""

import itertools

import numpy as np
import pytest
from operators import OPERATORS

from gpuconv import backend, naive
from gpuconv.errors import ParamError
from gpuconv.pool_shapes import adaptive_sizes, pool_sizes
from gpuconv.shapes import conv_sizes, image_of_signal, signal_of_image


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


def test_infinities_that_cancel_are_nan_without_a_warning():
    """As in Python; warnings are errors in tests, and users of the oracle want none."""
    both = np.array([np.inf, -np.inf])
    line = both.reshape(1, 1, 2, 1)
    transposed = conv_sizes(
        np.zeros((1, 1, 1, 1)), np.ones((1, 1, 2, 1)), None, stride=1, pad=((1, 0), 0), dilation=1, groups=1
    )
    y = naive.conv_transpose_forward(np.ones((1, 1, 1, 1)), line, np.array([np.inf]), transposed)
    assert np.isnan(y).all()
    volumes = pool_sizes(np.zeros((1, 1, 3, 1, 1)), window=(2, 1, 1), stride=1, pad=0)
    dx = naive.average_pool_backward(both.reshape(1, 1, 2, 1, 1), volumes, count_pad=True)
    assert np.isnan(dx[0, 0, 1]).all()
    first = naive.max_pool_backward(
        both.reshape(1, 1, 2, 1, 1), np.array([1, 0]).reshape(1, 1, 2, 1, 1), volumes, ties="first", x=None, y=None
    )
    assert np.isnan(first[0, 0, 1]).all()
    dx = naive.upsample_backward(line, (2, 1), mode="nearest", align_corners=False)
    assert np.isnan(dx).all()


# Derivatives --------------------------------------------------------------------------------------------------------

CONV = {
    "plain": ((2, 2, 4, 5), (3, 2, 3, 2), {}),
    "stride_and_pad": ((1, 2, 5, 4), (2, 2, 3, 3), {"stride": (2, 1), "pad": (1, 2)}),
    "dilation": ((1, 2, 6, 5), (2, 2, 2, 3), {"dilation": (2, 1), "pad": 1}),
    "groups": ((1, 4, 4, 4), (6, 2, 2, 2), {"groups": 2}),
    "stride_drops_a_column": ((1, 1, 5, 6), (1, 1, 2, 2), {"stride": 3}),
    "volume": ((2, 2, 3, 4, 3), (3, 2, 2, 3, 2), {}),
    "volume_with_every_option": (
        (1, 4, 5, 4, 6),
        (2, 2, 2, 3, 2),
        {"stride": (2, 1, 3), "pad": (1, 2, 0), "dilation": (1, 2, 3), "groups": 2},
    ),
    "volume_smaller_than_its_filter": ((1, 1, 1, 2, 2), (2, 1, 3, 3, 3), {"pad": 1, "stride": 2}),
}


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONV.values(), ids=CONV.keys())
def test_conv_gradients_are_derivatives(x_shape, w_shape, options, rng):
    """Linear in each argument, so a step of 1 has no error but rounding."""
    x, w, b = _normal(rng, x_shape, w_shape, w_shape[0])
    z = conv_sizes(x, w, b, **options)
    dy = rng.standard_normal(z.out)
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


@pytest.mark.parametrize("size", [(3, 4), (9, 1), (2, 2, 3)], ids=str)
def test_adaptive_average_pool_gradient_is_the_derivative(size, rng):
    x = rng.standard_normal((2, 2, *(5, 6, 4)[: len(size)]))
    z = adaptive_sizes(x, size)
    dy = rng.standard_normal(z.out)
    dx = naive.adaptive_average_pool_backward(dy, z)
    _assert_derivative(dx, lambda: np.vdot(dy, naive.adaptive_average_pool_forward(x, z)), x, step=1.0, rtol=1e-13)


def test_global_average_pool_gradient_is_the_derivative(rng):
    x, dy = _normal(rng, (2, 3, 4, 5), (2, 3))
    dx = naive.global_average_pool_backward(dy, x.shape, channels_last=False)
    _assert_derivative(dx, lambda: np.vdot(dy, naive.global_average_pool_forward(x)), x, step=1.0, rtol=1e-13)


@pytest.mark.parametrize("mode", ["nearest", "linear", "align_corners"])
@pytest.mark.parametrize(("shape", "factor"), [((2, 2, 3, 4), (3, 2)), ((1, 2, 2, 3, 2), (2, 1, 3))], ids=str)
def test_upsample_gradient_is_the_derivative(shape, factor, mode, rng):
    x, dy = _normal(rng, shape, (*shape[:2], *(n * f for n, f in zip(shape[2:], factor, strict=True))))
    options = {"mode": "nearest" if mode == "nearest" else "linear", "align_corners": mode == "align_corners"}
    dx = naive.upsample_backward(dy, factor, **options)
    _assert_derivative(dx, lambda: np.vdot(dy, naive.upsample_forward(x, factor, **options)), x, step=1.0, rtol=1e-13)


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


@pytest.mark.parametrize(("shape", "groups"), [((3, 4), 1), ((2, 4, 2, 3), 2)], ids=["rows", "images"])
def test_groupnorm_gradients_are_derivatives(shape, groups, rng):
    """Curved in x, as batch normalisation."""
    x, dy, gamma, beta = _normal(rng, shape, shape, 4, 4)

    def forward():
        return naive.groupnorm_forward(x, gamma, beta, groups=groups, eps=1e-2)

    _, mean, inv_std = forward()
    grads = naive.groupnorm_backward(dy, x, gamma, mean, inv_std)
    for grad, array in zip(grads, (x, gamma, beta), strict=True):
        _assert_derivative(grad, lambda: np.vdot(dy, forward()[0]), array, step=1e-5, rtol=1e-8)


@pytest.mark.parametrize("ties", ["split", "every"])
def test_without_ties_every_rule_for_them_is_the_gradient(ties, rng):
    x = rng.permutation(2 * 5 * 6).reshape(1, 2, 5, 6).astype(float)
    z = pool_sizes(x, window=3, stride=2, pad=1)
    dy = rng.standard_normal((z.N, z.C, z.P, z.Q))
    y, argmax = naive.max_pool_forward(x, z)
    expected = naive.max_pool_backward(dy, argmax, z)
    np.testing.assert_array_equal(naive.max_pool_backward(dy, None, z, ties=ties, x=x, y=y), expected)


def test_affine_gradients_are_derivatives(rng):
    x, w, b, dy = _normal(rng, (3, 2, 4), (8, 5), 5, (3, 5))
    grads = naive.affine_backward(dy, x, w, input_grad=True, bias_grad=True)
    for grad, array in zip(grads, (x, w, b), strict=True):
        _assert_derivative(grad, lambda: np.vdot(dy, naive.affine_forward(x, w, b)), array, step=1.0, rtol=1e-13)


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
    dy = rng.standard_normal(z.out)

    def conv(x, w, b):
        by_axes = getattr(torch.nn.functional, f"conv{x.ndim - 2}d")
        return by_axes(x, w, b, z.stride, z.pad, z.dilation, z.groups)

    got = naive.conv_forward(x, w, b, z), *naive.conv_backward(dy, x, w, z, input_grad=True, bias_grad=True)
    _assert_all_close(got, _by_torch(conv, (x, w, b), dy))


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "pad": 1}, {"dilation": (2,), "groups": 2}, {"pad": 4, "stride": (3,)}], ids=str
)
def test_conv_of_signals_matches_pytorch(options, rng):
    """The sizes and the oracle of images of one row."""
    torch = _torch()
    x, w, b = _normal(rng, (2, 4, 9), (6, 4 // options.get("groups", 1), 3), 6)
    z = conv_sizes(x, w, b, **options)
    dy = rng.standard_normal((z.N, z.K, z.Q))
    torch_options = {"padding" if name == "pad" else name: value for name, value in options.items()}

    def conv1d(x, w, b):
        return torch.nn.functional.conv1d(x, w, b, **torch_options)

    images = image_of_signal(x), image_of_signal(w)
    grads = naive.conv_backward(image_of_signal(dy), *images, z, input_grad=True, bias_grad=True)
    signals = [signal_of_image(a) for a in (naive.conv_forward(*images, b, z), *grads[:2])]
    _assert_all_close([*signals, grads[2]], _by_torch(conv1d, (x, w, b), dy))


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


@pytest.mark.parametrize(("shape", "groups"), [((5, 4), 1), ((2, 6, 4, 3), 3)], ids=["rows", "images"])
def test_groupnorm_matches_pytorch(shape, groups, rng):
    torch = _torch()
    x, dy, gamma, beta = _normal(rng, shape, shape, shape[1], shape[1])
    y, mean, inv_std = naive.groupnorm_forward(x, gamma, beta, groups=groups, eps=1e-5)

    def group_norm(x, gamma, beta):
        return torch.nn.functional.group_norm(x, groups, gamma, beta, 1e-5)

    expected = _by_torch(group_norm, (x, gamma, beta), dy)
    _assert_all_close((y, *naive.groupnorm_backward(dy, x, gamma, mean, inv_std)), expected)


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


@pytest.mark.parametrize("row", OPERATORS.values(), ids=OPERATORS)
def test_results_are_float64_whatever_goes_in(row, monkeypatch):
    """The reference is not rounded back; arrays that are updated in place keep their dtype."""
    monkeypatch.setitem(backend._PACKAGE_OF, "NumPy", "gpuconv.naive")
    arrays = row.good({}, np.ones)
    results = row.forward(arrays, row.options_of({}))
    if row.has_backward:
        y, cache = results
        dy = np.ones(y.shape, y.dtype if row.refers == ("y",) else np.float32)  # a y in the cache is wide already
        results = y, *row.backward(dy, cache)
    floats = results if isinstance(results, tuple) else () if results is None else (results,)
    assert {array.dtype for array in floats if array is not None} <= {np.dtype(np.float64)}
    assert all(arrays[name].dtype == np.float32 for name in row.writes)


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
