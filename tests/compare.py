"""The one tolerance rule of the test suite, and bit-for-bit comparison."""

import ml_dtypes  # noqa: F401 - by its import NumPy knows the dtype bfloat16 by name
import numpy as np

# Unit roundoff of each dtype as output, and of the sums behind it (16 bits are summed in float32).
U_OUT = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}
U_SUM = {"bfloat16": 2.0**-24, "float16": 2.0**-24, "float32": 2.0**-24, "float64": 2.0**-53}
# Half the distance of its smallest numbers: what a result may lose when it is stored.
TINY = {"bfloat16": 2.0**-134, "float16": 2.0**-25, "float32": 2.0**-150, "float64": 0.0}


def assert_close(actual, ref, *, scale, dtype, terms=1, zero_mean=True, c=None, factors=0.0):
    """Check |actual - ref| <= (c u + 2 v + v v) scale + u_out |ref|, element by element, with shape and dtype.

    ref is the float64 oracle's result for the same inputs, scale the same operation on their absolute values: a sum
    that cancels to near zero keeps the error of its terms.  c = 8 for zero-mean data, 4 + 2 sqrt(terms) for any, where
    terms is the length of the sum.  factors: v, the unit roundoff where factors are rounded before they are multiplied:
    each is off by v of itself at most, so (1 + v)^2 - 1 of each term is.  Where scale is 0 the result must be exactly 0.  NaN and infinities must lie in the
    same places.
    """
    dtype, ref, scale = np.dtype(dtype), np.asarray(ref, np.float64), np.asarray(scale, np.float64)
    assert isinstance(actual, np.ndarray), f"expected an array, got {type(actual)}"
    assert actual.dtype == dtype, f"expected {dtype}, got {actual.dtype}"
    assert actual.shape == ref.shape == scale.shape, f"shapes: {actual.shape}, ref {ref.shape}, scale {scale.shape}"
    if c is None:
        c = 8.0 if zero_mean else 4.0 + 2.0 * terms**0.5
    with np.errstate(over="ignore"):
        stored = ref.astype(dtype)  # beyond its range, a float16 result is infinite
    finite = np.isfinite(stored)
    np.testing.assert_array_equal(np.where(finite, 0, actual), np.where(finite, 0, stored), "NaN and infinities")
    got, want, size = actual[finite].astype(np.float64), ref[finite], scale[finite]
    bound = (c * U_SUM[dtype.name] + 2 * factors + factors**2) * size + U_OUT[dtype.name] * np.abs(want)
    bound += np.where(size > 0, TINY[dtype.name], 0.0)
    error = np.abs(got - want)
    if not (error <= bound).all():  # NaN fails too
        with np.errstate(divide="ignore", invalid="ignore"):
            worst = int(np.nanargmax(np.where(bound > 0, error / bound, np.where(error > 0, np.inf, 0))))
        place = tuple(int(i) for i in np.argwhere(finite)[worst])
        msg = (
            f"{int((~(error <= bound)).sum())} of {error.size} out of tolerance; worst at {place}: "
            f"got {got[worst]!r}, expected {want[worst]!r}, error {error[worst]:.3g}, allowed {bound[worst]:.3g}"
        )
        raise AssertionError(msg)


def assert_same(actual, expected, *, dtype=None):
    """Check equality of every element (NaN equal to NaN), of shape and of dtype; expected is cast to dtype first."""
    if dtype is not None:
        expected = np.asarray(expected).astype(dtype)
    assert actual.dtype == expected.dtype, f"expected {expected.dtype}, got {actual.dtype}"
    np.testing.assert_array_equal(actual, expected, strict=True)


def assert_same_bits(actual, expected):
    """Check equality of every bit: -0 is not 0."""
    assert_same(actual, expected)
    np.testing.assert_array_equal(np.signbit(actual), np.signbit(expected), "signs of zero")


def absolute(*arrays):
    """Return the absolute values of arrays, as float64; None stays None."""
    return tuple(None if a is None else np.abs(a.astype(np.float64)) for a in arrays)


def normal(rng, shape, dtype="float64"):
    """Return zero-mean random numbers."""
    return rng.standard_normal(shape).astype(dtype)


def whole(rng, shape, dtype="float64", largest=2):
    """Return random integers from -largest to largest: their sums are exact in any order while they stay small."""
    return rng.integers(-largest, largest + 1, shape).astype(dtype)
