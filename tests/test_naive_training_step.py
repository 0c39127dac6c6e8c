"""A step of the trainer is the step that the oracle's loops make: loss, gradients, weights, statistics, momenta.

The step is one in the middle of a run: weights, running statistics and the optimiser's vectors are drawn, and steps
have been counted.  So momentum, decay, bias correction and rate all take part in it.

The tolerance is that of lossy.py: the oracle's own step, made again with arrays that are off.
"""

import dataclasses
import functools

import numpy as np
import pytest
from lossy import allowed, assert_allowed, off
from naive_training_step import Moment, step
from places import CPU, EMULATED, GPU, device_cuda

from gpuconv import backend, data
from gpuconv.show.terminal import Progress
from gpuconv.train import PRESETS, start

SMALL = {"batch_size": 5, "validation": 0, "epochs": 3, "crop": 1, "label_smoothing": 0.2, "weight_decay": 0.05}
CONFIGS = {
    "three-layer": dataclasses.replace(PRESETS["three-layer"], filters=3, hidden=5, lr=0.1, **SMALL),
    "convnet": dataclasses.replace(PRESETS["convnet"], widths=(3, 4), cutout=2, **SMALL),
}
NUMBER = 5  # steps done before: in the second epoch, whose turn it is to mirror the others; the rate falls


@functools.cache
def _pictures():
    rng = np.random.default_rng(4)
    x, y = rng.integers(0, 256, (17, 3, 8, 8), np.uint8), rng.integers(0, 4, 17)
    return data.Dataset(
        "drawn", tuple("abcd"), x[:15], y[:15], x[15:], y[15:], (0.5, 0.4, 0.6), (0.25, 0.3, 0.2), "here"
    )


def _run(config):
    """Return a run of the trainer in the middle of its steps."""
    run = start.begin(config, _pictures(), Progress())
    rng = np.random.default_rng(1)

    def drawn(array, *, least=None):
        numbers = rng.standard_normal(array.shape) if least is None else least + rng.random(array.shape)
        return numbers.astype(np.float32).astype(array.dtype)  # the same in float32 and float64

    weights = {
        name: backend.asnumpy(array).astype(np.float32).astype(array.dtype) if array.ndim > 1 else drawn(array)
        for name, array in run.net.params.items()
    }
    squares = ("v", "running_var")
    state = {name: drawn(array, least=0.5 if name.endswith(squares) else None) for name, array in run.net.state.items()}
    vectors = {
        name: drawn(array, least=0.5 if name in squares else None)
        for name, array in run.stepper.optimiser.state.items()
    }
    run.net.load(weights, state)
    run.stepper.optimiser.load(vectors, NUMBER)
    run.position.steps = NUMBER
    return run


def _moment(run):
    """Return what a run holds at a moment, on the host in float64."""

    def host(arrays):
        return {name: backend.asnumpy(array).astype(np.float64) for name, array in arrays.items()}

    params = host(run.net.params)
    # The order of the flat vectors: first what is decayed, the rest behind it.
    names = sorted(params, key=lambda name: params[name].ndim == 1)
    ends = np.cumsum([params[name].size for name in names])
    vectors = {}
    for kind, flat in host(run.stepper.optimiser.state).items():
        parts = zip(names, np.split(flat, ends[:-1]), strict=True)
        vectors[kind] = {name: part.reshape(params[name].shape).copy() for name, part in parts}
    return Moment(params, host(run.net.state), vectors, run.last_loss or 0.0, host(run.net.grads))


def _by_trainer(config, place):
    """Return the moments before and after a step."""
    with device_cuda(place):
        config = dataclasses.replace(config, device="cpu" if place == CPU else "cuda")
        with backend.using(config.device):
            run = _run(config)
            before = _moment(run)
            epoch, first = divmod(NUMBER, run.plan.steps_per_epoch)
            with run.feed:
                (batch,) = run.feed.epoch(epoch, first, first + 1)
                run.rehearse(batch)
            return before, _moment(run)


