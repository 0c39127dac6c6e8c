"""What the tests of layers and nets share: numbers away from kinks and ties, and how near two computations must be."""

import numpy as np
from compare import U_OUT


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
