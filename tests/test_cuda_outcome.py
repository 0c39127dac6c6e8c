"""Outcomes of steps on a GPU: noted as NumPy would have them, looked at late, and none is lost or saved too soon."""

import dataclasses
import functools
import json
import math
import signal

import numpy as np
import pytest
from compare import normal
from places import EMULATED, GPU
from train_helpers import TINY, assert_same_run, run_state, shapes

from gpuconv import backend, nn, train
from gpuconv.cuda.outcome import note_part
from gpuconv.errors import NonFiniteLossError, ParamError
from gpuconv.runs import checkpoint
from gpuconv.train import Interrupted, Stepper, outcomes, precision, recipe, resume
from gpuconv.train import state as train_state
from gpuconv.train.feed import Batch, Feed
from gpuconv.train.precision import LossScale

DTYPES = ("float16", "float32", "float64")
# Two epochs of ten steps, small enough for the emulator.
SMALL = dataclasses.replace(
    TINY, widths=(2,), batch_size=3, train_images=30, validation=4, test_images=4, device="cuda", crop=0
)


def change(**settings):
    return dataclasses.replace(SMALL, **settings)


def go(config, folder):
    return train.train(config, folder=folder, dataset=shapes(), progress="none")


def every(monkeypatch, steps):
    monkeypatch.setattr("gpuconv.train.step._LOOK_EVERY", steps)


# The kernels ----------------------------------------------------------------------------------------------------------


def _noted(gpu, scores, labels, *, part=1, loss=0.1, row=2, layout=lambda array: array):
    """Return the row that a part is noted in, among rows of 8 numbers."""
    table = gpu.array(np.full((3, 8), -1.0))
    number = gpu.array(np.array([row], np.uint64))
    of_scores, of_labels = gpu.array(layout(scores)), gpu.array(labels)
    note_part(part, gpu.array(np.array(loss, np.float32)), of_scores, of_labels, outcomes=table, row=number)
    table = gpu.numpy(table)
    assert (np.delete(table, row, axis=0) == -1).all()
    assert (np.delete(table[row], [2 * part, 2 * part + 1]) == -1).all()
    assert table[row, 2 * part] == np.float32(loss)
    return table[row, 2 * part + 1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 10), (65, 10), (300, 3), (9, 100), (4, 33)])
def test_hits_are_those_of_the_highest_scores(shape, dtype, gpu, rng):
    """Of few different scores: many are equal, and the first counts."""
    for scores in (normal(rng, shape, dtype), rng.integers(-1, 2, shape).astype(dtype)):
        labels = np.where(rng.random(shape[0]) < 0.6, scores.argmax(axis=1), rng.integers(0, shape[1], shape[0]))
        assert _noted(gpu, scores, labels) == outcomes.hits(scores, labels)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_score_of_nan_is_the_highest_and_the_first_of_several_counts(dtype, gpu, rng):
    scores = rng.choice(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0], dtype), (200, 40))
    scores[:40] = np.where(np.isnan(scores[:40]), -np.inf, scores[:40])
    scores[0], scores[1] = -np.inf, np.nan
    best = scores.argmax(axis=1)
    assert _noted(gpu, scores, best) == 200
    assert _noted(gpu, scores, (best + 1) % 40) == 0


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "uint64"])
def test_labels_of_any_integers_and_strides(dtype, gpu, rng):
    scores, labels = normal(rng, (50, 5), "float32"), rng.integers(0, 5, 50).astype(dtype)
    wanted = outcomes.hits(scores, labels)
    assert _noted(gpu, scores, labels) == wanted
    assert _noted(gpu, scores, np.repeat(labels, 2)[::2]) == wanted
    assert _noted(gpu, scores, labels, layout=np.asfortranarray) == wanted
    assert _noted(gpu, scores, np.full(50, 255, np.uint8)) == 0


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_noted_as_it_is(loss, gpu):
    table = gpu.array(np.zeros((1, 8)))
    arguments = np.array(loss, np.float32), np.ones((2, 2), np.float32), np.zeros(2, np.int64)
    note_part(0, *map(gpu.array, arguments), outcomes=table, row=gpu.array(np.zeros(1, np.uint64)))
    np.testing.assert_array_equal(gpu.numpy(table)[0, 0], loss)


# Rows -----------------------------------------------------------------------------------------------------------------


def test_rows_are_read_in_the_order_of_their_steps():
    ring, table = outcomes.Outcomes(3, 2), np.zeros((3, 10))
    for step in range(4, 9):
        table[ring.next_row] = [step, 1, step + 1, 2, 1, 0, step, 3, 4, 8.0]
        ring.add(step)
        if ring.full or step == 8:
            rows = ring.look(table)
            assert [row.outcome for row in rows] == [
                outcomes.Outcome(row.outcome.step, row.outcome.step + 0.5, 3, True) for row in rows
            ]
            assert [row.updates for row in rows] == ([4, 5, 6] if step == 6 else [7, 8])
    assert ring.look(table) == []