@functools.cache
def _before(net):
    return _by_trainer(CONFIGS[net], CPU)[0]


@functools.cache
def _by_oracle(net):
    """Return what a step comes to, by name, and how far float32 may be from it."""
    config, before = CONFIGS[net], _before(net)
    exact = _flat(step(config, _pictures(), before, NUMBER))

    def again(rng):
        return _flat(step(config, _pictures(), before, NUMBER, near=lambda array: off(array, rng)))

    return exact, allowed(exact, again)


def _flat(moment):
    """Return everything in a moment by one name."""
    parts = {"params": moment.params, "grads": moment.grads, "state": moment.state, **moment.vectors}
    found = {f"{kind} {name}": array for kind, part in parts.items() for name, array in part.items()}
    return found | {"loss": np.array(moment.loss)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("net", CONFIGS)
@pytest.mark.parametrize("place", [CPU, EMULATED, pytest.param(*GPU.values, marks=[*GPU.marks, pytest.mark.core])])
def test_a_step_of_the_trainer_is_the_oracle_s(place, net, dtype):
    before, after = _by_trainer(dataclasses.replace(CONFIGS[net], dtype=dtype), place)
    for name, array in _flat(before).items():  # weights start from one point, wherever they lie
        if name.split()[0] not in ("grads", "loss"):
            np.testing.assert_array_equal(array, _flat(_before(net))[name], name)
    assert_allowed(_flat(after), *_by_oracle(net), dtype)


@pytest.mark.parametrize("net", CONFIGS)
def test_what_is_allowed_is_little(net):
    """A ten-thousandth of the largest entry: less than any wrong formula is off."""
    exact, bounds = _by_oracle(net)
    for name, array in exact.items():
        assert bounds[name] <= 1e-4 * np.abs(array).max(), name


WRONG = {
    "L2_penalty": {"weight_decay": 0.0},
    "label_smoothing": {"label_smoothing": 0.0},
    "mirrored_pictures": {"flip": False},
    "shifts": {"crop": 0},
    "border": {"pad_mode": "zero"},
    "order_of_pictures": {"seed": 1},
    "rate": {"lr_start": 0.05, "warmup": 0.4},
}
OF_ONE = {
    "convnet": {
        "momentum": {"momentum": 0.8},
        "look_ahead": {"nesterov": False},
        "cut_out_square": {"cutout": 0},
        "turns_of_mirroring": {"flip_mode": "random"},
    },
    "three-layer": {"beta1": {"beta1": 0.8}, "beta2": {"beta2": 0.99}, "decoupled": {"optimizer": "adamw"}},
}


@pytest.mark.parametrize(
    ("net", "settings"),
    [
        pytest.param(net, settings, id=f"{net}-{name}")
        for net in CONFIGS
        for name, settings in {**WRONG, **OF_ONE[net]}.items()
    ],
)
def test_a_trainer_that_goes_by_other_settings_is_seen(net, settings):
    _, after = _by_trainer(dataclasses.replace(CONFIGS[net], **settings), CPU)
    with pytest.raises(AssertionError, match="away, allowed"):
        assert_allowed(_flat(after), *_by_oracle(net), "float32")


def test_one_mirrored_picture_is_seen(monkeypatch):
    expected, real = _by_oracle("convnet"), data.epoch_draws
    last = data.epoch_batches(15, 5, seed=0, epoch=1)[2][-1]

    def one_turned(*arguments, **keywords):
        draws = real(*arguments, **keywords)
        draws[last] ^= np.uint64(1 << 32)
        return draws

    monkeypatch.setattr(data, "epoch_draws", one_turned)
    with pytest.raises(AssertionError, match="away, allowed"):
        assert_allowed(_flat(_by_trainer(CONFIGS["convnet"], CPU)[1]), *expected, "float32")
