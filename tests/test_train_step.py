"""A Stepper by itself: what a step changes, notes and refuses, without a run around it."""

import math

import numpy as np
import pytest
from train_helpers import TINY, change, run_state, shapes

from gpuconv import train
from gpuconv.errors import NonFiniteLossError
from gpuconv.train import Stepper, precision, recipe
from gpuconv.train.feed import Feed
from gpuconv.train.step import NotFiniteError


def stepper_of(config, *, rate=lambda step: 0.02):
    """Return a stepper and the outcomes that it will have noted."""
    data, outcomes = shapes(), []
    net = recipe.net(config, data.x_train.shape[1:], len(data.classes))
    return Stepper(net, config, rate, outcomes.append), outcomes


def batches(config, count):
    """Return the first batches of an epoch."""
    data = shapes()
    split = recipe.split(data, config)
    with Feed(split.x_train, split.y_train, config, mean=data.mean, std=data.std) as feed:
        return list(feed.epoch(0, 0, count))


def test_the_steps_of_a_run_are_those_of_a_stepper(tmp_path):
    config = change(epochs=1, schedule="constant", ema=0.9, accumulate=2, clip_norm=0.5)
    result = train.train(config, folder=tmp_path / "run", dataset=shapes(), progress="none")
    stepper, outcomes = stepper_of(config, rate=lambda step: config.lr)
    for step, batch in enumerate(batches(config, 10)):
        stepper.step(batch, step)
    assert [outcome.step for outcome in outcomes] == list(range(10))
    assert result.metrics[0]["train_loss"] == sum(outcome.loss for outcome in outcomes) / 10
    assert result.metrics[0]["train_accuracy"] == sum(outcome.correct for outcome in outcomes) / 200
    arrays, _ = run_state(tmp_path / "run" / "last.safetensors")
    for name, array in stepper.net.params.items():
        assert arrays[f"params/{name}"][2] == array.tobytes(), name
    for name, array in stepper.average.state.items():
        assert arrays[f"average/{name}"][2] == array.tobytes(), name


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_no_weights(what, monkeypatch):
    stepper, outcomes = stepper_of(TINY)
    before, real = stepper.net.flat_params.copy(), precision.ops.softmax_cross_entropy

    def broken(*arguments, **keywords):
        loss, dscores = real(*arguments, **keywords)
        if what == "loss":
            return np.array(math.inf, np.float32), dscores
        dscores[0, 0] = math.nan
        return loss, dscores

    monkeypatch.setattr(precision.ops, "softmax_cross_entropy", broken)
    message = "the loss is inf in step 8" if what == "loss" else "a gradient is NaN or infinite .* in step 8"
    with pytest.raises(NonFiniteLossError, match=message) as caught:
        stepper.step(batches(TINY, 1)[0], 7)
    assert isinstance(caught.value, NotFiniteError)
    assert caught.value.step == 7
    np.testing.assert_array_equal(stepper.net.flat_params, before)
    assert outcomes == []


def test_a_step_beyond_float16_is_noted_and_skipped():
    config = change(precision="float16")
    stepper, outcomes = stepper_of(config)
    stepper.arithmetic.scale.value = 2.0**100
    before = stepper.net.flat_params.copy()
    stepper.step(batches(config, 1)[0], 0)
    np.testing.assert_array_equal(stepper.net.flat_params, before)
    assert (stepper.skipped, [outcome.finite for outcome in outcomes]) == (1, [False])
