"""Sums of float32 at sizes where a running sum would no longer hold the tolerance rule.

Equal values are the worst there is: they are all rounded the same way, and a running sum of n of them may be off by
(n / 4 + 1) u of itself.  Random ones of one sign lose about sqrt(n) / 4 u.  So every case here has data of one sign or
one size, where c = 4 + 2 sqrt(terms), and batch normalisation keeps its own rule, which does not grow with the size
(tests/test_batchnorm.py).  Planes up to 8192 x 8192 take a gigabyte: `python tests/test_long_sums.py`.
"""

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from compare import assert_close

import gpuconv
from gpuconv.cpu import product, reduce, runs

U = 2.0**-24
EQUAL = 1.1 + 0.0  # no sum of few bits
DRAWS = {
    "equal": lambda rng, shape: np.full(shape, EQUAL, np.float32),
    "uniform": lambda rng, shape: rng.random(shape, np.float32),
    "signs": lambda rng, shape: (
        np.where(rng.random(shape, np.float32) < 0.5, -1, 1).astype(np.float32) * np.float32(EQUAL)
    ),
}


@pytest.fixture(params=DRAWS, ids=DRAWS.keys())
def draw(request, rng):
    return lambda shape: DRAWS[request.param](rng, shape)


@pytest.fixture
def equal():
    return lambda shape: DRAWS["equal"](None, shape)


def _channels_last(a):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


# Batch normalisation ------------------------------------------------------------------------------------------------


def batchnorm_errors(x, dy):
    """Return how far y, variance, dgamma and dbeta are off, as parts of what the rule allows."""
    C = x.shape[1]
    gamma, beta, mean, var = (
        np.ones(C, np.float32),
        np.zeros(C, np.float32),
        np.zeros(C, np.float32),
        np.ones(C, np.float32),
    )
    forward, backward = (
        (gpuconv.spatial_batchnorm_forward, gpuconv.spatial_batchnorm_backward)
        if x.ndim == 4
        else (gpuconv.batchnorm_forward, gpuconv.batchnorm_backward)
    )
    y, cache = forward(x, gamma, beta, mean, var, momentum=0.0)
    dx, dgamma, dbeta = backward(dy, cache)
    errors = {"var": 0.0, "y": 0.0, "dgamma": 0.0, "dbeta": 0.0, "dx": 0.0}
    for c in range(C):  # a channel at a time: the reference takes four times the memory
        wide, upstream = x[:, c].astype(np.float64), dy[:, c].astype(np.float64)
        true_mean, true_var = wide.mean(), wide.var()
        inverse = 1 / np.sqrt(true_var + 1e-5)
        kappa = 1 + abs(true_mean) * inverse
        errors["var"] = max(errors["var"], abs(var[c] - true_var) / (U * true_var * (8 + 1 + 4 * U * kappa**2)))
        x_hat = wide
        x_hat -= true_mean
        x_hat *= inverse
        count = x_hat.size
        worth = {"dgamma": (upstream * x_hat).sum(), "dbeta": upstream.sum()}
        size = np.abs(upstream)
        scales = {"dbeta": size.sum(), "dgamma": (size * (np.abs(x_hat) + kappa)).sum()}
        for name, got in (("dgamma", dgamma), ("dbeta", dbeta)):
            # Sums of one sign, held to what is asked of sums that cancel.
            errors[name] = max(errors[name], abs(got[c] - worth[name]) / (U * (8 * scales[name] + abs(worth[name]))))
        bound = U * (8 * (np.abs(x_hat) + kappa) + np.abs(x_hat))
        errors["y"] = max(errors["y"], float((np.abs(y[:, c] - x_hat) / bound).max()))
        through = upstream - worth["dbeta"] / count - x_hat * (worth["dgamma"] / count)
        through *= inverse
        bound = size + scales["dbeta"] / count + np.abs(x_hat) * scales["dgamma"] / count
        bound += kappa * abs(worth["dgamma"]) / count
        bound *= 8 * inverse * U
        bound += U * np.abs(through)
        errors["dx"] = max(errors["dx"], float((np.abs(dx[:, c] - through) / bound).max()))
    return errors


