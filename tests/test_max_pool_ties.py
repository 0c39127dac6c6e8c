"""Max-pooling whose equal maxima share the gradient, or each get the whole of it."""

import numpy as np
import pytest
from compare import assert_close, assert_same, normal, whole
from hypothesis import given
from hypothesis import strategies as st
from pairs import DEVICES, DTYPES, STORED, pairs

import gpuconv
from gpuconv import naive
from gpuconv.pool_shapes import pool_sizes

RULES = {"first": [[1, 0], [0, 0]], "split": [[0.25, 0.25], [0.25, 0.25]], "every": [[1, 1], [1, 1]]}

CASES = {
    "tiles": ((2, 3, 6, 8), {"window": 2}),
    "drops_a_row_and_a_column": ((2, 3, 7, 9), {"window": 2}),
    "overlapping": ((2, 3, 7, 8), {"window": 3, "stride": 2, "pad": 1}),
    "every_pixel": ((1, 2, 6, 5), {"window": 3, "stride": 1}),
    "gaps": ((1, 2, 8, 7), {"window": 2, "stride": 3}),
    "window_not_square": ((2, 8, 9, 8), {"window": (2, 5), "stride": (3, 1), "pad": (1, 2)}),
    "ceil": ((2, 3, 6, 8), {"window": 3, "stride": 2, "ceil": True}),
    "dilated": ((2, 3, 7, 8), {"window": (2, 3), "stride": (1, 2), "pad": ((0, 1), 1), "dilation": (3, 2)}),
    "empty_batch": ((0, 3, 4, 4), {"window": 2}),
}


@pytest.fixture(params=["split", "every"])
def ties(request):
    return request.param


def _check(device, x, dy, ties, options):
    """Hold y and dx to the oracle: at most R S terms are added, and each was divided."""
    y, cache = gpuconv.max_pool_forward(device.array(x), ties=ties, **options)
    assert_same(device.numpy(y), device.numpy(gpuconv.max_pool_forward(device.array(x), **options)[0]))
    dx = device.numpy(gpuconv.max_pool_backward(device.array(dy), cache))
    z = pool_sizes(x, **{"stride": None, "pad": 0, **options})
    top = naive.max_pool_forward(x, z)[0]
    ref, scale = (naive.max_pool_backward(a, None, z, ties=ties, x=x, y=top) for a in (dy, np.abs(dy)))
    assert_close(dx, ref, scale=scale, dtype=x.dtype)
    return dx


@pytest.mark.parametrize("rule", RULES)
def test_the_three_rules(rule, device):
    x = np.ones((1, 1, 2, 2))
    _, cache = gpuconv.max_pool_forward(device.array(x), ties=rule)
    dx = device.numpy(gpuconv.max_pool_backward(device.array(np.ones((1, 1, 1, 1))), cache))
    assert_same(dx, np.array(RULES[rule], float).reshape(1, 1, 2, 2))


@pairs(case=CASES, ties=["split", "every"], stored=STORED, device=DEVICES, dtype=DTYPES)
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(case, ties, stored, device, dtype, rng):
    """Small whole numbers: most windows hold ties."""
    shape, options = case
    x = whole(rng, shape, dtype)
    z = pool_sizes(x, **{"stride": None, "pad": 0, **options})
    dy = normal(rng, (z.N, z.C, z.P, z.Q), dtype)
    if stored == "channels_last":
        x, dy = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, dy))
    _check(device, x, dy, ties, options)


def test_any_memory_layout(layout, ties, device, rng):
    x, dy = whole(rng, (2, 4, 6, 5)), normal(rng, (2, 4, 3, 2))
    _check(device, layout(x), layout(dy), ties, {"window": 2})


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinities_tie_and_padding_does_not(value, ties, device):
    x = np.full((1, 1, 3, 3), value)
    _check(device, x, np.ones((1, 1, 2, 2)), ties, {"window": 3, "stride": 2, "pad": 1})


def test_a_window_of_nan_gives_none(ties, device, rng):
    x = normal(rng, (1, 1, 4, 4))
    x[0, 0, 1, 1] = np.nan
    dx = _check(device, x, np.ones((1, 1, 2, 2)), ties, {"window": 2})
    assert not dx[0, 0, :2, :2].any()
    assert dx.sum() == 3


def test_zeros_of_both_signs_tie(ties, device):
    dx = _check(device, np.array([[[[0.0, -0.0], [-1.0, -0.0]]]]), np.full((1, 1, 1, 1), 3.0), ties, {"window": 2})
    assert_same(dx, np.array([[[[1.0, 1.0], [0.0, 1.0]]]]) * (1 if ties == "split" else 3))


@given(st.integers(0, 2**32), st.sampled_from(["split", "every"]))
def test_without_ties_all_rules_are_one(device, seed, ties):
    x = np.random.default_rng(seed).permutation(2 * 3 * 7 * 6).reshape(2, 3, 7, 6).astype(float)
    dy = np.random.default_rng(seed).standard_normal((2, 3, 3, 2))
    both = []
    for rule in ("first", ties):
        _, cache = gpuconv.max_pool_forward(device.array(x), window=3, stride=2, ties=rule)
        both.append(device.numpy(gpuconv.max_pool_backward(device.array(dy), cache)))
    assert_same(both[0], both[1])


def test_shares_add_up_to_the_gradient(device, rng):
    x, dy = whole(rng, (2, 3, 8, 8)), whole(rng, (2, 3, 4, 4), largest=12)
    dx = _check(device, x, 12 * dy, "split", {"window": 2})
    assert_same(dx.reshape(2, 3, 4, 2, 4, 2).sum(axis=(3, 5)), 12 * dy)