def test_a_row_that_nobody_has_looked_at_is_not_given_away():
    ring = outcomes.Outcomes(2, 1)
    ring.add(0)
    ring.add(1)
    with pytest.raises(AssertionError, match="would be overwritten"):
        ring.add(2)


# Runs -----------------------------------------------------------------------------------------------------------------

_TOO_LARGE = 2.0**19  # a loss scale with which gradients of activations are beyond float16

FEATURES = {
    "float32": {"accumulate": 3, "clip_norm": 0.5, "ema": 0.9},
    "adamw": {"optimizer": "adamw", "lr": 1e-2, "weight_decay": 0.1, "bias_lr": 2.0},
    "float16": {"precision": "float16", "optimizer": "adamw", "lr": 1e-2, "ema": 0.9, "clip_norm": 1.0},
    "float16_sgd": {"precision": "float16", "accumulate": 3},
}


def _cases(*names, core=()):
    return [
        pytest.param(name, *place.values, marks=[*place.marks, *([pytest.mark.core] if name in core else [])])
        for place in (EMULATED, GPU)
        for name in names
    ]


@pytest.mark.parametrize(("name", "cuda"), _cases(*FEATURES, core=("float32", "float16")), indirect=["cuda"])
def test_outcomes_looked_at_late_are_the_same(name, cuda, tmp_path, monkeypatch):
    """Every step, every three, or once an epoch: in float16 some of the first steps are skipped meanwhile."""
    monkeypatch.setattr(precision, "LossScale", functools.partial(LossScale, _TOO_LARGE))
    config = change(checkpoint_every=4, epochs=1, **FEATURES[name])
    for steps in (1, 3, 16):
        every(monkeypatch, steps)
        go(config, tmp_path / str(steps))
        assert_same_run(tmp_path / str(steps), tmp_path / "1")
    values = run_state(tmp_path / "1" / "last.safetensors")[1]
    skipped = json.loads((tmp_path / "1" / "result.json").read_text())["skipped_steps"] or 0
    assert (skipped > 0) == name.startswith("float16")
    assert values["optimizer"]["steps"] == 10 - skipped
    if skipped:
        assert (values["loss_scale"]["value"], values["loss_scale"]["skipped"]) == (_TOO_LARGE / 2**skipped, skipped)


@pytest.mark.parametrize(("name", "cuda"), _cases("adamw", "float16", core=("float16",)), indirect=["cuda"])
def test_a_run_that_was_interrupted_ends_in_the_same_bits(name, cuda, tmp_path, monkeypatch):
    """Between two looks, and beyond the end of the tables of rates."""
    monkeypatch.setattr(train_state, "TABLE_STEPS", 4)
    config = change(epochs=1, **FEATURES[name])
    go(config, tmp_path / "whole")
    monkeypatch.setattr(train_state, "TABLE_STEPS", 1024)
    real, calls = Stepper.step, []

    def interrupted(stepper, *arguments):
        calls.append(None)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        real(stepper, *arguments)

    monkeypatch.setattr(Stepper, "step", interrupted)
    with pytest.raises(Interrupted):
        go(config, tmp_path / "again")
    assert run_state(tmp_path / "again" / "last.safetensors")[1]["position"]["steps"] == 6
    resume(tmp_path / "again", dataset=shapes(), progress="none")
    assert_same_run(tmp_path / "again", tmp_path / "whole")


@pytest.mark.parametrize("cuda", [EMULATED], indirect=True)
@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("step", [2, 5, 10, 11])
def test_no_checkpoint_holds_what_came_after_a_bad_step(step, what, cuda, tmp_path, monkeypatch):
    """Looked at every 16 steps, with a checkpoint due after every 4: the bad step is found before one is written.

    graph off: what the host injects is in no recording.
    """
    real, calls = precision.ops.softmax_cross_entropy, []

    def injected(*arguments, **keywords):
        calls.append(None)
        loss, dscores = real(*arguments, **keywords)
        if len(calls) == step:
            if what == "loss":
                loss[...] = np.float32(np.nan)
            else:
                dscores[0, 0] = np.inf
        return loss, dscores

    monkeypatch.setattr(precision.ops, "softmax_cross_entropy", injected)
    folder = tmp_path / "run"
    message = "the loss is nan" if what == "loss" else "a gradient is NaN or infinite"
    with pytest.raises(NonFiniteLossError, match=rf"{message}.* step {step}, at a .*\d\.  The weights"):
        go(change(checkpoint_every=4, graph="off"), folder)
    saved = max(point for point in (0, 4, 8, 10) if point < step)
    assert run_state(folder / "last.safetensors")[1]["optimizer"]["steps"] == saved


