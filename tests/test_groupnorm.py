"""Group normalisation of images and layer normalisation of rows, forward and backward, within norm_scales.py."""

import numpy as np
import pytest
from compare import assert_close, assert_same, normal
from hypothesis import given
from hypothesis import strategies as st
from norm_scales import groupnorm_scales
from pairs import DEVICES, DTYPES, STORED, pairs

import gpuconv
from gpuconv import naive
from gpuconv.shapes import is_channels_last

# Shape and groups; one group of rows is layer normalisation.  Groups of more than a thousand values would hold float64
# to the rounding of the oracle's own variance, a plain sum.
CASES = {
    "smallest": ((1, 2, 1, 1), 1),
    "one_group": ((3, 4, 3, 5), 1),
    "every_channel_a_group": ((2, 3, 4, 5), 3),
    "groups_of_three": ((2, 6, 5, 3), 2),
    "one_pixel": ((3, 8, 1, 1), 2),
    "one_row": ((2, 4, 1, 9), 2),
    "empty_batch": ((0, 4, 3, 3), 2),
    "primes": ((3, 35, 7, 11), 5),
    "odd_groups_of_many_channels": ((2, 129, 2, 3), 43),
    "packs_across_groups": ((2, 24, 4, 4), 8),
    "several_chunks": ((9, 2, 23, 25), 2),
    "rows": ((9, 4), 1),
    "two_values": ((5, 2), 1),
    "one_row_only": ((1, 7), 1),
    "wide_rows": ((3, 1030), 1),
    "many_rows": ((700, 3), 1),
    "empty_batch_of_rows": ((0, 6), 1),
    "signals": ((3, 6, 7), 2),
    "volumes": ((2, 6, 3, 4, 5), 3),
    "volumes_in_packs": ((1, 16, 2, 4, 4), 4),
    "empty_batch_of_volumes": ((0, 4, 2, 2, 2), 2),
}


def _channels_last(a):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def _computed(device, x, gamma, beta, dy, *, groups=1, eps=1e-5):
    """Return y, dx, dgamma, dbeta; no input may change."""
    before = [a.copy() for a in (x, gamma, beta, dy)]
    dev = [device.array(a) for a in (x, gamma, beta, dy)]
    if x.ndim > 2:
        y, cache = gpuconv.groupnorm_forward(*dev[:3], groups=groups, eps=eps)
        grads = gpuconv.groupnorm_backward(dev[3], cache)
    else:
        y, cache = gpuconv.layernorm_forward(*dev[:3], eps=eps)
        grads = gpuconv.layernorm_backward(dev[3], cache)
    for given_, kept in zip(dev, before, strict=True):
        np.testing.assert_array_equal(device.numpy(given_), kept, "an input was changed")
    return tuple(device.numpy(a) for a in (y, *grads))


def _check(got, x, gamma, beta, dy, *, groups=1, eps=1e-5):
    """Hold results to the oracle; dy has mean zero."""
    wide, g, b, d = (a.astype(np.float64) for a in (x, gamma, beta, dy))
    y, mean, inv = naive.groupnorm_forward(wide, g, b, groups=groups, eps=eps)
    refs = y, *naive.groupnorm_backward(d, wide, g, mean, inv)
    scales = groupnorm_scales(x, gamma, beta, dy, groups=groups, eps=eps)[:4]
    kinds = x.dtype, x.dtype, gamma.dtype, gamma.dtype
    for actual, ref, scale, kind in zip(got, refs, scales, kinds, strict=True):
        assert_close(actual, ref, scale=scale, dtype=kind)


@pairs(case=CASES, stored=STORED, device=DEVICES, dtype=DTYPES)
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(case, stored, device, dtype, rng):
    shape, groups = case
    x, dy = (3 * normal(rng, shape) + 1).astype(dtype), normal(rng, shape, dtype)
    gamma, beta = normal(rng, shape[1], dtype), normal(rng, shape[1], dtype)
    last = stored == "channels_last" and len(shape) > 2
    arrays = (_channels_last(x), gamma, beta, _channels_last(dy)) if last else (x, gamma, beta, dy)
    _check(_computed(device, *arrays, groups=groups), x, gamma, beta, dy, groups=groups)


def test_float16_images_with_float32_vectors(device, rng):
    x, dy = normal(rng, (2, 6, 4, 5), "float16"), normal(rng, (2, 6, 4, 5), "float16")
    gamma, beta = normal(rng, 6, "float32"), normal(rng, 6, "float32")
    _check(_computed(device, x, gamma, beta, dy, groups=3), x, gamma, beta, dy, groups=3)


@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 4, 3, 5), 2), ((6, 4), 1), ((2, 4, 3, 2, 5), 2)], ids=["images", "rows", "volumes"]
)
def test_any_memory_layout(shape, groups, layout, device, rng):
    x, dy, gamma, beta = normal(rng, shape), normal(rng, shape), normal(rng, 4), normal(rng, 4)
    for stored_x, stored_dy in ((layout(x), dy), (x, layout(dy)), (layout(x), layout(dy))):
        got = _computed(device, stored_x, layout(gamma), layout(beta), stored_dy, groups=groups)
        _check(got, x, gamma, beta, dy, groups=groups)
        if len(shape) > 3:
            assert is_channels_last(got[0]) == is_channels_last(stored_x) == is_channels_last(got[1])


