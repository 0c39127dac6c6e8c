"""Optimiser steps in place, against the oracle, PyTorch and the course's numbers.

Tolerances (c = 8), with G = |dw| + weight_decay |w|, what g is summed from: velocities and means to the same sums of
absolute values, squares to those of G^2.  A step lr g / (sqrt(square) + eps) is known to lr G / (sqrt(square) + eps):
the square holds at least its share of g^2, so its error never exceeds that of g.  A float16 state is stored before it
is used, which costs the step one more unit of float16.
"""

import numpy as np
import pytest
from compare import U_OUT, U_SUM, assert_close, assert_same, normal
from pairs import DEVICES, DTYPES, pairs

import gpuconv
from gpuconv import naive

SIZES = {"empty": 0, "one": 1, "odd": 37, "more_than_one_block": 70_001}
SGD = {
    "plain": {"lr": 0.1},
    "decay": {"lr": 0.1, "weight_decay": 0.01},
    "momentum": {"lr": 0.05, "momentum": 0.9},
    "momentum_and_decay": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1},
    "nesterov": {"lr": 0.05, "momentum": 0.9, "nesterov": True},
    "nesterov_and_decay": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "momentum_of_one": {"lr": 0.05, "momentum": 1.0},
    "no_step": {"lr": 0.0, "momentum": 0.5},
}
RMSPROP = {
    "defaults": {"lr": 0.01},
    "decay": {"lr": 0.01, "weight_decay": 0.1},
    "forgetful": {"lr": 0.01, "smoothing": 0.0, "eps": 1e-3},
    "never_learns": {"lr": 0.01, "smoothing": 1.0, "eps": 1.0},
}
ADAM = {
    "first_step": {"lr": 0.01, "step": 1},
    "later_step": {"lr": 0.01, "step": 1000},
    "far_step": {"lr": 0.01, "step": 2**31 - 1},
    "decay": {"lr": 0.01, "step": 3, "weight_decay": 0.1},
    "decoupled_decay": {"lr": 0.01, "step": 3, "weight_decay": 0.1, "decoupled": True},
    "other_betas": {"lr": 0.01, "step": 2, "beta1": 0.5, "beta2": 0.9, "eps": 1e-3},
    "no_memory": {"lr": 0.01, "step": 2, "beta1": 0.0, "beta2": 0.0},
}


def _run(device, update, arrays, options):
    """Return the arrays after one update by the backend; dw must not change."""
    dev = [None if a is None else device.array(a.copy()) for a in arrays]
    assert update(*dev, **options) is None
    got = [None if a is None else device.numpy(a) for a in dev]
    assert_same(got[1], arrays[1])
    return got


def _oracle(update, arrays, options):
    wide = [None if a is None else a.astype(np.float64) for a in arrays]
    update(*wide, **options)
    return wide


def _gradient_size(w, dw, options):
    decay = 0.0 if options.get("decoupled") else options.get("weight_decay", 0.0)
    return np.abs(dw.astype(np.float64)) + decay * np.abs(w.astype(np.float64))


def _extra(dtype):
    """Return the units of float16 that a stored state adds to a step, in units of the sums."""
    return U_OUT["float16"] / U_SUM["float16"] / 8 if dtype == "float16" else 0.0


@pairs(options=SGD, count=SIZES, device=DEVICES, dtype=DTYPES)
def test_sgd_matches_oracle(options, count, device, dtype, rng):
    w, dw = normal(rng, count, dtype), normal(rng, count, dtype)
    velocity = normal(rng, count, dtype) if "momentum" in options else None
    full = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, **options}
    ref_w, _, ref_v = _oracle(naive.sgd_update, (w, dw, velocity), full)
    got_w, _, got_v = _run(device, gpuconv.sgd_update, (w, dw, velocity), options)
    size = _gradient_size(w, dw, options)
    step = size
    if velocity is not None:
        size_v = full["momentum"] * np.abs(velocity.astype(np.float64)) + size
        assert_close(got_v, ref_v, scale=size_v, dtype=dtype)
        step = size + full["momentum"] * size_v if full["nesterov"] else size_v
    scale = np.abs(w.astype(np.float64)) + full["lr"] * step * (1 + _extra(dtype) * (velocity is not None))
    assert_close(got_w, ref_w, scale=scale, dtype=dtype)