def test_gradients_that_stay_no_numbers_end_a_run_in_float16(cuda, tmp_path, monkeypatch):
    """After sixteen halvings a smaller scale is no help: as on the CPU."""
    real = precision.Half.backward

    def broken(self, dscores):
        real(self, dscores)
        self.net.flat_grads[:1][...] = backend.asarray(np.array([np.nan], np.float32), beside=self.net.flat_grads)

    monkeypatch.setattr(precision.Half, "backward", broken)
    with pytest.raises(NonFiniteLossError, match=r"a gradient is NaN or infinite.* step 17"):
        go(change(precision="float16", batch_size=1), tmp_path / "run")
    values = run_state(tmp_path / "run" / "last.safetensors")[1]
    assert values["optimizer"]["steps"] == 0


def test_a_signal_after_a_bad_step_saves_nothing(cuda, tmp_path, monkeypatch):
    real = precision.Same.backward

    def broken(self, dscores):
        real(self, dscores)
        self.net.flat_grads[:1][...] = backend.asarray(np.array([np.nan], np.float32), beside=self.net.flat_grads)

    monkeypatch.setattr(precision.Same, "backward", broken)
    real_step, calls = Stepper.step, []

    def step(self, *arguments):
        calls.append(None)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        real_step(self, *arguments)

    monkeypatch.setattr(Stepper, "step", step)
    with pytest.raises(NonFiniteLossError, match="step 1"):
        go(SMALL, tmp_path / "run")
    assert run_state(tmp_path / "run" / "last.safetensors")[1]["optimizer"]["steps"] == 0


# Steppers -------------------------------------------------------------------------------------------------------------


def _stepper(config, rate=lambda step: 0.01 * (step + 1)):
    data, noted = shapes(), []
    net = recipe.net(config, data.x_train.shape[1:], len(data.classes))
    return Stepper(net, config, rate, noted.append), noted


def _batches(config, count):
    data = shapes()
    split = recipe.split(data, config)
    with Feed(split.x_train, split.y_train, config, mean=data.mean, std=data.std) as feed:
        return list(feed.epoch(0, 0, count))


@pytest.mark.parametrize("parts", [1, 3])
def test_steps_on_arrays_are_those_of_a_feed(parts, cuda):
    config = change(accumulate=parts)
    with backend.using("cuda"):
        by_feed, wanted = _stepper(config)
        by_arrays, noted = _stepper(config)
        for step, batch in enumerate(_batches(config, 4)):
            by_arrays.step(Batch(batch.parts, batch.labels), step)
            by_feed.step(batch, step)
        by_feed.look()
        by_arrays.look()
        with pytest.raises(ParamError, match=f"as many parts as accumulate, {parts}, got 0"):
            by_arrays.step(Batch([], batch.labels), 4)
    assert len(wanted) == 4
    assert noted == wanted
    np.testing.assert_array_equal(*(backend.asnumpy(each.net.flat_params) for each in (by_arrays, by_feed)))


@pytest.mark.parametrize("count", [3, 8])
def test_steps_are_noted_when_they_are_looked_at(count, cuda, monkeypatch):
    with backend.using("cuda"):
        every(monkeypatch, 1)
        at_once, wanted = _stepper(SMALL)
        every(monkeypatch, 5)
        late, noted = _stepper(SMALL)
        for step, batch in enumerate(_batches(SMALL, count)):
            at_once.step(batch, step)
            late.step(batch, step)
    assert len(noted) == count // 5 * 5
    assert late.optimiser.steps == len(noted)
    late.look()
    assert noted == wanted
    assert late.optimiser.steps == len(noted) == count
    np.testing.assert_array_equal(*(backend.asnumpy(each.net.flat_params) for each in (late, at_once)))


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw"])
def test_rates_of_a_step_are_those_that_the_host_would_give(optimizer, cuda):
    """Each step's update again, by value, from what the gradients were: steps out of order are placed anew."""
    config = change(optimizer=optimizer, weight_decay=0.1, bias_lr=3.0, lr=0.01, ema=0.9)
    with backend.using("cuda"):
        stepper, _ = _stepper(config)
        own, _ = _stepper(config)
        for batch, step in zip(_batches(config, 5), (0, 1, 2, 7, 3), strict=True):
            stepper.step(batch, step)
            for array in (own.net.flat_params, own.net.flat_grads):
                assert array.size
            own.net.flat_grads[...] = stepper.net.flat_grads
            own.optimiser.step(own.rate(step))
            for name, array in own.average._live.items():
                if name != "params":
                    array[...] = stepper.net.state[name]
            own.average.update(step)
            pairs = [(own.net.flat_params, stepper.net.flat_params)]
            pairs += [(own.optimiser.state[name], stepper.optimiser.state[name]) for name in own.optimiser.state]
            pairs += [(own.average.state[name], stepper.average.state[name]) for name in own.average.state]
            for wanted, found in pairs:
                np.testing.assert_array_equal(backend.asnumpy(found), backend.asnumpy(wanted))


