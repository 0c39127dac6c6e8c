"""gradcheck: right gradients pass, wrong ones are named, and what cannot be judged is refused."""

from functools import partial

import numpy as np
import pytest
from compare import normal
from nn_checks import spread

import gpuconv
from gpuconv import nn, testing
from gpuconv.errors import ArgTypeError, DTypeError, GradientError, ParamError, ShapeError


def _conv(rng):
    return [normal(rng, shape) for shape in ((2, 2, 4, 5), (3, 2, 3, 2), (3,))]


def _normed(x, gamma, beta):
    """Return what batch norm of a training batch returns; its running statistics are made anew each time."""
    return gpuconv.batchnorm_forward(x, gamma, beta, np.zeros(3), np.ones(3))


RIGHT = {
    "conv": (partial(gpuconv.conv_forward, pad=1, stride=2), gpuconv.conv_backward, _conv),
    "without_bias": (gpuconv.conv_forward, gpuconv.conv_backward, lambda rng: _conv(rng)[:2]),
    "channels_last": (
        gpuconv.conv_forward,
        gpuconv.conv_backward,
        lambda rng: [normal(rng, (1, 4, 5, 2)).transpose(0, 3, 1, 2), normal(rng, (3, 2, 3, 3))],
    ),
    "batchnorm": (_normed, gpuconv.batchnorm_backward, lambda rng: [normal(rng, (5, 3)), *normal(rng, (2, 3))]),
    "one_array": (gpuconv.gelu_forward, gpuconv.gelu_backward, lambda rng: [normal(rng, (3, 4))]),
    "large_numbers": (gpuconv.gelu_forward, gpuconv.gelu_backward, lambda rng: [1e3 + normal(rng, (4,))]),
    "ties_far_away": (gpuconv.max_pool_forward, gpuconv.max_pool_backward, lambda rng: [spread(rng, (1, 2, 4, 4))]),
}


@pytest.mark.parametrize(("forward", "backward", "drawn"), RIGHT.values(), ids=RIGHT.keys())
def test_right_gradients_pass(forward, backward, drawn, rng):
    assert testing.gradcheck(forward, drawn(rng), backward=backward) is True


def test_a_wrong_factor_is_found_where_it_is(rng):
    def backward(dy, cache):
        dx, dw, db = gpuconv.conv_backward(dy, cache)
        dw[0, 1, 2, 0] *= 1 + 1e-6
        return dx, dw, db

    arrays = _conv(rng)
    arrays[1][0, 1, 2, 0] = 0.5
    with pytest.raises(
        GradientError, match=r"^the gradient is not the derivative:\n  w\[0, 1, 2, 0\]: .*; 1 of 36 entries$"
    ):
        testing.gradcheck(gpuconv.conv_forward, arrays, backward=backward)


def test_each_wrong_array_has_a_line_with_both_values():
    with pytest.raises(GradientError) as caught:
        testing.gradcheck(
            lambda a, b: 3 * a.sum() + b.sum(), [np.ones(2), np.ones(3)], [np.full(2, 4.0), np.full(3, np.nan)], h=1
        )
    assert str(caught.value).splitlines()[1:] == [
        "  a[0]: gradient 4.0, central difference 3, at most 1e-14 off; 2 of 2 entries",
        "  b[0]: gradient nan, central difference 1, at most 9e-15 off; 3 of 3 entries",
    ]


def test_an_entry_that_does_nothing_has_no_gradient():
    assert testing.gradcheck(lambda x: x[0] * 2, [np.ones(2)], [np.array([2.0, 0.0])])
    with pytest.raises(
        GradientError, match=r"x\[1\]: gradient 0.5, central difference 0, at most 0 off; 1 of 2 entries$"
    ):
        testing.gradcheck(lambda x: x[0] * 2, [np.ones(2)], [np.array([2.0, 0.5])], h=0.25)


def test_a_scalar_of_python_and_arrays_without_axes_are_taken():
    assert testing.gradcheck(lambda x: float(x) ** 2, [np.array(3.0)], [np.array(6.0)])


def test_gradients_of_a_weighted_y_are_checked_with_their_weights(rng):
    x, dy = normal(rng, (2, 4)), normal(rng, (2, 4))
    _, cache = gpuconv.gelu_forward(x)
    dx = gpuconv.gelu_backward(dy, cache)
    assert testing.gradcheck(lambda x: gpuconv.gelu_forward(x)[0], [x], [dx], dy=dy)
    with pytest.raises(GradientError):
        testing.gradcheck(lambda x: gpuconv.gelu_forward(x)[0], [x], [dx], dy=2 * dy)


def test_an_array_without_a_gradient_is_left_out(rng):
    forward = partial(gpuconv.conv_backward, input_grad=False)
    assert testing.gradcheck(gpuconv.conv_forward, _conv(rng), backward=forward)
    with pytest.raises(ParamError, match="nothing to check"):
        testing.gradcheck(np.sum, [np.ones(3)], [None])


def test_some_entries_are_looked_at_as_often_as_asked():
    calls = []

    def function(x):
        calls.append(x.copy())
        return x.sum()

    assert testing.gradcheck(function, [np.ones(1000)], [np.ones(1000)], entries=3)
    moved = {int(np.flatnonzero(x != 1)[0]) for x in calls if (x != 1).any()}
    assert len(moved) == 3