@pairs(options=RMSPROP, count=SIZES, device=DEVICES, dtype=DTYPES)
def test_rmsprop_matches_oracle(options, count, device, dtype, rng):
    w, dw = normal(rng, count, dtype), normal(rng, count, dtype)
    square = rng.uniform(0.1, 2, count).astype(dtype)
    full = {"smoothing": 0.99, "eps": 1e-8, "weight_decay": 0.0, **options}
    ref_w, _, ref_s = _oracle(naive.rmsprop_update, (w, dw, square), full)
    got_w, _, got_s = _run(device, gpuconv.rmsprop_update, (w, dw, square), options)
    size = _gradient_size(w, dw, options)
    scale = full["smoothing"] * square.astype(np.float64) + (1 - full["smoothing"]) * size**2
    assert_close(got_s, ref_s, scale=scale, dtype=dtype)
    step = full["lr"] * size / (np.sqrt(ref_s) + full["eps"])
    assert_close(got_w, ref_w, scale=np.abs(w.astype(np.float64)) + step * (1 + _extra(dtype)), dtype=dtype)


@pairs(options=ADAM, count=SIZES, device=DEVICES, dtype=DTYPES)
def test_adam_matches_oracle(options, count, device, dtype, rng):
    w, dw, m = (normal(rng, count, dtype) for _ in range(3))
    v = rng.uniform(0.1, 2, count).astype(dtype)
    full = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "decoupled": False, **options}
    ref_w, _, ref_m, ref_v = _oracle(naive.adam_update, (w, dw, m, v), full)
    got_w, _, got_m, got_v = _run(device, gpuconv.adam_update, (w, dw, m, v), options)
    size = _gradient_size(w, dw, options)
    size_m = full["beta1"] * np.abs(m.astype(np.float64)) + (1 - full["beta1"]) * size
    assert_close(got_m, ref_m, scale=size_m, dtype=dtype)
    scale = full["beta2"] * v.astype(np.float64) + (1 - full["beta2"]) * size**2
    assert_close(got_v, ref_v, scale=scale, dtype=dtype)
    first, second = (1 - full[beta] ** full["step"] for beta in ("beta1", "beta2"))
    step = full["lr"] * (size_m + size) / first / (np.sqrt(ref_v / second) + full["eps"])
    scale = np.abs(w.astype(np.float64)) + step * (1 + 2 * _extra(dtype))
    assert_close(got_w, ref_w, scale=scale, dtype=dtype)


def test_strided_vectors(device, rng):
    """Views into a larger array are updated where they lie; the gaps stay."""
    room = normal(rng, (4, 21))
    before = room.copy()
    w, dw, m, v = (row[1::2] for row in room)
    v[...] = np.abs(v)
    expected = _oracle(naive.adam_update, (w, dw, m, v), {"step": 1, "lr": 0.1, **_ADAM_DEFAULTS})
    dev = device.array(room)
    gpuconv.adam_update(*(row[1::2] for row in dev), step=1, lr=0.1)
    got = device.numpy(dev)
    np.testing.assert_allclose(got[:, 1::2], expected, rtol=1e-14)
    assert_same(got[:, ::2], before[:, ::2])


_ADAM_DEFAULTS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "decoupled": False}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bad_gradient_spoils_its_own_weight_only(value, device, dtype, rng):
    for update, states, options in (
        (gpuconv.sgd_update, 1, {"lr": 0.1, "momentum": 0.9}),
        (gpuconv.rmsprop_update, 1, {"lr": 0.1}),
        (gpuconv.adam_update, 2, {"lr": 0.1, "step": 1}),
    ):
        w, dw = normal(rng, 9, dtype), normal(rng, 9, dtype)
        dw[4] = value
        got = _run(device, update, (w, dw, *(np.ones(9, dtype) for _ in range(states))), options)
        for array in (got[0], *got[2:]):
            assert np.isfinite(np.delete(array, 4)).all()
        assert not np.isfinite(got[2][4])


