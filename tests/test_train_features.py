"""What a run may do beyond plain steps: parts, clipping, averages, float16, early ends, test-time views, batches ahead."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading

import numpy as np
import pytest
from train_helpers import TINY, again, assert_same_run, change, go, interrupt, run_state, shapes, watch

from gpuconv import data, nn, ops, train
from gpuconv.data import sources
from gpuconv.errors import CheckpointMismatchError, ConfigError, NonFiniteLossError, ParamError
from gpuconv.nn import vectors
from gpuconv.runs import checkpoint, evaluation, sealed
from gpuconv.show.terminal import Progress
from gpuconv.train import Config, Stepper, feed, loop, precision, recipe, rehearsal

# Everything comes back ----------------------------------------------------------------------------------------------

FEATURES = {
    "accumulate": {"accumulate": 4},
    "clip": {"clip_norm": 0.5},
    "ema": {"ema": 0.9},
    "float16": {"precision": "float16"},
    "patience": {"patience": 1, "epochs": 3, "lr": 0.0},
    "all": {"accumulate": 2, "clip_norm": 1.0, "ema": 0.9, "precision": "float16", "patience": 3, "tta": "flip"},
}


@pytest.mark.parametrize("settings", FEATURES.values(), ids=FEATURES.keys())
def test_an_interrupted_run_ends_in_the_same_bits(settings, tmp_path):
    config = change(**settings)
    whole = go(config, tmp_path / "whole")
    for step in (3, 13) if config.tta == "flip" else (13,):
        folder = tmp_path / str(step)
        interrupt(folder, config, step=step)
        result = again(folder)
        assert_same_run(folder, whole.folder)
        for name in ("test_accuracy", "test_loss", "test_accuracy_tta", "ended_by", "steps"):
            assert getattr(result, name) == getattr(whole, name)


def test_a_run_goes_on_from_the_weights_behind_an_average(tmp_path):
    config = change(ema=0.9, epochs=3)
    whole = go(config, tmp_path / "whole")
    folder = tmp_path / "parts"
    interrupt(folder, config, step=17)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Training, "go", lambda self: None)
        train.resume(folder / "best.safetensors", dataset=shapes(), progress="none")
    again(folder)
    assert_same_run(folder, whole.folder)


def test_a_checkpoint_of_the_version_before_counts_its_steps(tmp_path):
    interrupt(tmp_path / "run", TINY, step=13)
    path = tmp_path / "run" / "last.safetensors"
    arrays, values = sealed.read(path)
    for name in ("steps", "ended_by"):
        del values["position"][name]
    del values["loss_scale"]
    sealed.write(path, arrays, values)
    assert again(tmp_path / "run").steps == 20


# A step in parts ----------------------------------------------------------------------------------------------------

NO_NORM = {"net": "three-layer", "filters": 3, "hidden": 8, "dtype": "float64", "lr": 0.01, "weight_scale": 0.1}


def test_parts_give_the_step_of_the_whole_batch_where_no_batch_norm_is(tmp_path):
    """The mean of the parts' gradients is the gradient of the mean: the same weights but for float64 rounding."""
    found = []
    for parts in (1, 4):
        go(change(**NO_NORM, accumulate=parts), tmp_path / str(parts))
        found.append(sealed.read(tmp_path / str(parts) / "last.safetensors"))
    (one, first), (four, second) = found
    for name, array in one.items():
        assert_close(four[name], array)
    losses = [values["position"]["rows"][-1]["train_loss"] for values in (first, second)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


def assert_close(found, wanted) -> None:
    """20 steps of five layers there and back lose at most 20 * 10 * 8 u of the largest entry, as the loop's tests say."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=20 * 10 * 8 * 2.0**-53 * max(1.0, np.abs(wanted).max()))


def test_batch_norm_sees_each_part_alone_and_dropout_draws_for_each(tmp_path, monkeypatch):
    seen = watch(monkeypatch, nn.Net, "forward")
    go(change(accumulate=4, max_steps=2), tmp_path / "run")
    training = [(len(arguments[1]), keywords["step"]) for arguments, keywords, _ in seen if keywords.get("training")]
    assert training == [(5, number) for number in range(8)]


# Clipping and averages ----------------------------------------------------------------------------------------------


def small_net(**settings) -> nn.Net:
    return nn.ConvNet(2, input_shape=(3, 4, 4), seed=1, **settings)


@pytest.mark.parametrize(("limit", "factor"), [(0.0625, 0.0125), (2.5, 0.5), (5.0, 1.0), (7.0, 1.0)])
def test_gradients_are_shortened_to_the_norm_and_never_lengthened(limit, factor):
    net = small_net(dtype="float64")
    net.flat_grads[:2] = 3, -4
    assert nn.clip_gradients(net, limit) == 5.0
    np.testing.assert_array_equal(net.flat_grads[:2], [3 * factor, -4 * factor])


def test_clipping_happens_before_each_update(tmp_path, monkeypatch):
    norms = watch(monkeypatch, nn, "clip_gradients")
    real, after = nn.Optimiser.step, []

    def step(self, lr):
        after.append(max(np.linalg.norm(np.concatenate([arrays[1] for arrays, *_ in self._parts])), 0))
        real(self, lr)

    monkeypatch.setattr(nn.Optimiser, "step", step)
    go(change(clip_norm=0.25), tmp_path / "run")
    assert len(norms) == len(after) == 20
    assert any(norm > 0.25 for _, _, norm in norms)
    assert max(after) <= 0.25 * (1 + 2.0**-20)  # float32: the factor and the products are rounded


def test_the_average_follows_its_formula():
    net = small_net(dtype="float64")
    average = nn.WeightAverage(net, 0.9)
    wanted = net.flat_params.copy()
    for step in range(30):
        net.flat_params += 0.1
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * net.flat_params
        average.update(step)
    np.testing.assert_allclose(average.state["params"], wanted, rtol=1e-13)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_net_has_its_own_weights_back_after_an_evaluation(error):
    net = small_net()
    average = nn.WeightAverage(net, 0.9)
    net.flat_params += 1 / 3
    net.state["bn1.running_var"][...] = 7
    before = [array.copy() for array in (net.flat_params, *net.state.values())]
    try:
        with average.applied():
            np.testing.assert_array_equal(net.flat_params, average.state["params"])
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    for old, new in zip(before, (net.flat_params, *net.state.values()), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_best_checkpoint_holds_the_average_and_the_validation_is_of_it(tmp_path):
    result = go(change(ema=0.9), tmp_path / "run")
    arrays, _ = sealed.read(result.folder / "best.safetensors")
    assert np.any(arrays["params/conv1.w"] != arrays["live_params/conv1.w"])
    net = train.load_net(result.folder / "best.safetensors")
    np.testing.assert_array_equal(net.flat_params, arrays["average/params"])
    pictures = shapes()
    split = recipe.split(pictures, TINY)
    found = train.evaluate(
        net, split.x_validation, split.y_validation, mean=pictures.mean, std=pictures.std, classes=10
    )
    assert found.accuracy == result.validation_accuracy


# float16 ------------------------------------------------------------------------------------------------------------


def test_float16_steps_keep_float32_weights_and_statistics(tmp_path, monkeypatch):
    seen = watch(monkeypatch, precision.ops, "softmax_cross_entropy")
    inputs = watch(monkeypatch, nn.Net, "forward")
    result = go(change(precision="float16"), tmp_path / "run")
    arrays, values = sealed.read(result.folder / "last.safetensors")
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    assert values["loss_scale"] == {"value": 65536.0, "good": 20, "skipped": 0}
    assert {arguments[0].dtype for arguments, _, _ in seen} == {np.dtype(np.float32)}
    kinds = {bool(keywords.get("training")): arguments[1].dtype for arguments, keywords, _ in inputs}
    assert kinds == {True: np.float16, False: np.float32}


def test_float16_learns_as_float32_does(tmp_path):
    """Losses agree to a few units of float16: 8 u for each of the five layers there and back, and each update."""
    losses = [
        go(change(precision=name, max_steps=3), tmp_path / name).metrics[0]["train_loss"]
        for name in ("float32", "float16")
    ]
    assert abs(losses[0] - losses[1]) <= 3 * 5 * 2 * 8 * 2.0**-11 * losses[0]


def test_float16_gradients_are_those_of_float32_but_for_rounding():
    """Per layer there and back 8 u of float16, of the largest gradient: scale and number of parts are taken out."""
    config = change(**NO_NORM | {"dtype": "float32"})
    found = []
    for settings in ({}, {"precision": "float16", "accumulate": 4}):
        run = loop.Training(dataclasses.replace(config, **settings), shapes(), Progress())
        if run.stepper.arithmetic.scale is not None:
            run.stepper.arithmetic.scale.value = 1024.0  # these gradients, times the first scale, leave float16
        run.stepper.arithmetic.begin()
        with run.feed:
            batch = next(run.feed.epoch(0, 0, 1))
        for x, labels in batch.parts:
            scores = run.stepper.arithmetic.forward(x, step=0)
            run.stepper.arithmetic.backward(run.stepper.arithmetic.loss(scores, labels, label_smoothing=0.1)[1])
        run.stepper.arithmetic.end()
        found.append(run.net.flat_grads)
    largest = np.abs(found[0]).max()
    assert largest > 0.01
    assert np.abs(found[0] - found[1]).max() <= 5 * 2 * 8 * 2.0**-11 * largest


def test_a_gradient_beyond_float16_halves_the_scale_and_skips_the_step(tmp_path, monkeypatch):
    real, calls = precision.Half.backward, []

    def overflows(self, dscores):
        calls.append(self.scale.value)
        real(self, dscores)
        if len(calls) in (1, 2, 5):
            self.net.flat_grads[3] = np.inf

    monkeypatch.setattr(precision.Half, "backward", overflows)
    config = change(precision="float16", ema=0.9)
    result = go(config, tmp_path / "run")
    values = run_state(result.folder / "last.safetensors")[1]
    assert values["loss_scale"] == {"value": 8192.0, "good": 15, "skipped": 3}
    assert values["optimizer"]["steps"] == 17
    assert values["position"]["steps"] == result.steps == 20
    assert calls[:6] == [65536.0, 32768.0, 16384.0, 16384.0, 16384.0, 8192.0]
    assert json.loads((result.folder / "result.json").read_text())["skipped_steps"] == 3


def test_the_scale_doubles_after_2000_good_steps():
    scale = precision.LossScale()
    for _ in range(1999):
        scale.succeed()
    assert (scale.value, scale.good) == (65536.0, 1999)
    scale.succeed()
    assert (scale.value, scale.good) == (131072.0, 0)
    scale.good = 5
    assert scale.fail()
    assert (scale.value, scale.good, scale.skipped) == (65536.0, 0, 1)


def test_a_gradient_that_stays_no_number_ends_the_run(tmp_path, monkeypatch):
    real = precision.Half.backward

    def broken(self, dscores):
        real(self, dscores)
        self.net.flat_grads[0] = np.nan

    monkeypatch.setattr(precision.Half, "backward", broken)
    with pytest.raises(NonFiniteLossError, match=r"a gradient is NaN or infinite .* in epoch 2, step 17"):
        go(change(precision="float16"), tmp_path / "run")  # 2^16 is 16 halvings away from 1


@pytest.mark.parametrize("factor", [-2.0, 0.0, 0.375])
def test_vectors_are_added_and_moved(factor, device):
    host = np.arange(5, dtype=np.float32), np.array([4, 2, 1, -8, 16], np.float32)
    target, source = (device.array(each.copy()) for each in host)
    vectors.add_scaled(target, source, factor)
    np.testing.assert_array_equal(device.numpy(target), host[0] + np.float32(factor) * host[1])
    target = device.array(host[0].copy())
    vectors.move_towards(target, source, 0.25)
    np.testing.assert_array_equal(device.numpy(target), host[0] + np.float32(0.25) * (host[1] - host[0]))


# Early ends ---------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that a test moves, in place of time.perf_counter."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize("steps", [1, 7, 10, 13])
def test_a_run_whose_time_is_over_ends_after_the_step_as_a_finished_one(steps, tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(loop.time, "perf_counter", clock.perf_counter)
    real = Stepper.step

    def slow(self, *arguments):
        clock.now += 6.0
        real(self, *arguments)

    monkeypatch.setattr(Stepper, "step", slow)
    result = go(change(max_minutes=steps / 10), tmp_path / "run")
    assert (result.steps, result.ended_by) == (steps, "max-minutes")
    assert [row["step"] for row in result.metrics] == ([steps] if steps <= 10 else [10, steps])
    record = json.loads((result.folder / "result.json").read_text())
    assert (record["ended_by"], record["epochs"], record["steps"]) == ("max-minutes", len(result.metrics), steps)
    assert (record["seconds"], record["images_per_second"]) == (6.0 * steps, round(TINY.batch_size / 6, 1))
    before = run_state(result.folder / "last.safetensors")
    assert again(result.folder).test_accuracy == result.test_accuracy
    (result.folder / "result.json").unlink()
    assert again(result.folder).steps == steps  # not a step more
    assert run_state(result.folder / "last.safetensors") == before


@pytest.mark.parametrize(
    ("schedule", "minutes", "words"),
    [("one-cycle", 1.3, "epochs=1 is a schedule"), ("cosine", 0.4, "max_steps=4 is a schedule"), ("constant", 1.3, "")],
)
def test_a_run_that_ends_before_its_rate_came_down_says_what_fits(
    schedule, minutes, words, tmp_path, monkeypatch, capsys
):
    clock, real = Clock(), Stepper.step

    def slow(self, *arguments):
        clock.now += 6.0
        real(self, *arguments)

    monkeypatch.setattr(loop.time, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(Stepper, "step", slow)
    config = change(max_minutes=minutes, schedule=schedule, epochs=3)
    train.train(config, folder=tmp_path / "run", dataset=shapes(), progress="plain")
    out = " ".join(capsys.readouterr().out.split())
    assert "ended by max-minutes in epoch" in out
    assert ("before the rate had come down: " in out) == bool(words)
    assert words in out


def test_a_run_whose_time_is_over_in_a_validation_begins_no_epoch(tmp_path, monkeypatch):
    clock, real = Clock(), loop.evaluate

    def slow(*arguments, **keywords):
        clock.now += 60.0
        return real(*arguments, **keywords)

    monkeypatch.setattr(loop.time, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(loop, "evaluate", slow)
    result = go(change(max_minutes=1), tmp_path / "run")
    assert (result.steps, result.ended_by) == (10, "max-minutes")


def test_a_run_interrupted_after_its_time_was_over_makes_no_more_steps(tmp_path, monkeypatch):
    real = loop.evaluate

    def interrupted(*arguments, **keywords):
        signal.raise_signal(signal.SIGINT)
        return real(*arguments, **keywords)

    monkeypatch.setattr(loop, "evaluate", interrupted)
    with pytest.raises(train.Interrupted):
        go(change(max_minutes=1e-9), tmp_path / "run")
    monkeypatch.undo()
    result = again(tmp_path / "run")
    assert (result.steps, result.ended_by, len(result.metrics)) == (1, "max-minutes", 1)


def test_the_rest_of_a_short_epoch_is_divided_by_its_own_steps(tmp_path, monkeypatch):
    seen = watch(monkeypatch, loop.Training, "_note")
    result = go(change(max_minutes=1e-9), tmp_path / "run")
    ((_, outcome), _, _) = seen[0]
    assert len(seen) == 1
    assert (result.metrics[0]["train_loss"], result.metrics[0]["train_accuracy"]) == (
        outcome.loss,
        outcome.correct / 20,
    )


def test_a_run_that_gets_no_better_ends(tmp_path, monkeypatch):
    accuracies = iter([0.3, 0.5, 0.5, 0.4, 0.75])  # four validations and the test
    real = loop.evaluate
    monkeypatch.setattr(
        loop, "evaluate", lambda *a, **k: dataclasses.replace(real(*a, **k), accuracy=next(accuracies), loss=1.0)
    )
    result = go(change(epochs=9, patience=2), tmp_path / "run")
    assert (len(result.metrics), result.best_epoch, result.ended_by) == (4, 2, "patience")
    assert result.test_accuracy == 0.75


def test_other_runs_say_how_they_ended(tmp_path):
    assert go(change(patience=1, epochs=1), tmp_path / "a").ended_by == "epochs"
    assert go(change(max_steps=3), tmp_path / "b").ended_by == "max-steps"


def test_a_run_that_must_overfit_learns_its_images(tmp_path, capsys):
    config = train.overfitting(change(overfit=20, lr=0.05), given={"lr"})
    assert (config.batch_size, config.epochs, config.flip, config.crop) == (20, 300, False, 0)
    parts = recipe.split(shapes(), config)
    np.testing.assert_array_equal(parts.x_train, parts.x_validation)
    assert len(parts.y_train) == 20
    config = dataclasses.replace(config, epochs=30, widths=(8, 16), test_images=20)
    result = train.train(config, folder=tmp_path / "run", dataset=shapes(), progress="plain")
    assert result.validation_accuracy == 1.0
    assert "overfit: 100.00% of the 20 images it was trained on: it can learn" in capsys.readouterr().out


REFUSED = {
    "parts_that_do_not_divide": ({"accumulate": 3}, "accumulate must divide batch_size, got accumulate=3"),
    "tf32_of_float64": (
        {"precision": "tf32", "dtype": "float64"},
        "precision tf32 rounds factors of float32: leave dtype at float32, got float64",
    ),
    "float16_of_float64": ({"precision": "float16", "dtype": "float64"}, "leave dtype at float32, got float64"),
    "bfloat16_of_float64": (
        {"precision": "bfloat16", "dtype": "float64"},
        "precision bfloat16 keeps its weights in float32",
    ),
    "average_that_never_moves": ({"ema": 1.0}, "ema must be below 1"),
    "patience_without_validation": ({"patience": 2, "validation": 0}, "patience=2 needs validation images"),
    "unknown_views": ({"tta": "flop"}, "tta 'flop' is not known; did you mean \"flip\""),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        change(**settings)


def test_overfitting_chooses_batches_and_epochs():
    config = train.overfitting(change(overfit=10))
    assert (config.batch_size, config.epochs, config.flip) == (10, 300, False)
    for accumulate, kept in ((5, 5), (10, 10), (4, 1), (6, 1)):  # parts of a batch must be of one size
        assert train.overfitting(change(overfit=10, batch_size=60, accumulate=accumulate)).accumulate == kept
    with pytest.raises(ConfigError, match="overfit must say how many"):
        train.overfitting(TINY)


def test_more_images_to_overfit_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="300 training images, too few for overfit=301"):
        recipe.split(shapes(), change(overfit=301))


# A dry run ----------------------------------------------------------------------------------------------------------

HELD = {
    "plain": ({"dtype": "float64"}, 3 * 8, 8),
    "average_and_parts": ({"ema": 0.9, "accumulate": 2}, 5 * 4, 4),
    "adam": ({"optimizer": "adam", "lr": 1e-3}, 4 * 4, 4),
}


@pytest.mark.parametrize(("settings", "bytes_a_weight", "size"), HELD.values(), ids=HELD.keys())
def test_a_dry_run_counts_what_a_run_holds(settings, bytes_a_weight, size):
    config = change(**settings)
    found = train.rehearse(config, progress="none", dataset=shapes())
    megabytes = (found.weight_bytes + found.activation_bytes + found.data_bytes) / 2**20
    assert repr(found).startswith(f"Rehearsal({found.steps} steps, about ")
    assert repr(found).endswith(f", {megabytes:.1f} MiB)")
    weights = 4 * 3 * 9 + 2 * 4 + (4 * 16 * 16 + 1) * 10
    statistics = 2 * 4 * size * (2 if config.ema else 1)
    assert found.weight_bytes == weights * bytes_a_weight + statistics
    outputs = 3 * 32 * 32 + 2 * 4 * 32 * 32 + 3 * 4 * 16 * 16 + 10  # pictures; conv, bn; pool, relu, flatten; affine
    assert found.activation_bytes == outputs * size * 20 // config.accumulate
    assert found.data_bytes == (200 + 100 + 60) * 3 * 32 * 32
    assert found.steps == 20


def test_a_dry_run_counts_images_to_overfit_once():
    config = train.overfitting(change(overfit=20))
    found = train.rehearse(config, progress="none", dataset=shapes())
    assert found.data_bytes == (20 + 60) * 3 * 32 * 32


def test_a_dry_run_downloads_nothing(monkeypatch):
    seen = watch(monkeypatch, data, "load")
    monkeypatch.setattr(sources, "draw_shapes", lambda seed: shapes())
    train.rehearse(TINY, progress="none")
    assert [keywords["download"] for _, keywords, _ in seen] == [False]


def test_a_dry_run_wants_tensorboard_as_a_run_does(monkeypatch):
    def missing():
        msg = "no tensorboard"
        raise ConfigError(msg)

    monkeypatch.setattr(rehearsal, "check_tensorboard", missing)
    with pytest.raises(ConfigError, match="no tensorboard"):
        train.rehearse(change(tensorboard=True), progress="none", dataset=shapes())


# A new net looks at the data ----------------------------------------------------------------------------------------


def test_a_new_net_is_prepared_once_with_plain_images_and_a_resumed_one_never(tmp_path, monkeypatch):
    seen = watch(monkeypatch, nn.Net, "prepare")
    interrupt(tmp_path / "run", TINY, step=3)
    assert len(seen) == 1
    ((_, x), _, _) = seen[0]
    pictures = shapes()
    wanted = ops.augment(pictures.x_train[:200], mean=pictures.mean, std=pictures.std, channels_last=True)
    assert (x.dtype, x.strides) == (np.float32, wanted.strides)
    np.testing.assert_array_equal(x, wanted)
    again(tmp_path / "run")
    assert len(seen) == 1


@pytest.mark.parametrize("settings", [{"ema": 0.9}, {"precision": "float16"}], ids=["average", "float16"])
def test_the_average_and_the_float16_copies_start_from_the_prepared_net(settings, monkeypatch):
    def prepare(self, x):
        self.flat_params[...] = 0.5

    monkeypatch.setattr(nn.Net, "prepare", prepare)
    run = loop.Training(change(**settings), shapes(), Progress())
    run.prepare()
    if run.stepper.average is not None:
        assert set(run.stepper.average.state["params"]) == {np.float32(0.5)}
    else:
        assert set(run.net.copies.flat) == {np.float16(0.5)}


# Batches ahead ------------------------------------------------------------------------------------------------------


def feed_of(config: Config = TINY) -> feed.Feed:
    pictures = shapes()
    split = recipe.split(pictures, config)
    return feed.Feed(split.x_train, split.y_train, config, mean=pictures.mean, std=pictures.std)


def feeders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gpuconv-feed")]


@pytest.mark.parametrize("parts", [1, 2])
def test_batches_made_ahead_are_those_made_in_order(parts, monkeypatch):
    config = change(accumulate=parts)
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        with feed_of(config) as source:
            found.append(list(source.epoch(1, 2, 10)))
            assert bool(feeders()) == (threads == "2")
    assert len(found[0]) == 8
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        assert len(one.parts) == parts
        for (x, y), (other_x, other_y) in zip(one.parts, other.parts, strict=True):
            assert x.tobytes() == other_x.tobytes()
            np.testing.assert_array_equal(y, other_y)
    assert feeders() == []


def test_an_error_in_making_a_batch_arrives_where_the_batch_is_wanted(monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "2")
    real, calls = feed.ops.augmentation.augment_batch, []

    def third_fails(*arguments, **keywords):
        calls.append(threading.current_thread().name)
        if len(calls) == 3:
            raise ZeroDivisionError
        return real(*arguments, **keywords)

    monkeypatch.setattr(feed.ops.augmentation, "augment_batch", third_fails)
    came = []
    with pytest.raises(ZeroDivisionError), feed_of() as source:
        came.extend(source.epoch(0, 0, 10))
    assert len(came) == 2  # those before it
    assert {name.rsplit("_", 1)[0] for name in calls} == {"gpuconv-feed"}
    assert feeders() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_no_thread_is_left_after_an_error_in_a_step(error, tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "2")
    real, calls = Stepper.step, []

    def fails(self, *arguments):
        calls.append(feeders())
        if len(calls) == 4:
            raise error
        real(self, *arguments)

    monkeypatch.setattr(Stepper, "step", fails)
    with pytest.raises(error):
        go(TINY, tmp_path / "run")
    assert all(len(names) == 1 for names in calls)
    assert feeders() == []


# Test-time views ----------------------------------------------------------------------------------------------------


def test_the_views_and_their_weights():
    images = np.arange(2 * 1 * 3 * 3, dtype=np.uint8).reshape(2, 1, 3, 3)
    assert [weight for weight, _ in evaluation.views(images, "none")] == [1.0]
    (one, same), (other, mirrored) = evaluation.views(images, "flip")
    assert (one, other) == (0.5, 0.5)
    np.testing.assert_array_equal(same, images)
    np.testing.assert_array_equal(mirrored, np.flip(images, 3))
    six = list(evaluation.views(images, "flip+shift"))
    assert [weight for weight, _ in six] == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    np.testing.assert_array_equal(six[2][1][0, 0], [[4, 3, 4], [1, 0, 1], [4, 3, 4]])  # moved down and right
    np.testing.assert_array_equal(six[4][1][0, 0], [[4, 5, 4], [7, 8, 7], [4, 5, 4]])
    np.testing.assert_array_equal(six[3][1], six[2][1][:, :, :, ::-1])
    wide = np.random.default_rng(0).integers(0, 256, (3, 2, 5, 7), np.uint8)
    framed = np.pad(wide, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    views = [view for _, view in evaluation.views(wide, "flip+shift")]
    for pair, plain in zip((0, 2, 4), (wide, framed[:, :, :5, :7], framed[:, :, 2:, 2:]), strict=True):
        np.testing.assert_array_equal(views[pair], plain)
        np.testing.assert_array_equal(views[pair + 1], plain[:, :, :, ::-1])
    assert all(view.flags.c_contiguous for view in views)


def test_views_average_the_scores():
    pictures, net = shapes(), nn.ConvNet(4, seed=3)
    labels = pictures.y_test[:20]
    wanted = 0
    for weight, images in evaluation.views(pictures.x_test[:20], "flip+shift"):
        x = ops.augment(images, mean=pictures.mean, std=pictures.std, channels_last=True)
        wanted = wanted + weight * net.forward(x)
    found = train.evaluate(
        net, pictures.x_test[:20], labels, mean=pictures.mean, std=pictures.std, classes=10, tta="flip+shift"
    )
    assert found.accuracy == (wanted.argmax(axis=1) == labels).mean()
    assert found.loss == float(ops.softmax_cross_entropy(wanted, labels)[0])


def test_unknown_views_are_refused():
    with pytest.raises(ParamError, match="tta must be one of none, flip, flip\\+shift, got 'all'"):
        train.evaluate(None, [0], [0], mean=(), std=(), classes=1, tta="all")


def test_both_test_accuracies_are_in_the_result_and_validation_has_no_views(tmp_path, monkeypatch):
    seen = watch(monkeypatch, loop, "evaluate")
    result = go(change(tta="flip"), tmp_path / "run")
    assert [keywords["tta"] for _, keywords, _ in seen] == ["none", "none", "none", "flip"]
    record = json.loads((result.folder / "result.json").read_text())
    assert record["test_accuracy"] == result.test_accuracy == seen[2][2].accuracy
    assert record["test_accuracy_tta"] == result.test_accuracy_tta == seen[3][2].accuracy
    assert go(TINY, tmp_path / "plain").test_accuracy_tta is None


def test_the_snapshot_of_another_version_with_a_strange_scale_is_refused(tmp_path):
    result = go(change(precision="float16", max_steps=1), tmp_path / "run")
    there = checkpoint.load(result.folder / "last.safetensors")
    run = loop.Training(change(precision="float16"), shapes(), Progress())
    strange = dataclasses.replace(there, loss_scale={"colour": 3})
    with pytest.raises(CheckpointMismatchError, match="does not fit this run"):
        strange.restore(run.net, run.stepper.optimiser, None, run.stepper.arithmetic.scale)
