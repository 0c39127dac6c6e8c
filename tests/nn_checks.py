"""Gradients of layers and nets by central differences."""

import numpy as np
from compare import U_OUT


def numeric_gradient(loss, array, h):
    """Return d loss() / d array by central differences; array is changed in place and restored."""
    gradient = np.empty_like(array)
    for place in np.ndindex(array.shape):
        value = array[place]
        array[place] = value + h
        above = loss()
        array[place] = value - h
        gradient[place] = (above - loss()) / (2 * h)
        array[place] = value
    return gradient


def assert_gradient(actual, loss, array, *, h=1e-5, tolerance=1e-7):
    """Check a float64 gradient against central differences, relative to its largest entry.

    With h = 1e-5 the differences are off by h^2 = 1e-10 times a third derivative, and by 1e-16 / h = 1e-11 times the
    loss: 1e-7 leaves room for losses of 100 and for steep layers, and is far below what any wrong term makes.
    """
    expected = numeric_gradient(loss, array, h)
    assert actual.shape == expected.shape
    assert np.abs(expected).max() > 1e-3, "a gradient of zeros shows nothing"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max()))


def spread(rng, shape, step=1e-2):
    """Return float64 values in random order, `step` apart and none near 0: no small change meets a kink or a tie."""
    count = int(np.prod(shape))
    values = (np.arange(count) - count // 2 + 0.5) * step
    return rng.permutation(values).reshape(shape)


def assert_near(actual, expected, *, terms, sums):
    """Check two computations of a net against each other, relative to the largest entry.

    A sum of `terms` zero-mean products is off by up to 8 u S (see compare.py), with S about sqrt(terms) times its
    value; `sums` of them in a row, forward and back, add their errors.
    """
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    bound = sums * 8 * U_OUT[actual.dtype.name] * np.sqrt(terms) * np.abs(expected).max()
    assert bound > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)