def test_arrays_are_as_before(rng):
    arrays = _conv(rng)
    before = [array.copy() for array in arrays]
    testing.gradcheck(gpuconv.conv_forward, arrays, backward=gpuconv.conv_backward)
    for array, kept in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_a_gpu_s_arrays_are_checked(gpu, rng):
    arrays = [gpu.array(normal(rng, shape)) for shape in ((1, 2, 3, 3), (2, 2, 2, 2))]
    assert testing.gradcheck(gpuconv.conv_forward, arrays, backward=gpuconv.conv_backward, entries=3)
    with pytest.raises(GradientError, match="w"):
        testing.gradcheck(
            gpuconv.conv_forward,
            arrays,
            backward=lambda dy, cache: (gpuconv.conv_backward(dy, cache)[0], arrays[1]),
            entries=3,
        )


def _relu(x, dx=0.0):
    return testing.gradcheck(gpuconv.relu_forward, [np.array([x, 1.0])], backward=gpuconv.relu_backward)


def test_a_kink_is_said_to_be_one():
    with pytest.raises(GradientError, match=r"x\[0\]: gradient 0.0, .*\(0 below it and .* above: a kink\?\)"):
        _relu(0.0)


@pytest.mark.parametrize("x", [1e-6, -3e-6, 8e-6])
def test_an_entry_near_a_kink_is_refused(x):
    with pytest.raises(GradientError, match=r"the slope at x\[0\] cannot be told"):
        _relu(x)


REFUSED = {
    "float32": (
        DTypeError,
        "a must be float64, .* got float32",
        lambda: testing.gradcheck(np.sum, [np.ones(2, "f4")], [1]),
    ),
    "a_list": (ArgTypeError, "must be a NumPy or CuPy array", lambda: testing.gradcheck(np.sum, [[1.0]], [1])),
    "one_array": (ArgTypeError, "put it into a list", lambda: testing.gradcheck(np.sum, np.ones(2), [1])),
    "nothing": (ParamError, "at least one array", lambda: testing.gradcheck(np.sum, [], [])),
    "neither": (ParamError, "either gradients or backward", lambda: testing.gradcheck(np.sum, [np.ones(2)])),
    "both": (ParamError, "either", lambda: testing.gradcheck(np.sum, [np.ones(2)], [1], backward=np.sum)),
    "no_dy": (ParamError, "dy must be given", lambda: testing.gradcheck(lambda x: x, [np.ones(2)], [np.ones(2)])),
    "dy_of_another_shape": (
        ShapeError,
        r"dy must have the shape of y \(2,\), got \(3,\)",
        lambda: testing.gradcheck(lambda x: x, [np.ones(2)], [np.ones(2)], dy=np.ones(3)),
    ),
    "a_cache_that_nobody_wants": (
        ArgTypeError,
        "got a tuple",
        lambda: testing.gradcheck(gpuconv.relu_forward, [np.ones(2)], [np.ones(2)]),
    ),
    "no_cache": (
        ArgTypeError,
        r"must return \(y, cache\)",
        lambda: testing.gradcheck(np.sum, [np.ones(2)], backward=lambda dy, cache: dy),
    ),
    "too_few_gradients": (
        ShapeError,
        "for each of 2 arrays, got 1",
        lambda: testing.gradcheck(lambda a, b: (a + b).sum(), [np.ones(2), np.ones(2)], [np.ones(2)]),
    ),
    "a_gradient_of_another_shape": (
        ShapeError,
        r"the gradient of x must have the shape of x \(2,\), got \(3,\)",
        lambda: testing.gradcheck(lambda x: x.sum(), [np.ones(2)], [np.ones(3)]),
    ),
    "y_in_float32": (
        DTypeError,
        "y must be float64",
        lambda: testing.gradcheck(lambda x: x.sum(dtype="f4"), [np.ones(2)], [np.ones(2)]),
    ),
    "infinite": (
        ParamError,
        "y must be finite",
        lambda: testing.gradcheck(lambda x: x.sum() * np.inf, [np.ones(2)], [np.ones(2)]),
    ),
}


@pytest.mark.parametrize(("error", "words", "call"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_checked_is_refused(error, words, call):
    with pytest.raises(error, match=words):
        call()


def test_a_function_that_changes_its_argument_is_refused():
    def function(x):
        x *= 2
        return x.sum()

    with pytest.raises(ParamError, match="changed x in place"):
        testing.gradcheck(function, [np.ones(2)], [np.full(2, 2.0)])


def test_a_function_with_random_numbers_is_refused(rng):
    with pytest.raises(ParamError, match="another y when it was called again"):
        testing.gradcheck(lambda x: x.sum() + rng.standard_normal(), [np.ones(2)], [np.ones(2)])


# Layers -------------------------------------------------------------------------------------------------------------


def test_a_layer_is_left_as_it_was(rng):
    layer = nn.Sequential(nn.Affine(4, 3), nn.BatchNorm(3)).create(dtype="float64")
    before = {name: array.copy() for name, array in {**layer.params, **layer.state}.items()}
    assert testing.gradcheck_layer(layer, normal(rng, (5, 4)))
    for name, array in {**layer.params, **layer.state}.items():
        np.testing.assert_array_equal(array, before[name])
    assert not any(gradient.any() for gradient in layer.grads.values())


class _Forgetful(nn.Affine):
    """An affine layer whose bias has no gradient."""

    def _backward(self, dy, cache, input_grad):
        dx = super()._backward(dy, cache, input_grad)
        self.grads["b"][...] = 0
        return dx


def test_a_wrong_layer_is_found_by_the_name_of_its_parameter(rng):
    layer = nn.Sequential(_Forgetful(4, 3)).create(dtype="float64")
    with pytest.raises(GradientError, match=r"affine1\.b\[\d\]: gradient 0.0, .*; 3 of 3 entries$"):
        testing.gradcheck_layer(layer, normal(rng, (5, 4)))
