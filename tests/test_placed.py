"""Numbers by their place on a GPU: the bits of the same numbers by value, and nothing at all in a step that is left out."""

import itertools

import numpy as np
import pytest
from compare import assert_same_bits, normal

import gpuconv
from gpuconv import backend, cuda, nn
from gpuconv.nn.vectors import add_scaled, move_towards
from gpuconv.placed import Count, Number

NUMBERS = (0.1 / 3, 0.0, 1 / 7, 1.0)
DTYPES = ("float16", "float32", "float64")


def _there(gpu, *numbers, dtype=np.float64):
    """Return each number's place: all lie side by side."""
    array = gpu.array(np.array(numbers, dtype))
    return [array[i : i + 1] for i in range(len(numbers))]


def _vectors(gpu, dtype, count=4):
    """Return vectors of 37, alike at each call; every second of them where they lie in gaps."""
    rng = np.random.default_rng(4)
    drawn = [normal(rng, (37,), dtype) for _ in range(count - 1)]
    return [gpu.array(array) for array in (*drawn, rng.uniform(0.1, 2, 37).astype(dtype))]


def _rules(gpu, told, go=None):
    """Return each update as a function of its vectors; told: the rate, what corrects it, and the shrinking factor."""
    rate, second, shrink = told
    if go is not None:
        rate = Number(rate.at, go=go)
    rest = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.01}
    return {
        "sgd": lambda w, dw, v, _: cuda.sgd_update(w, dw, v, lr=rate, momentum=0.9, nesterov=True, weight_decay=0.01),
        "sgd_without_velocity": lambda w, dw, *_: cuda.sgd_update(
            w, dw, None, lr=rate, momentum=0.0, nesterov=False, weight_decay=0.0
        ),
        "rmsprop": lambda w, dw, _, s: cuda.rmsprop_update(
            w, dw, s, lr=rate, smoothing=0.9, eps=1e-8, weight_decay=0.01
        ),
        "adam": lambda w, dw, m, v: cuda.update.adam_step(w, dw, m, v, rate=rate, second=second, shrink=shrink, **rest),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ["sgd", "sgd_without_velocity", "rmsprop", "adam"])
def test_an_update_by_place_has_the_bits_of_one_by_value(rule, dtype, gpu):
    told = 0.1 / 3, 0.7, 1 - 1e-3 / 3
    by_value, by_place = _vectors(gpu, dtype), _vectors(gpu, dtype)
    _rules(gpu, told)[rule](*by_value)
    _rules(gpu, [Number(at) for at in _there(gpu, *told)])[rule](*by_place)
    for array, other in zip(by_value, by_place, strict=True):
        assert_same_bits(gpu.numpy(other), gpu.numpy(array))


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("rule", ["sgd", "rmsprop", "adam"])
def test_an_update_that_does_not_go_ahead_changes_nothing(rule, dense, gpu):
    told = [Number(at) for at in _there(gpu, 0.1, 0.7, 0.9)]
    for go in (0, 1, 2**40):
        vectors = _vectors(gpu, "float32")
        if not dense:
            vectors = [gpu.array(np.repeat(gpu.numpy(vector), 2))[::2] for vector in vectors]
        before = [gpu.numpy(vector).copy() for vector in vectors]
        _rules(gpu, told, *_there(gpu, go, dtype=np.uint64))[rule](*vectors)
        same = [np.array_equal(gpu.numpy(now), was) for now, was in zip(vectors, before, strict=True)]
        assert all(same) if go == 0 else not same[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_by_place_have_the_bits_of_sums_by_value(dtype, gpu):
    for factor, do in itertools.product(NUMBERS, (add_scaled, move_towards)):
        (one, other, source, _), (number,) = _vectors(gpu, dtype), _there(gpu, factor)
        other = gpu.array(gpu.numpy(one).copy())
        do(one, source, factor)
        do(other, source, Number(number))
        assert_same_bits(gpu.numpy(other), gpu.numpy(one))


def test_a_number_may_be_turned_round(gpu):
    (at,) = _there(gpu, 0.25)
    turned = -Number(at)
    assert (turned.times, (-turned).times) == (-1.0, 1.0)


@pytest.mark.parametrize("shape", [(300,), (2, 3, 5, 7)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_dropout_by_place_draws_as_by_value(shape, channels_last, gpu):
    """The number that lies there, times a factor, and more, modulo 2^64."""
    x = np.ones(shape, np.float32)
    if channels_last and len(shape) == 4:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    x = gpu.array(x)
    for lies, times, plus in ((7, 1, 0), (7, 3, 2), (2**63, 2, 5), (2**64 - 1, 1, 1)):
        (at,) = _there(gpu, lies, dtype=np.uint64)
        _, there = gpuconv.dropout_forward(x, rate=0.5, seed=9, step=Count(at) * times + plus)
        _, value = gpuconv.dropout_forward(x, rate=0.5, seed=9, step=(lies * times + plus) % 2**64)
        _, other = gpuconv.dropout_forward(x, rate=0.5, seed=9, step=(lies * times + plus + 1) % 2**64)
        assert_same_bits(gpu.numpy(there.kept), gpu.numpy(value.kept))
        assert (gpu.numpy(there.kept) != gpu.numpy(other.kept)).any()


def test_a_net_draws_for_the_step_that_lies_there(cuda):
    body = [nn.Dropout(0.5), nn.Affine(6, 4), nn.Dropout(0.5)]
    with backend.using("cuda"):
        net = nn.Net(nn.Sequential(*body), (6,), seed=3)
        x = backend.asarray(np.ones((5, 6), np.float32))
        (at,) = _there(cuda, 4, dtype=np.uint64)
        there, value, other = (
            backend.asnumpy(net.forward(x, training=True, step=step)) for step in (Count(at) * 3 + 1, 13, 12)
        )
    assert_same_bits(there, value)
    assert (there != other).any()


def test_the_same_launch_reads_what_lies_there_now(gpu):
    """A rate that changes between two updates, as a table's row does between two steps."""
    (at,), (w, dw, *_) = _there(gpu, 0.5), _vectors(gpu, "float64")
    before = gpu.numpy(w).copy()
    add_scaled(w, dw, Number(at))
    at[...] = gpu.array(np.array([2.0]))
    add_scaled(w, dw, Number(at))
    np.testing.assert_allclose(gpu.numpy(w), before + 2.5 * gpu.numpy(dw), rtol=1e-14, atol=1e-15)