@pytest.mark.parametrize(
    ("shape", "last"),
    [
        ((1, 1, 1024, 1024), False),
        ((1, 2, 512, 1024), True),
        ((3, 1, 301, 299), False),
        ((2, 3, 56, 56), False),
        ((512, 300), False),
        ((2048, 64), False),
        ((1, 1, 1, 262145), False),
    ],
)
def test_batch_norm_of_large_planes_and_many_rows(draw, rng, shape, last):
    x = (draw(shape) + rng.standard_normal(shape, np.float32) * np.float32(0.01)).astype(np.float32)
    dy = draw(shape)
    if last:
        x, dy = _channels_last(x), _channels_last(dy)
    errors = batchnorm_errors(x, dy)
    assert max(errors.values()) <= 1, errors


@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
def test_batch_norm_of_a_batch_that_begins_unlike_the_rest(equal, last):
    """A first idea of the mean, from the first images, lies eight standard deviations off: squares would cancel."""
    x, dy = equal((1024, 2, 16, 16)), equal((1024, 2, 16, 16))
    x[:16] = 0
    if last:
        x, dy = _channels_last(x), _channels_last(dy)
    errors = batchnorm_errors(x, dy)
    assert max(errors.values()) <= 1, errors


@pytest.mark.parametrize("shape", [(1, 1, 1024, 1024), (2, 3, 64, 64), (1, 2, 1, 3137), (512, 1024), (4099, 3), (7, 5)])
@pytest.mark.parametrize("value", [1.1, 1.3, 1.0000001, 1.4142135, 1.9999999])
def test_sums_of_equal_values_are_off_by_no_more_than_a_run(shape, value):
    """The bound of gpuconv/cpu/reduce.py: 9 u."""
    x = np.full(shape, value, np.float32)
    channels = reduce.channels_of(x)
    view = channels.view(x)
    exact, count = float(x.flat[0]), x.size // x.shape[1]
    for sums, want in ((channels.sums(view), exact), (channels.sums(view, view), exact**2)):
        assert (np.abs(sums / (count * want) - 1) <= 9 * U).all()


# Everything else that adds up ---------------------------------------------------------------------------------------


def _check(got, operator, arrays, terms):
    """Compare results with the same operator in float64, and with the rule's scale: the operator on absolute values."""
    wide = [a.astype(np.float64) for a in arrays]
    refs, scales = operator(*wide), operator(*map(np.abs, wide))
    for result, ref, scale, count in zip(got, refs, scales, terms, strict=True):
        assert_close(result, ref, scale=scale, dtype="float32", terms=count, zero_mean=False)


@pytest.mark.parametrize(("N", "D", "M"), [(2**18, 1, 1), (2**16, 3, 2), (2, 2**18, 1), (2, 1, 2**18)])
def test_affine(equal, N, D, M):
    def operator(x, w, dy):
        y, cache = gpuconv.affine_forward(x, w, np.zeros(M, x.dtype))
        return [y, *gpuconv.affine_backward(dy, cache)]

    arrays = equal((N, D)), equal((D, M)), equal((N, M))
    _check(operator(*arrays), operator, arrays, [D, M, N, N])


# What BLAS adds up in order: small products on processors with AVX-512, and a matrix times a vector, of any size.
@pytest.mark.parametrize(
    ("M", "K", "N"),
    [(2, 65536, 3), (3, 65536, 1), (17, 16384, 2), (16, 4096, 15), (11, 8192, 11), (8, 576, 64), (5, 200, 4), (1, 4096, 1),
     (100, 16384, 1), (1, 65536, 257)],
)  # fmt: skip
@pytest.mark.parametrize("turned", [(), ("a",), ("b",), ("a", "b")], ids=["", "a", "b", "ab"])
def test_products_that_are_added_up_in_order(equal, M, K, N, turned):
    a = equal((K, M)).T if "a" in turned else equal((M, K))
    b = equal((N, K)).T if "b" in turned else equal((K, N))
    out = np.full((2, M, N), np.nan, np.float32)
    product.product(np.stack([a, 2 * a]), b, out)
    scale = np.full((2, M, N), float(a[0, 0]) * float(b[0, 0]) * K)
    scale[1] *= 2
    assert_close(out, scale, scale=scale, dtype="float32", terms=K, zero_mean=False)