def test_each_part_of_each_step_draws_for_itself_as_on_the_cpu(cuda):
    """Another mask in the first layer is another loss, far beyond rounding."""
    config, losses = change(accumulate=3), {}
    for device in ("cpu", "cuda"):
        noted = []
        with backend.using(device):
            body = nn.Dropout(0.5), nn.Flatten(), nn.Affine(3 * 32 * 32, 10)
            net = nn.Net(nn.Sequential(*body), (3, 32, 32), seed=2)
            stepper = Stepper(net, config, lambda step: 1e-5, noted.append)
            for step, batch in enumerate(_batches(config, 4)):
                stepper.step(batch, step)
            stepper.look()
        losses[device] = [outcome.loss for outcome in noted]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_skipped_step_changes_no_weights_and_is_none_of_the_optimiser_s(optimizer, cuda):
    config = change(precision="float16", optimizer=optimizer, ema=0.9, lr=0.01)
    with backend.using("cuda"):
        stepper, noted = _stepper(config)
        batches = _batches(config, 3)
        stepper.arithmetic.scale.value = 64.0
        stepper.step(batches[0], 0)
        stepper.look()
        arrays = [stepper.net.flat_params, *stepper.optimiser.state.values(), *stepper.average.state.values()]
        before = [backend.asnumpy(array).copy() for array in arrays]
        stepper.arithmetic.scale.value = 2.0**100
        stepper.state.forget()
        stepper.step(batches[1], 1)
        stepper.look()
        for array, was in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(backend.asnumpy(array), was)
        assert (stepper.optimiser.steps, stepper.skipped) == (1, 1)
        assert [outcome.finite for outcome in noted] == [True, False]
        assert stepper.arithmetic.scale.value == 2.0**99


def test_a_stepper_that_is_put_back_goes_on_from_there(cuda, tmp_path, monkeypatch):
    """After as many steps as the checkpoint has, none of them skipped, of which it had one."""
    monkeypatch.setattr(precision, "LossScale", functools.partial(LossScale, _TOO_LARGE))
    config = change(precision="float16", optimizer="adamw", lr=0.01, max_steps=4)
    go(dataclasses.replace(config, epochs=1, max_steps=3), tmp_path / "run")
    snapshot = checkpoint.load(tmp_path / "run" / "last.safetensors")
    with backend.using("cuda"):
        stepper, noted = _stepper(config)
        stepper.arithmetic.scale.value = 64.0
        batches = _batches(config, 4)
        for step, batch in enumerate(batches[:3]):
            stepper.step(batch, step)
        stepper.look()
        assert (stepper.optimiser.steps, stepper.skipped) == (3, 0)
        stepper.restore(snapshot)
        skipped = stepper.skipped
        assert skipped > 0
        stepper.step(batches[3], 3)
        stepper.look()
    assert (stepper.optimiser.steps, stepper.skipped, len(noted)) == (4 - skipped, skipped, 4)
    assert stepper.arithmetic.scale.value == _TOO_LARGE / 2**skipped


def test_a_step_that_ends_in_an_error_leaves_the_next_one_right(cuda, monkeypatch):
    """The row of the broken step is used again, and its rates are read anew."""
    with backend.using("cuda"):
        (broken, noted), (whole, wanted) = _stepper(SMALL), _stepper(SMALL)
        batches = _batches(SMALL, 4)
        real = precision.Same.end
        for step, batch in enumerate(batches):
            whole.step(batch, step)
            if step == 2:
                monkeypatch.setattr(precision.Same, "end", lambda _: 1 // 0)
                statistics = {name: backend.asnumpy(array).copy() for name, array in broken.net.state.items()}
                with pytest.raises(ZeroDivisionError):
                    broken.step(batch, step)
                monkeypatch.setattr(precision.Same, "end", real)
                for name, array in broken.net.state.items():
                    array[...] = backend.asarray(statistics[name], beside=array)
            broken.step(batch, step)
        whole.look()
        broken.look()
    assert noted == wanted
    assert len(noted) == 4
