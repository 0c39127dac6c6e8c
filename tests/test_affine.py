"""The fully connected layer, forward and backward, against the oracle, PyTorch and its own algebra."""

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, normal, whole
from hypothesis import given
from hypothesis import strategies as st
from pairs import DEVICES, DTYPES, pairs

import gpuconv
from gpuconv import naive

# why the case exists: (x, columns of w)
CASES = {
    "one_number": ((1, 1), 1),
    "empty_batch": ((0, 5), 4),
    "empty_batch_of_images": ((0, 2, 3, 4), 4),
    "one_sample": ((1, 7), 5),
    "one_feature": ((6, 1), 5),
    "one_column": ((6, 7), 1),
    "primes": ((7, 11), 13),
    "images": ((3, 2, 4, 5), 6),
    "three_axes": ((3, 4, 5), 2),
    "above_a_power_of_two": ((65, 33), 17),
    "long_sum": ((2, 1025), 3),
    "many_samples": ((513, 3), 2),
    "wide": ((2, 3), 513),
}


def _arrays(case, rng, dtype, make):
    """Return x, w, b, dy of a case, filled by `make`."""
    shape, columns = case
    features = int(np.prod(shape[1:]))
    return [make(rng, s, dtype) for s in (shape, (features, columns), (columns,), (shape[0], columns))]


def _computed(device, x, w, b, dy, **options):
    arrays = x, w, b, dy
    before = [None if a is None else a.copy() for a in arrays]
    dev_x, dev_w, dev_b, dev_dy = map(device.array, arrays)
    y, cache = gpuconv.affine_forward(dev_x, dev_w, dev_b)
    grads = gpuconv.affine_backward(dev_dy, cache, **options)
    for array, copy in zip((dev_x, dev_w, dev_b, dev_dy), before, strict=True):
        if copy is not None:
            np.testing.assert_array_equal(device.numpy(array), copy, "an input was changed")
    return tuple(None if a is None else device.numpy(a) for a in (y, *grads))


def _expected(x, w, b, dy):
    y = naive.affine_forward(x, w, b)
    return y, *naive.affine_backward(dy, x, w, input_grad=True, bias_grad=b is not None)


def _check_close(got, x, w, b, dy, *, zero_mean=True):
    (N, M), D = dy.shape, w.shape[0]
    expected, scales = _expected(x, w, b, dy), _expected(*absolute(x, w, b, dy))
    for actual, ref, scale, terms in zip(got, expected, scales, (D + 1, M, N, N), strict=True):
        assert_close(actual, ref, scale=scale, dtype=x.dtype, terms=terms, zero_mean=zero_mean)


def _positive(rng, shape, dtype):
    return rng.uniform(0, 1, shape).astype(dtype)


@pairs(case=CASES, make={"random": normal, "positive": _positive, "integers": whole}, device=DEVICES, dtype=DTYPES)
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(case, make, device, dtype, rng):
    """Bit for bit on integers; sums of positive numbers, which only grow, lose most to rounding."""
    arrays = _arrays(case, rng, dtype, make)
    got = _computed(device, *arrays)
    if make is whole:
        for actual, expected in zip(got, _expected(*arrays), strict=True):
            assert_same(actual, expected, dtype=dtype)
    else:
        _check_close(got, *arrays, zero_mean=make is normal)


def test_parts_that_are_not_asked_for(device, dtype, rng):
    x, w, b, dy = _arrays(CASES["images"], rng, dtype, whole)
    y, dx, dw, db = _computed(device, x, w, None, dy, input_grad=False)
    expected = _expected(x, w, b, dy)
    assert dx is None
    assert db is None
    assert_same(y, expected[0] - b, dtype=dtype)
    assert_same(dw, expected[2], dtype=dtype)


@pytest.mark.parametrize("shape", [(3, 6), (3, 2, 4, 5)], ids=["rows", "images"])
def test_any_memory_layout(shape, layout, device, rng):
    """Samples are flattened in row order of their shape, not of their storage."""
    arrays = _arrays((shape, 4), rng, "float64", whole)
    expected = _expected(*arrays)
    laid_out = [layout(a) for a in arrays]
    for which in ((0,), (1, 2), (3,), (0, 1, 2, 3)):
        got = _computed(device, *(laid_out[i] if i in which else arrays[i] for i in range(4)))
        for actual, want in zip(got, expected, strict=True):
            assert_same(actual, want)


SPECIAL = [("x", np.nan), ("x", np.inf), ("w", np.nan), ("w", -np.inf), ("b", np.nan), ("dy", np.nan), ("dy", np.inf)]


@pytest.mark.parametrize(("name", "value"), SPECIAL)
def test_nan_and_infinity_spread_as_the_sums_say(name, value, device, dtype, rng):
    arrays = dict(zip(("x", "w", "b", "dy"), _arrays(((3, 4), 5), rng, dtype, whole), strict=True))
    arrays[name].reshape(-1)[2] = value
    for actual, expected in zip(_computed(device, **arrays), _expected(**arrays), strict=True):
        assert_same(actual, expected, dtype=dtype)


@pytest.mark.parametrize("case", [((128, 64, 4, 4), 100), ((50, 3072), 100), ((300, 128), 10)], ids=str)
def test_layers_of_real_nets_match_pytorch(case, device, dtype, rng):
    torch = pytest.importorskip("torch")
    arrays = _arrays(case, rng, dtype, normal)

    def by_torch(*arrays):
        x, w, b, dy = (torch.from_numpy(a.astype(np.float64)) for a in arrays)
        inputs = [a.requires_grad_() for a in (x, w, b)]
        y = torch.addmm(b, x.flatten(1), w)
        return [a.detach().numpy() for a in (y, *torch.autograd.grad(y, inputs, dy))]

    refs, scales = by_torch(*arrays), by_torch(*absolute(*arrays))
    for actual, ref, scale in zip(_computed(device, *arrays), refs, scales, strict=True):
        assert_close(actual, ref, scale=scale, dtype=dtype)


@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_gradients_are_the_adjoints(device, N, D, M, seed):
    """<dy, x w> = <dx, x> = <dw, w>, exactly on integers."""
    x, w, b, dy = _arrays(((N, D), M), np.random.default_rng(seed), "float64", whole)
    y, dx, dw, db = _computed(device, x, w, 0 * b, dy)
    assert np.vdot(dy, y) == np.vdot(dx, x) == np.vdot(dw, w)
    assert np.array_equal(db, dy.sum(axis=0))


def test_same_bits_every_time_and_for_any_number_of_threads(device, rng, monkeypatch):
    arrays = _arrays(((130, 700), 530), rng, "float32", normal)
    runs = []
    for threads in ("1", "2", "3", "2"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        runs.append([a.tobytes() for a in _computed(device, *arrays)])
    assert all(run == runs[0] for run in runs)