def test_products_of_few_terms_are_one_call():
    assert product.longest(3, 64, 5) == 64
    assert product.longest(512, 4096, 512) == product.longest(512, 16384, 512) == 16384


# Within a large matrix product BLAS adds up some hundred terms in a row: of equal ones more is lost there than the rule
# says, whatever the size.  So these two are of random ones.
CONVS_OF_MANY_TERMS = {
    "tall_filters": ((1, 2, 1100, 2), (2, 2, 1000, 1), 1, 0),
    "many_channels": ((1, 10_000, 3, 3), (1, 10_000, 3, 3), 1, 0),
}
CONVS = {
    "many_small_images": ((40_000, 2, 1, 1), (3, 2, 1, 1), 1, 0),
    "one_large_image": ((1, 1, 512, 512), (1, 1, 1, 1), 1, 0),
    "large_filters": ((1, 1, 66, 66), (1, 1, 60, 60), 1, 0),
    "large_filters_depthwise": ((1, 2, 66, 66), (2, 1, 60, 60), 2, 0),
    "large_planes_depthwise": ((1, 3, 300, 300), (3, 1, 3, 3), 3, 1),
}


# Values of which the sums of a row are rounded the same way, so that many rows in order would lose the most.
@pytest.mark.parametrize(
    ("x", "w", "values"),
    [
        ((1, 4, 5000, 1), (4, 1, 2, 1), (1.17550905, 1.69448641)),
        ((1, 4, 5000, 1), (4, 1, 2, 1), (1.24984372, 1.13784291)),
        ((1, 1, 700, 1), (1, 1, 400, 1), (1.63659327, 1.24613404)),
        ((300, 16, 40, 2), (16, 1, 3, 1), (1.01644359, 1.99237602)),
    ],
    ids=["tall_planes", "tall_planes_by_numpy", "one_channel", "many_images"],
)
def test_rows_under_a_filter_of_one_channel(x, w, values):
    def operator(x, dy):
        _, cache = gpuconv.conv_forward(x, np.ones(w, x.dtype), None, groups=w[0])
        return [gpuconv.conv_backward(dy, cache)[1]]

    N, C, *size = x
    y = (N, C, *(n - taps + 1 for n, taps in zip(size, w[2:], strict=True)))
    arrays = [np.full(shape, value, np.float32) for shape, value in zip((x, y), values, strict=True)]
    _check(operator(*arrays), operator, arrays, [arrays[1][:, 0].size])


@pytest.mark.parametrize(("x", "w", "groups", "pad"), CONVS_OF_MANY_TERMS.values(), ids=CONVS_OF_MANY_TERMS.keys())
def test_convolution_of_many_terms(rng, x, w, groups, pad):
    test_convolution(lambda shape: DRAWS["uniform"](rng, shape), x, w, groups, pad)