@pytest.mark.parametrize("offset", [1.0, 1e2, 1e4, 1e6, -1e4])
@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_variance_far_from_zero_does_not_cancel(offset, kind, device, rng):
    x, dy = (normal(rng, (4, 4, 8, 9)) + offset).astype(kind), normal(rng, (4, 4, 8, 9), kind)
    gamma, beta = normal(rng, 4, kind), normal(rng, 4, kind)
    _check(_computed(device, x, gamma, beta, dy, groups=2), x, gamma, beta, dy, groups=2)


@pairs(
    constant=[0.0, 0.1, 1 / 3, 1e7, -1e10],
    case={"images": ((3, 4, 7, 7), 2), "rows": ((5, 300), 1)},
    device=DEVICES,
    dtype=DTYPES,
)
def test_constant_group_gives_exactly_beta(constant, case, device, dtype):
    shape, groups = case
    constant = float(np.float16(np.clip(constant, -60000, 60000))) if dtype == "float16" else constant
    x = np.full(shape, constant, dtype)
    beta = np.linspace(-7.1, 0.3, shape[1]).astype(dtype)
    y, dx, dgamma, _ = _computed(device, x, np.full(shape[1], 5, dtype), beta, np.ones_like(x), groups=groups)
    assert_same(y, np.broadcast_to(beta.reshape(1, -1, *(1,) * (len(shape) - 2)), shape).copy())
    assert_same(dgamma, np.zeros(shape[1], dtype))
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("eps", [1e-12, 1e-2])
def test_eps_stands_inside_the_root(eps, device, rng):
    x, dy, gamma, beta = 1e-3 * normal(rng, (4, 6)), normal(rng, (4, 6)), normal(rng, 6), normal(rng, 6)
    _check(_computed(device, x, gamma, beta, dy, eps=eps), x, gamma, beta, dy, eps=eps)


def test_images_and_groups_do_not_mix(device, rng):
    """A NaN spoils its own group of its own image in y and dx, and its group's channels in dgamma."""
    x, dy = normal(rng, (3, 6, 4, 4)), normal(rng, (3, 6, 4, 4))
    gamma, beta = normal(rng, 6), normal(rng, 6)
    clean = _computed(device, x, gamma, beta, dy, groups=3)
    x[1, 2, 3, 0] = np.nan
    got = _computed(device, x, gamma, beta, dy, groups=3)
    for actual, before in zip(got[:2], clean[:2], strict=True):
        spoiled = np.zeros(x.shape, bool)
        spoiled[1, 2:4] = True
        np.testing.assert_array_equal(np.isnan(actual), spoiled)
        np.testing.assert_array_equal(actual[~spoiled], before[~spoiled])
    np.testing.assert_array_equal(np.isnan(got[2]), [False, False, True, True, False, False])
    assert_same(got[3], clean[3])


def test_input_gradient_is_blind_to_shift_and_scale(device, rng):
    """sum(dx) = 0 and sum(dx x) = 0 in every group (but for eps): moving a group changes nothing."""
    x, dy, gamma, beta = normal(rng, (3, 4, 6, 6)), normal(rng, (3, 4, 6, 6)), normal(rng, 4), normal(rng, 4)
    dx = _computed(device, x, gamma, beta, dy, groups=2, eps=1e-15)[1].reshape(6, -1)
    size = np.abs(dx).sum(axis=1)
    assert (np.abs(dx.sum(axis=1)) <= 1e-13 * size).all()
    assert (np.abs((dx * x.reshape(6, -1)).sum(axis=1)) <= 1e-13 * size * np.abs(x).max()).all()


@given(
    st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(2, 5)),
    st.integers(0, 2**32),
)
def test_random_sizes_match_oracle(device, sizes, seed):
    N, groups, members, H, W = sizes
    rng, shape = np.random.default_rng(seed), (N, groups * members, H, W)
    x, dy = normal(rng, shape), normal(rng, shape)
    gamma, beta = normal(rng, shape[1]), normal(rng, shape[1])
    _check(_computed(device, x, gamma, beta, dy, groups=groups), x, gamma, beta, dy, groups=groups)


def test_same_bits_every_time_and_for_any_number_of_threads(device, rng, monkeypatch):
    x, dy = normal(rng, (50, 16, 20, 20), "float32"), normal(rng, (50, 16, 20, 20), "float32")
    gamma, beta = normal(rng, 16, "float32"), normal(rng, 16, "float32")
    runs = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        runs.append([a.tobytes() for a in _computed(device, x, gamma, beta, dy, groups=4)])
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("norm", ["layernorm", "groupnorm"])
def test_eps_is_that_of_every_framework(norm):
    """1e-5, as in PyTorch, unless it is given."""
    rows = norm == "layernorm"
    x, gamma, options = np.array([[1e-3, -1e-3]]), np.ones(2), {} if rows else {"groups": 1}
    forward = getattr(gpuconv, f"{norm}_forward")
    x = x if rows else x[:, :, None, None]
    assert_same(forward(x, gamma, 0 * gamma, **options)[0], forward(x, gamma, 0 * gamma, eps=1e-5, **options)[0])