def test_zero_gradient_of_a_fresh_state_moves_nothing(device, dtype):
    """0 / (sqrt(0) + eps) is 0."""
    w, zeros = np.ones(5, dtype), np.zeros(5, dtype)
    assert_same(_run(device, gpuconv.rmsprop_update, (w, zeros, zeros), {"lr": 0.1, "eps": 1e-5})[0], w)
    assert_same(_run(device, gpuconv.adam_update, (w, zeros, zeros, zeros), {"lr": 0.1, "step": 1, "eps": 1e-5})[0], w)


@pytest.mark.parametrize("name", ["sgd", "nesterov", "rmsprop", "adam", "adamw"])
def test_a_run_of_steps_matches_pytorch(name, device, rng):
    """Ten steps on changing gradients; float64, so the paths stay together to 1e-13 of the numbers."""
    torch = pytest.importorskip("torch")
    start, gradients = normal(rng, 50), normal(rng, (10, 50))
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    decay = 0.1
    make = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=decay),
        "nesterov": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=decay),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, weight_decay=decay),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=decay),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=decay),
    }
    optimiser = make[name]([parameter])
    w, m, v = device.array(start.copy()), device.array(np.zeros(50)), device.array(np.zeros(50))
    for step, gradient in enumerate(gradients, 1):
        parameter.grad = torch.from_numpy(gradient.copy())
        optimiser.step()
        dw = device.array(gradient)
        if name in ("sgd", "nesterov"):
            gpuconv.sgd_update(w, dw, v, lr=0.01, momentum=0.9, nesterov=name == "nesterov", weight_decay=decay)
        elif name == "rmsprop":
            gpuconv.rmsprop_update(w, dw, v, lr=0.01, weight_decay=decay)
        else:
            gpuconv.adam_update(w, dw, m, v, step=step, lr=0.01, weight_decay=decay, decoupled=name == "adamw")
    np.testing.assert_allclose(device.numpy(w), parameter.detach().numpy(), rtol=1e-12, atol=1e-13)


# First rows of the course's optimiser tests (w, dw and states are straight lines of 20 numbers); 8 digits are given.
COURSE = {
    "momentum": [0.1406, 0.20738947, 0.27417895, 0.34096842, 0.40775789],
    "nesterov": [0.08714, 0.15246105, 0.21778211, 0.28310316, 0.34842421],
    "rmsprop": [-0.39223849, -0.34037513, -0.28849239, -0.23659121, -0.18467247],
    "adam": [-0.40094747, -0.34836187, -0.29577703, -0.24319299, -0.19060977],
}


@pytest.mark.parametrize("name", COURSE)
def test_numbers_of_the_course(name, device):
    """The course's velocity is ours times -lr; its Adam counts the step before using it (5 means 6)."""
    w, dw = np.linspace(-0.4, 0.6, 20), np.linspace(-0.6, 0.4, 20)
    state = np.linspace(0.6, 0.9, 20)
    if name in ("momentum", "nesterov"):
        options = {"lr": 1e-3, "momentum": 0.9, "nesterov": name == "nesterov"}
        got = _run(device, gpuconv.sgd_update, (w, dw, -state / 1e-3), options)
    elif name == "rmsprop":
        got = _run(device, gpuconv.rmsprop_update, (w, dw, state), {"lr": 1e-2})
    else:
        got = _run(device, gpuconv.adam_update, (w, dw, state, np.linspace(0.7, 0.5, 20)), {"lr": 1e-2, "step": 6})
    np.testing.assert_allclose(got[0][:5], COURSE[name], rtol=0, atol=6e-9)


def test_same_bits_for_any_number_of_threads(device, rng, monkeypatch):
    arrays = normal(rng, (3, 200_001), "float32")
    v = rng.uniform(0.1, 1, 200_001).astype("float32")
    runs = []
    for threads in ("1", "2", "3", "7"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        got = _run(device, gpuconv.adam_update, (*arrays, v), {"lr": 0.1, "step": 2, "weight_decay": 0.1})
        runs.append([a.tobytes() for a in got])
    assert runs == runs[:1] * 4