@pytest.mark.parametrize(("x", "w", "groups", "pad"), CONVS.values(), ids=CONVS.keys())
def test_convolution(equal, x, w, groups, pad):
    K, height = w[0], x[2] + 2 * pad - w[2] + 1
    shape = x[0], K, height, x[3] + 2 * pad - w[3] + 1

    def operator(x, w, dy):
        y, cache = gpuconv.conv_forward(x, w, np.zeros(K, x.dtype), pad=pad, groups=groups)
        return [y, *gpuconv.conv_backward(dy, cache)]

    arrays, pixels = (equal(x), equal(w), equal(shape)), int(np.prod(shape)) // K
    taps = w[2] * w[3]
    _check(operator(*arrays), operator, arrays, [w[1] * taps, K // groups * taps, pixels, pixels])


@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
# Taps and windows as far apart: as many meet in a pixel.
@pytest.mark.parametrize("step", [1, 8])
@pytest.mark.parametrize("window", [(400, 1), (1, 400), (40, 40), (9, 9), (20, 20, 1), (90, 1, 2)])
def test_average_pooling(equal, window, step, last):
    shape = (1, 2, *(step * 2 * size - step + 1 for size in window))

    def operator(x, dy):
        y, cache = gpuconv.average_pool_forward(x, window=window, stride=step, dilation=step)
        return [y, gpuconv.average_pool_backward(dy, cache)]

    arrays = equal(shape), equal((1, 2, *(size + 1 for size in window)))
    if last:
        arrays = tuple(map(_channels_last, arrays))
    terms = math.prod(window)
    _check(operator(*arrays), operator, arrays, [terms, terms])


@pytest.mark.parametrize("ties", ["first", "every", "split"])
@pytest.mark.parametrize(("window", "step"), [((36, 36), 1), ((400, 1), 1), ((1, 256), 1), ((1, 256), 4)])
def test_gradients_of_max_pooling_that_meet_in_one_pixel(equal, window, step, ties):
    shape = (1, 1, *(step * 2 * size - step + 1 for size in window))
    x = np.zeros(shape, np.float32)
    x[..., step * window[0], step * window[1]] = 1
    dy = equal((1, 1, window[0] + 1, window[1] + 1))

    def operator(dy):
        _, cache = gpuconv.max_pool_forward(x.astype(dy.dtype), window=window, stride=step, dilation=step, ties=ties)
        return [gpuconv.max_pool_backward(dy, cache)]

    _check(operator(dy), operator, [dy], [window[0] * window[1]])


# The kernels of sums over channels ------------------------------------------------------------------------------------


def _constant(name):
    text = (Path(__file__).parents[1] / "kernels" / "channels.cuh").read_text(encoding="utf-8")
    return int(re.search(rf"constexpr int {name} = (\d+);", text)[1])


def _kernel_sum(values):
    """Add up as channel_sums, batchnorm_forward_moments and batchnorm_backward_sums do, (chunks, threads, values)."""
    running = np.zeros(values.shape[:2], np.float32)
    for place in range(values.shape[2]):
        running += values[:, :, place]
    while running.shape[1] > 1:  # lane_sums
        running = running[:, : running.shape[1] // 2] + running[:, running.shape[1] // 2 :]
    return running.sum(dtype=np.float64)


@pytest.mark.parametrize("chunks", [1, 3, 64])
def test_the_longest_chain_of_roundings_in_a_kernel_holds_the_rule_at_any_size(rng, chunks):
    """The bound of kernels/channels.cuh, whose chunks are merged in float64.

    In float32 a thread adds up CHANNEL_VALUES = 16 values in a row, and then CHANNEL_BLOCK = 256 threads go in a tree of
    8 levels; more than that is chunks, of which there may be any number.  So the error has a bound without the size in
    it: (16 / 2 + 1) u of a run and 8 u of the tree if all had one sign.  Equal values reach 16 / 4 + 1/2 = 4.5 u in the
    run and nothing in the tree, where equals double; random ones stay below 2 u.  The rule allows 8 u and 1 of the result.
    """
    block, run = _constant("CHANNEL_BLOCK"), _constant("CHANNEL_VALUES")
    assert run / 2 + 1 + np.log2(block) <= 17
    worst = 0.0
    for value in 1 + rng.random(200):
        values = np.full((chunks, block, run), value, np.float32)
        worst = max(worst, abs(_kernel_sum(values) / (values.size * float(values.flat[0])) - 1) / U)
    assert 2 < worst <= 4.5
    values = rng.random((chunks, block, run), np.float32)
    assert abs(_kernel_sum(values) / values.sum(dtype=np.float64) - 1) <= 2 * U


def test_a_run_is_the_square_root_of_the_terms_rounded_up():
    """Longer runs would be further off, more runs, too."""
    for terms in range(runs.FEW + 1, 5000):
        length = runs.run_length(terms)
        assert (length - 1) ** 2 < terms <= length**2
    assert [runs.run_length(terms) for terms in (1, 2, runs.FEW)] == [1, 2, runs.FEW]


def main(*sizes):
    """Print what is left of the rule for planes of these sizes, to 8192 x 8192 if none are given."""
    rng = np.random.default_rng(0)
    for size in map(int, sizes or (1024, 2048, 4096, 8192)):
        for name in ("normal", "uniform"):
            shape = (1, 1, size, size)
            x, dy = rng.standard_normal(shape, np.float32), rng.random(shape, np.float32)
            if name == "uniform":
                x = rng.random(shape, np.float32)
            errors = batchnorm_errors(x, dy)
            parts = "  ".join(f"{key} {value:.3f}" for key, value in errors.items())
            sys.stdout.write(f"{size} x {size} {name:8} parts of the rule: {parts}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
