"""Training: the right numbers, the same numbers after any interruption, and clear ends."""

from __future__ import annotations

import dataclasses
import getpass
import json
import math
import platform
import signal
import threading
import tomllib
from pathlib import Path

import numpy as np
import pytest
from train_helpers import (
    TINY,
    again,
    assert_same_run,
    change,
    go,
    interrupt,
    metrics,
    names,
    run_state,
    shapes,
    watch,
)

from gpuconv import data, durable, train
from gpuconv.backend import using
from gpuconv.cuda.device import gpu_status
from gpuconv.errors import (
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointWriteError,
    ConfigError,
    GpuUnavailableError,
    NonFiniteLossError,
)
from gpuconv.random import Stream, words
from gpuconv.runs import checkpoint, journal, sealed
from gpuconv.runs.folder import RunFolder, new_folder
from gpuconv.runs.settings import read
from gpuconv.train import Config, Interrupted, Run, Stepper, feed, loop, precision, recipe, start


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of TINY from the first step to the last."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return go(TINY, folder)


# The numbers --------------------------------------------------------------------------------------------------------


def losses(config: Config, steps: int, tmp_path: Path, monkeypatch) -> list[float]:
    """Return the losses of a run's first steps."""
    seen = watch(monkeypatch, loop.Training, "_note")
    go(dataclasses.replace(config, epochs=1, max_steps=steps), tmp_path / config.dtype)
    return [outcome.loss for (_, outcome), _, _ in seen]


FIVE = change(widths=(4, 8), lr=0.05, schedule="constant")


@pytest.fixture(scope="module")
def torch_losses():
    """The first five losses of FIVE as PyTorch computes them, in float64, from the same weights and pictures."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    pictures = shapes()
    net = recipe.net(change(widths=(4, 8), dtype="float64"), (3, 32, 32), 10)
    weights = {name: torch.tensor(array, requires_grad=True) for name, array in net.params.items()}
    decayed = [weight for name, weight in weights.items() if name.endswith(".w")]
    others = [weight for name, weight in weights.items() if not name.endswith(".w")]
    groups = [{"params": decayed, "weight_decay": FIVE.weight_decay}, {"params": others}]
    optimiser = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    found = []
    order = np.argsort(words(200, seed=0, stream=Stream.SHUFFLE, step=0), kind="stable")
    draws = words(200, seed=0, stream=Stream.AUGMENT, step=0)
    for step in range(5):
        batch = order[20 * step : 20 * step + 20]
        x = torch.tensor(np.stack([moved(pictures.x_train[i], int(draws[i])) for i in batch]))
        mean, std = (torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in (pictures.mean, pictures.std))
        x = (x / 255 - mean) / std
        for stage in (1, 2):
            x = functional.conv2d(x, weights[f"conv{stage}.w"], padding=1)
            gamma, beta = weights[f"bn{stage}.gamma"], weights[f"bn{stage}.beta"]
            x = functional.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-5)
            x = functional.max_pool2d(x, 2).relu()
        scores = x.flatten(1) @ weights["affine1.w"] + weights["affine1.b"]
        loss = functional.cross_entropy(scores, torch.tensor(pictures.y_train[batch]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    return found


def moved(picture: np.ndarray, draw: int) -> np.ndarray:
    """Shift a picture by up to 4 pixels and mirror it, as ops.augment defines it."""
    down, right = ((draw & 0xFFFF) * 9 >> 16, (draw >> 16 & 0xFFFF) * 9 >> 16)
    framed = np.pad(picture.astype(np.float64), ((0, 0), (4, 4), (4, 4)))
    cut = framed[:, down : down + 32, right : right + 32]
    return cut[:, :, ::-1].copy() if draw >> 32 & 1 else cut.copy()


# What the run with seed 0 gives, here and everywhere: PyTorch's losses above, for where PyTorch is not installed.
GOLDEN = [2.8795402222159154, 3.114362216155997, 3.389269768239841, 3.09757370142072, 2.673834059118273]


def allowed(step: int, dtype: str) -> float:
    """Return the relative error a loss may have after so many updates.

    The operators' rule for zero-mean data, 8 u of each sum's size, for five layers there and back, once per step.
    """
    unit = 2.0**-24 if dtype == "float32" else 2.0**-53
    return (step + 1) * 5 * 2 * 8 * unit


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_first_losses_are_the_golden_ones(dtype, tmp_path, monkeypatch):
    found = losses(dataclasses.replace(FIVE, dtype=dtype), 5, tmp_path, monkeypatch)
    for step, (loss, golden) in enumerate(zip(found, GOLDEN, strict=True)):
        assert abs(loss - golden) <= allowed(step, dtype) * golden


def test_the_golden_losses_are_those_of_pytorch(torch_losses):
    for step, (theirs, golden) in enumerate(zip(torch_losses, GOLDEN, strict=True)):
        assert abs(theirs - golden) <= allowed(step, "float64") * golden


def test_each_epoch_has_an_order_and_draws_of_its_own(tmp_path, monkeypatch):
    seen = watch(monkeypatch, feed.ops.augmentation, "augment")
    go(change(batch_size=30, seed=5), tmp_path / "run")
    assert len(seen) == 12
    pictures = shapes()
    for epoch in range(2):
        order = np.argsort(words(200, seed=5, stream=Stream.SHUFFLE, step=epoch), kind="stable")
        draws = words(200, seed=5, stream=Stream.AUGMENT, step=epoch)
        for number in range(6):  # 20 pictures are left out: they do not fill a batch
            (found, found_draws), settings, _ = seen[6 * epoch + number]
            batch = order[30 * number : 30 * number + 30]
            np.testing.assert_array_equal(found, pictures.x_train[batch])
            np.testing.assert_array_equal(found_draws, draws[batch])
            assert (settings["pad"], settings["flip"]) == (4, True)


@pytest.mark.parametrize("how", [{"cutout": 7}, {"pad_mode": "reflect", "crop": 3}, {"flip_mode": "alternate"}])
def test_the_ways_to_augment_are_those_of_the_settings(how, tmp_path, monkeypatch):
    seen = watch(monkeypatch, feed.ops.augmentation, "augment")
    config = change(crop=0, flip="flip_mode" in how)
    go(dataclasses.replace(config, **how), tmp_path / "run")
    expected = {"pad": 0, "pad_mode": "zero", "cutout": 0, "flip": config.flip} | how | {"pad": how.get("crop", 0)}
    alternate = expected.pop("flip_mode", "random") == "alternate"
    expected.pop("crop", None)
    for epoch in range(2):
        order = np.argsort(words(200, seed=config.seed, stream=Stream.SHUFFLE, step=epoch), kind="stable")
        draws = data.epoch_draws(200, seed=config.seed, epoch=epoch, alternate_flip=alternate)
        (_, found), settings, _ = seen[10 * epoch]
        np.testing.assert_array_equal(found, draws[order[:20]])
        assert {name: settings[name] for name in expected} == expected


def test_each_step_has_its_number_and_its_rate(tmp_path, monkeypatch):
    forwards = watch(monkeypatch, loop.nn.Net, "forward")
    updates = watch(monkeypatch, loop.nn.Optimiser, "step")
    result = go(TINY, tmp_path / "run")
    assert [keywords["step"] for _, keywords, _ in forwards if keywords.get("training")] == list(range(20))
    rates = [arguments[1] for arguments, _, _ in updates]
    up = [0.02 * (0.04 + 0.96 * step / 6) for step in range(6)]  # 0.3 of 20 steps
    down = [0.02 * (1 - (step - 6) / 14) for step in range(6, 20)]
    np.testing.assert_allclose(rates, up + down, rtol=1e-12)
    assert [row["learning_rate"] for row in result.metrics] == [rates[9], rates[19]]


def test_the_line_of_an_epoch_is_the_mean_of_its_steps(tmp_path, monkeypatch):
    seen = watch(monkeypatch, loop.Training, "_note")
    result = go(TINY, tmp_path / "run")
    for epoch, row in enumerate(result.metrics):
        outcomes = [outcome for (_, outcome), _, _ in seen[10 * epoch : 10 * epoch + 10]]
        assert row["train_loss"] == pytest.approx(np.mean([outcome.loss for outcome in outcomes]), rel=1e-12)
        assert row["train_accuracy"] == sum(outcome.correct for outcome in outcomes) / 200


@pytest.mark.long
def test_training_learns(tmp_path):
    config = change(widths=(8, 16), epochs=4, flip=False, crop=0, validation=300, train_images=0, test_images=0)
    result = train.train(config, folder=tmp_path / "run", dataset=data.draw_shapes(1500, 200), progress="none")
    assert result.metrics[-1]["train_loss"] < 0.6 * result.metrics[0]["train_loss"]
    assert result.validation_accuracy > 0.2  # chance is 0.1 with a deviation of 0.017
    assert result.test_accuracy > 0.2  # 0.021


def test_the_number_of_threads_changes_nothing(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "1")
    go(TINY, tmp_path / "run")
    assert_same_run(tmp_path / "run", finished.folder)


def test_a_run_repeats_from_its_config_file(finished, tmp_path):
    go(read(finished.folder / "config.toml"), tmp_path / "run")
    assert_same_run(tmp_path / "run", finished.folder)


def test_another_seed_is_another_run(finished, tmp_path):
    other = go(change(seed=1), tmp_path / "run")
    assert other.metrics[0]["train_loss"] != finished.metrics[0]["train_loss"]


# What a run leaves --------------------------------------------------------------------------------------------------


def test_the_folder_holds_what_it_promises(finished):
    assert names(finished.folder) == [
        ".lock", "best.safetensors", "config.toml", "env.json", "events.jsonl", "last.safetensors", "metrics.csv",
        "origin.json", "report.html", "result.json",
    ]  # fmt: skip
    assert read(finished.folder / "config.toml") == TINY


def test_the_metrics_are_those_of_the_result(finished):
    rows = metrics(finished.folder)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["10", "20"]
    for row, wanted in zip(rows, finished.metrics, strict=True):
        assert {name: float(text) for name, text in row.items()} == {k: v for k, v in wanted.items() if k != "seconds"}


@pytest.mark.parametrize(("third", "best"), [((0.5, 1.0), 2), ((0.5, 0.9), 3), ((0.49, 0.1), 2), ((0.51, 9.0), 3)])
def test_the_best_epoch_has_the_highest_accuracy_and_of_equals_the_lowest_loss(third, best, tmp_path, monkeypatch):
    told = iter([(0.3, 0.5), (0.5, 1.0), third, (0.4, 0.1), (0.75, 0.2)])  # four validations and the test
    real = loop.evaluate

    def evaluate(*arguments, **keywords):
        accuracy, loss = next(told)
        return dataclasses.replace(real(*arguments, **keywords), accuracy=accuracy, loss=loss)

    monkeypatch.setattr(loop, "evaluate", evaluate)
    result = go(change(epochs=4), tmp_path / "run")
    expected = third[0] if best == 3 else 0.5
    assert (result.best_epoch, result.validation_accuracy, result.test_accuracy) == (best, expected, 0.75)
    assert run_state(result.folder / "best.safetensors")[1]["position"]["epoch"] == best
    assert run_state(result.folder / "last.safetensors")[1]["position"]["epoch"] == 4


def test_the_test_accuracy_is_that_of_the_best_checkpoint(finished):
    net = train.load_net(finished.folder / "best.safetensors")
    pictures = shapes()
    found = train.evaluate(
        net, pictures.x_test[:60], pictures.y_test[:60], mean=pictures.mean, std=pictures.std, classes=10
    )
    assert (found.accuracy, found.loss) == (finished.test_accuracy, finished.test_loss)


def test_a_checkpoint_may_be_named_by_a_string(finished):
    path = finished.folder / "best.safetensors"
    assert train.load_net(str(path)).config == train.load_net(path).config


def test_the_result_says_what_was_measured_on_what(finished):
    text = (finished.folder / "result.json").read_text()
    record = json.loads(text)
    assert record["data"] == shapes().name
    assert record["test_accuracy"] == finished.test_accuracy
    assert record["validation_accuracy"] == finished.validation_accuracy
    assert (record["training_images"], record["validation_images"], record["test_images"]) == (200, 100, 60)
    assert (record["epochs"], record["steps"]) == (2, 20)
    assert record["seconds"] > 0
    assert record["images_per_second"] > 0
    assert set(record["test_accuracy_by_class"]) == set(shapes().classes)
    assert set(record["versions"]) == {"gpuconv", "python", "numpy", "blas", "safetensors"}
    assert record["machine"]["threads"] >= 1
    assert record["machine"]["processor"]
    assert record["date"].endswith("+00:00")
    assert record["config"]["widths"] == [4]


def test_the_result_does_not_say_whose_machine_it_was(finished):
    text = (finished.folder / "result.json").read_text()
    for secret in (
        str(finished.folder),
        str(Path.home()),
        str(Path.cwd()),
        platform.node(),
        "data_dir",
        "site-packages",
    ):
        assert secret not in text
    assert f'"{getpass.getuser()}"' not in text


def test_the_split_holds_the_last_images_out():
    pictures = shapes()
    parts = recipe.split(pictures, change(train_images=0, test_images=0))
    assert np.shares_memory(parts.x_train, pictures.x_train)
    np.testing.assert_array_equal(parts.y_train, pictures.y_train[:200])
    np.testing.assert_array_equal(parts.y_validation, pictures.y_train[200:])
    np.testing.assert_array_equal(parts.x_validation, pictures.x_train[200:])
    np.testing.assert_array_equal(parts.y_test, pictures.y_test)
    fewer = recipe.split(pictures, change(train_images=50, test_images=7))
    assert (len(fewer.y_train), len(fewer.y_validation), len(fewer.y_test)) == (50, 100, 7)
    np.testing.assert_array_equal(fewer.x_validation, pictures.x_train[200:])
    np.testing.assert_array_equal(fewer.y_validation, pictures.y_train[200:])


# Other shapes of a run ----------------------------------------------------------------------------------------------

RECIPES = {
    "sgd_without_momentum": {"momentum": 0.0, "nesterov": False},
    "rmsprop": {"optimizer": "rmsprop", "lr": 1e-3},
    "adam_float64": {"optimizer": "adam", "lr": 1e-3, "dtype": "float64"},
    "adamw_cosine": {"optimizer": "adamw", "lr": 1e-3, "schedule": "cosine"},
    "three_layer_step": {"net": "three-layer", "filters": 3, "hidden": 8, "schedule": "step", "lr_every": 1},
    "no_augmentation": {"flip": False, "crop": 0, "label_smoothing": 0.1},
    "no_validation": {"validation": 0},
    "odd_last_batch": {"batch_size": 30, "checkpoint_every": 4},
    "two_stages": {"widths": (2, 3)},
}


@pytest.mark.long
@pytest.mark.parametrize("settings", RECIPES.values(), ids=RECIPES.keys())
def test_every_recipe_resumes_to_the_same_bits(settings, tmp_path):
    config = change(**settings)
    whole = go(config, tmp_path / "whole")
    interrupt(tmp_path / "parts", config, step=9)
    result = again(tmp_path / "parts")
    assert_same_run(tmp_path / "parts", whole.folder)
    assert (result.test_accuracy, result.test_loss) == (whole.test_accuracy, whole.test_loss)


def test_without_validation_the_last_epoch_is_the_best(tmp_path):
    result = go(change(validation=0), tmp_path / "run")
    assert (result.best_epoch, result.validation_accuracy) == (2, None)
    assert [row["validation_accuracy"] for row in metrics(result.folder)] == ["", ""]


def test_max_steps_ends_within_an_epoch(tmp_path):
    whole = go(change(max_steps=13), tmp_path / "whole")
    assert [row["step"] for row in whole.metrics] == [10, 13]
    assert whole.steps == 13
    interrupt(tmp_path / "parts", change(max_steps=13), step=12)
    again(tmp_path / "parts")
    assert_same_run(tmp_path / "parts", whole.folder)


SCHEDULES = {
    "constant": ({"schedule": "constant"}, {0: 0.1, 39: 0.1}),
    "step_every_second_epoch": ({"schedule": "step", "lr_every": 2}, {0: 0.1, 19: 0.1, 20: 0.01, 39: 0.01}),
    "cosine_without_warmup": ({"schedule": "cosine", "warmup": 0.0}, {0: 0.1, 20: 0.05}),
    "cosine_to_an_end": ({"schedule": "cosine", "warmup": 0.0, "lr_end": 0.5}, {0: 0.1, 20: 0.075}),
    "one_cycle": ({"warmup": 0.5, "lr_start": 0.2, "lr_end": 0.1}, {0: 0.02, 10: 0.06, 20: 0.1, 30: 0.055}),
    "one_cycle_cosine": ({"warmup": 0.5, "lr_start": 0.0, "lr_curve": "cosine"}, {5: 0.1 * (1 - 0.5**0.5) / 2}),
    "a_warm_up_rises_no_faster_than_in_so_many_steps": (
        {"warmup": 0.5, "lr_start": 0.0, "warmup_steps": 40},
        {0: 0.0, 10: 0.025, 20: 0.05, 26: 0.065, 30: 0.05, 39: 0.005},
    ),
    "nor_does_that_of_cosine": ({"schedule": "cosine", "warmup": 0.25, "warmup_steps": 19}, {0: 0.005, 9: 0.05}),
    "a_long_one_is_left_alone": ({"warmup": 0.5, "lr_start": 0.2, "warmup_steps": 20}, {0: 0.02, 10: 0.06, 20: 0.1}),
    "no_warm_up_stays_none": ({"warmup": 0.0, "warmup_steps": 40}, {0: 0.1, 20: 0.05}),
    "of_a_limited_run": ({"warmup": 0.5, "max_steps": 20, "lr_start": 0.0}, {5: 0.05, 10: 0.1, 15: 0.05}),
}


@pytest.mark.parametrize(("settings", "rates"), SCHEDULES.values(), ids=SCHEDULES.keys())
def test_the_rate_follows_the_settings(settings, rates):
    config = change(epochs=4, lr=0.1, **settings)
    rate = recipe.schedule(config, recipe.plan(config, 200))
    assert {step: rate(step) for step in rates} == pytest.approx(rates, rel=1e-12)


# Going on -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 9, 10, 11, 19, 20])
def test_a_run_interrupted_after_a_step_ends_in_the_same_bits(step, finished, tmp_path):
    """At both ends of a run and around the end of its first epoch; the next test stops it after each step."""
    interrupt(tmp_path / "run", TINY, step=step)
    assert run_state(tmp_path / "run" / "last.safetensors")[1]["optimizer"]["steps"] == step
    result = again(tmp_path / "run")
    assert_same_run(tmp_path / "run", finished.folder)
    assert (result.test_accuracy, result.test_loss) == (finished.test_accuracy, finished.test_loss)


def test_a_run_may_be_interrupted_many_times(finished, tmp_path, monkeypatch):
    real = Stepper.step

    def every_time(self, *arguments):
        signal.raise_signal(signal.SIGTERM)
        return real(self, *arguments)

    monkeypatch.setattr(Stepper, "step", every_time)
    with pytest.raises(Interrupted):
        go(TINY, tmp_path / "run")
    for _ in range(18):
        with pytest.raises(Interrupted):
            again(tmp_path / "run")
    monkeypatch.undo()
    again(tmp_path / "run")
    assert_same_run(tmp_path / "run", finished.folder)


@pytest.mark.parametrize("call", [1, 2, 3], ids=["first_validation", "second_validation", "final_test"])
def test_an_interrupted_evaluation_is_done_again(call, finished, tmp_path, monkeypatch):
    real, calls = loop.evaluate, []

    def watched(*arguments, **keywords):
        calls.append(None)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, **keywords)

    monkeypatch.setattr(loop, "evaluate", watched)
    with pytest.raises(Interrupted):
        go(TINY, tmp_path / "run")
    monkeypatch.undo()
    assert not (tmp_path / "run" / "result.json").exists()
    steps = run_state(tmp_path / "run" / "last.safetensors")[1]["optimizer"]["steps"]
    assert steps == min(10 * call, 20)  # no step was lost
    result = again(tmp_path / "run")
    assert_same_run(tmp_path / "run", finished.folder)
    assert result.test_accuracy == finished.test_accuracy


def test_a_signal_at_the_very_end_is_not_swallowed(finished, tmp_path, monkeypatch):
    real = RunFolder.write_result

    def late(self, result):
        real(self, result)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RunFolder, "write_result", late)
    with pytest.raises(Interrupted):
        go(TINY, tmp_path / "run")
    assert again(tmp_path / "run").test_accuracy == finished.test_accuracy


def test_a_finished_short_run_knows_its_steps(tmp_path, capsys):
    go(change(max_steps=13), tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    train.resume(tmp_path / "run", dataset=shapes(), progress="plain")
    assert f"going on with {tmp_path / 'run'} after step 13\n" in capsys.readouterr().out


_LOOPS = "compiled loops, numba 0.68.1, 256-bit vectors"
# how the run was begun, the machine there, how it goes on, whether that is told
_WAYS = {
    "the_same": (_LOOPS, {}, _LOOPS, False),
    "other_vectors": ("compiled loops, numba 0.68.1, 512-bit vectors", {}, _LOOPS, True),
    "loops_then_arrays": (_LOOPS, {}, "NumPy alone", True),
    "arrays_then_loops": ("NumPy alone", {}, _LOOPS, True),
    "before_there_were_loops": (None, {}, "NumPy alone", False),
    "on_a_gpu": ("NumPy alone", {"gpu": "a GPU"}, _LOOPS, False),
}


@pytest.mark.parametrize(("begun", "machine", "here", "differs"), _WAYS.values(), ids=_WAYS)
def test_a_run_that_goes_on_another_way_than_it_was_begun_says_so(
    begun, machine, here, differs, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    with using("cpu"):
        go(change(max_steps=2), run)
        (run / "result.json").unlink()
        environment = json.loads((run / "env.json").read_text())
        environment["machine"] |= {"loops": begun, **machine}
        if begun is None:
            del environment["machine"]["loops"]
        (run / "env.json").write_text(json.dumps(environment))
        monkeypatch.setattr(start, "loops_in_words", lambda: here)
        train.resume(run, dataset=shapes(), progress="plain")
    line = (
        f"begun with {begun}, goes on with {here}: its numbers may differ in the last bits from those of one way alone"
    )
    assert (f"{run}: {line}\n" in capsys.readouterr().out) == differs
    notices = [event["message"] for event in journal.read(run) if event["event"] == "notice"]
    assert notices == ([line] if differs else [])


@pytest.mark.parametrize("content", [None, "", "[]", '{"machine": 3}', '{"machine": {"loops": 3}}'])
def test_a_run_whose_environment_is_not_known_goes_on(content, tmp_path, capsys):
    run = tmp_path / "run"
    go(change(max_steps=2), run)
    (run / "result.json").unlink()
    (run / "env.json").unlink()
    if content is not None:
        (run / "env.json").write_text(content)
    train.resume(run, dataset=shapes(), progress="plain")
    assert "begun with" not in capsys.readouterr().out


def test_a_finished_run_is_not_trained_again(finished):
    before = {path.name: path.read_bytes() for path in finished.folder.iterdir()}
    result = again(finished.folder)
    assert {path.name: path.read_bytes() for path in finished.folder.iterdir()} == before
    for name in ("data", "metrics", "best_epoch", "validation_accuracy", "test_accuracy", "steps", "seconds"):
        assert getattr(result, name) == getattr(finished, name)


@pytest.mark.parametrize("content", [None, b"{}", b"not json", b"[]"])
def test_a_lost_result_is_made_again(content, finished, tmp_path):
    result = go(TINY, tmp_path / "run")
    path = tmp_path / "run" / "result.json"
    old = json.loads(path.read_text())
    path.unlink() if content is None else path.write_bytes(content)
    assert again(tmp_path / "run").test_accuracy == result.test_accuracy
    new = json.loads(path.read_text())
    assert {**new, "date": None} == {**old, "date": None}


def test_a_finished_run_that_goes_on_from_its_best_epoch_has_no_result_until_it_ends(tmp_path, monkeypatch):
    accuracies = iter([0.5, 0.3, 0.4])  # two validations and the test
    real = loop.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", lambda *a, **k: dataclasses.replace(real(*a, **k), accuracy=next(accuracies)))
        go(TINY, tmp_path / "run")
    folder = tmp_path / "run"

    def dies(self):
        assert not {"result.json", "report.html"} & set(names(folder))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # before the first checkpoint, and before the first step
        for name in ("save_last", "go"):
            patch.setattr(loop.Training, name, dies)
            with pytest.raises(KeyboardInterrupt):
                again(folder / "best.safetensors")
            patch.undo()
    assert not train.Run(folder).finished
    assert again(folder / "best.safetensors").test_accuracy != 0.4
    assert train.Run(folder).finished


def test_the_result_of_another_length_is_not_that_of_the_run(tmp_path):
    result = go(TINY, tmp_path / "run")
    path = tmp_path / "run" / "result.json"
    old = json.loads(path.read_text())
    path.write_text(json.dumps({**old, "steps": 13, "test_accuracy": 2.0}))
    assert again(tmp_path / "run").test_accuracy == result.test_accuracy
    assert json.loads(path.read_text())["steps"] == 20


def test_the_checkpoint_that_is_passed_on_holds_no_path(tmp_path):
    place = tmp_path / "secret" / "place"
    for name, settings in {"files": {"data_dir": str(place)}, "pictures": {"data": f"{place}/pets"}}.items():
        config = change(**settings)
        folder = tmp_path / name
        go(config, folder)
        assert b"secret" not in (folder / "best.safetensors").read_bytes()
        assert b"secret" in (folder / "last.safetensors").read_bytes()
        assert checkpoint.load(folder / "best.safetensors").config == config  # by config.toml beside it
        (tmp_path / f"{name}.safetensors").write_bytes((folder / "best.safetensors").read_bytes())
        alone = checkpoint.load(tmp_path / f"{name}.safetensors").config
        assert (alone.data, alone.data_dir) == ("./pets" if name == "pictures" else "shapes", "")
        interrupt(tmp_path / f"{name}-parts", config, step=17)
        (tmp_path / f"{name}-parts" / "last.safetensors").unlink()
        again(tmp_path / f"{name}-parts" / "best.safetensors")
        assert_same_run(tmp_path / f"{name}-parts", folder)


def test_settings_edited_beside_the_best_checkpoint_are_refused_with_their_names(tmp_path):
    go(change(data_dir="/somewhere"), tmp_path / "run")
    path = tmp_path / "run" / "config.toml"
    path.write_text(path.read_text().replace("epochs = 2", "epochs = 3"))
    with pytest.raises(CheckpointMismatchError, match=r"with \(epochs 2 -> 3\)"):
        again(tmp_path / "run" / "best.safetensors")


def test_lines_after_the_checkpoint_are_dropped_and_stale_files_removed(finished, tmp_path):
    folder = tmp_path / "run"
    interrupt(folder, TINY, step=15)
    with (folder / "metrics.csv").open("a") as file:
        file.write(
            "2,20,1.5,0.3,1.5,0.3,0.001,2.5\n3,30,1."
        )  # an epoch that the checkpoint does not know, and a torn line
    (folder / ".last.safetensors.0123.part").write_bytes(b"half a checkpoint")
    again(folder)
    assert_same_run(folder, finished.folder)
    assert not list(folder.glob(".*.part"))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 16
    path.write_bytes(content)


def test_a_corrupt_last_checkpoint_is_not_used_and_the_best_is_named(finished, tmp_path):
    folder = tmp_path / "run"
    interrupt(folder, TINY, step=17)
    damage(folder / "last.safetensors")
    with pytest.raises(CheckpointCorruptError) as caught:
        again(folder)
    assert "last.safetensors is corrupt" in str(caught.value)
    assert f"gpuconv train --resume {folder / 'best.safetensors'}" in str(caught.value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Training, "go", lambda self: None)
        again(folder / "best.safetensors")
    assert run_state(folder / "last.safetensors")[1]["optimizer"]["steps"] == 10  # that of epoch 1, and sound again
    again(folder)
    assert_same_run(folder, finished.folder)


def test_with_both_checkpoints_corrupt_the_way_to_start_again_is_named(tmp_path):
    folder = tmp_path / "run"
    interrupt(folder, TINY, step=17)
    damage(folder / "last.safetensors")
    (folder / "best.safetensors").unlink()
    with pytest.raises(CheckpointCorruptError, match=r"to start again: gpuconv train --config .*config\.toml"):
        again(folder)


def test_a_missing_checkpoint_is_named(tmp_path):
    interrupt(tmp_path / "run", TINY, step=3)
    (tmp_path / "run" / "last.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"there is no checkpoint .*last\.safetensors; to start again"):
        again(tmp_path / "run")
    with pytest.raises(ConfigError, match="there is no run folder"):
        again(tmp_path / "other")


def test_edited_settings_are_refused_with_their_names(tmp_path):
    interrupt(tmp_path / "run", TINY, step=3)
    path = tmp_path / "run" / "config.toml"
    path.write_text(path.read_text().replace("epochs = 2", "epochs = 3"))
    with pytest.raises(CheckpointMismatchError, match="epochs 2 -> 3"):
        again(tmp_path / "run")


OTHER_DATA = {
    "another_name": ({"name": "CIFAR-10"}, "the data found here is CIFAR-10"),
    "other_labels": ({"y_train": (shapes().y_train + 1) % 10}, "another version of it"),
    "other_pictures": ({"x_train": 255 - shapes().x_train}, "another version of it"),
    "other_test_pictures": ({"x_test": 255 - shapes().x_test}, "another version of it"),
    "other_statistics": ({"mean": (0.5, 0.5, 0.5)}, "another version of it"),
}


@pytest.mark.parametrize(("changes", "message"), OTHER_DATA.values(), ids=OTHER_DATA.keys())
def test_other_data_is_noticed(changes, message, tmp_path):
    interrupt(tmp_path / "run", TINY, step=3)
    with pytest.raises(CheckpointMismatchError, match=message):
        train.resume(tmp_path / "run", dataset=dataclasses.replace(shapes(), **changes), progress="none")


def test_the_checkpoint_of_another_net_is_refused(finished):
    there = checkpoint.load(finished.folder / "last.safetensors")
    for settings, message in (
        ({"widths": (5,)}, r"holds another net: widths \[4\] there, \[5\] here"),
        ({"net": "three-layer", "filters": 2}, "holds another net: net 'ConvNet' there, 'ThreeLayerConvNet' here"),
        ({"optimizer": "adam"}, "does not fit this run: optimiser state does not fit"),
        ({"dtype": "float64"}, "holds another net: dtype 'float32' there, 'float64' here"),
    ):
        config = change(**settings)
        net = recipe.net(config, (3, 32, 32), 10)
        with pytest.raises(CheckpointMismatchError, match=message):
            there.restore(net, recipe.optimiser(config, net))


STRANGE = {
    "no_values": {},
    "unknown_setting": {"config": {"colour": 3}},
    "position_of_another_kind": {"position": {"page": 3}},
    "net_as_text": {"net": "ConvNet", "position": {}, "optimizer": {"steps": 0}},
}


@pytest.mark.parametrize("values", STRANGE.values(), ids=STRANGE.keys())
def test_a_sound_checkpoint_of_something_else_is_refused(values, tmp_path):
    path = tmp_path / "last.safetensors"
    good = {"config": {}, "net": {}, "data": {"name": "", "fingerprint": ""}, "position": {}, "optimizer": {"steps": 0}}
    sealed.write(path, {}, {**good, **values} if values else {})
    with pytest.raises(CheckpointMismatchError):
        train.load_net(path)


# Bad ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("step", [1, 2, 10, 11, 17, 20])
def test_a_loss_that_is_no_number_stops_before_the_update(bad, step, tmp_path, monkeypatch):
    real, calls = precision.ops.softmax_cross_entropy, []

    def injected(*arguments, **keywords):
        calls.append(None)
        loss, dscores = real(*arguments, **keywords)
        return (np.float32(bad), dscores) if len(calls) == step else (loss, dscores)

    monkeypatch.setattr(precision.ops, "softmax_cross_entropy", injected)
    with pytest.raises(NonFiniteLossError) as caught:
        go(change(checkpoint_every=4), tmp_path / "run")
    epoch, saved = (step - 1) // 10 + 1, max(point for point in (0, 4, 8, 10, 12, 16) if point < step)
    assert f"the loss is {bad} in epoch {epoch}, step {step}, at a learning rate of " in str(caught.value)
    assert f"The weights of step {saved} are kept in {tmp_path / 'run' / 'last.safetensors'}" in str(caught.value)
    assert run_state(tmp_path / "run" / "last.safetensors")[1]["optimizer"]["steps"] == saved


def test_a_gradient_that_is_no_number_stops_before_the_update(tmp_path, monkeypatch):
    real = precision.ops.softmax_cross_entropy

    def injected(*arguments, **keywords):
        loss, dscores = real(*arguments, **keywords)
        dscores[3, 3] = np.inf
        return loss, dscores

    monkeypatch.setattr(precision.ops, "softmax_cross_entropy", injected)
    with np.errstate(invalid="ignore"), pytest.raises(NonFiniteLossError, match="a gradient is NaN or infinite"):
        go(TINY, tmp_path / "run")
    assert run_state(tmp_path / "run" / "last.safetensors")[1]["optimizer"]["steps"] == 0


def test_a_validation_loss_that_is_no_number_stops_the_run(tmp_path, monkeypatch):
    real = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *a, **k: dataclasses.replace(real(*a, **k), loss=math.nan))
    with pytest.raises(NonFiniteLossError, match="the validation loss is nan in epoch 1, step 10"):
        go(TINY, tmp_path / "run")
    assert metrics(tmp_path / "run") == []


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_statistic_that_is_no_number_is_told_with_step_rate_and_way_out(epoch, clip_norm, tmp_path, monkeypatch):
    """Scores over an infinite variance are numbers: it is the checkpoint that refuses them."""
    real, calls = Stepper.step, []

    def step(self, *arguments):
        real(self, *arguments)
        calls.append(None)
        if len(calls) == 10 * epoch:
            self.net.state["bn1.running_var"][0] = np.inf

    monkeypatch.setattr(Stepper, "step", step)
    with pytest.raises(NonFiniteLossError) as caught:
        go(change(schedule="constant", clip_norm=clip_norm), tmp_path / "run")
    assert str(caught.value) == (
        f"state/bn1.running_var holds NaN or infinity in epoch {epoch}, step {10 * epoch}, at a learning rate of 0.02.  "
        f"The weights of step {10 * (epoch - 1)} are kept in {tmp_path / 'run' / 'last.safetensors'}; "
        f"lower lr (0.02 now){'' if clip_norm else ', or clip_norm=1'}; find_rate looks for a rate"
    )
    assert run_state(tmp_path / "run" / "last.safetensors")[1]["optimizer"]["steps"] == 10 * (epoch - 1)


GUESSING = math.log(10)
HIGH_LOSSES = {
    "above": ({}, {3: 3.1 * GUESSING}, [3]),
    "below": ({}, {3: 2.9 * GUESSING}, []),
    "only_once": ({}, {3: 4 * GUESSING, 5: 9 * GUESSING, 14: 9 * GUESSING}, [3]),
    "learning_by_heart": ({"overfit": 40}, {3: 9 * GUESSING}, []),
    "few_images": ({"batch_size": 4, "max_steps": 20}, {3: 9 * GUESSING}, []),
}


def _inject_losses(monkeypatch, losses):
    """Let steps, counted from 1, have these losses."""
    real, calls = precision.ops.softmax_cross_entropy, []

    def injected(*arguments, **keywords):
        _, dscores = real(*arguments, **keywords)
        calls.append(None)
        return np.float32(losses.get(len(calls), 1.0)), dscores

    monkeypatch.setattr(precision.ops, "softmax_cross_entropy", injected)


@pytest.mark.parametrize(("settings", "losses", "steps"), HIGH_LOSSES.values(), ids=HIGH_LOSSES.keys())
def test_a_loss_far_above_guessing_is_warned_of_once(settings, losses, steps, tmp_path, monkeypatch, capsys):
    _inject_losses(monkeypatch, losses)
    result = train.train(change(**settings), folder=tmp_path / "run", dataset=shapes(), progress="plain")
    warnings = [event for event in Run(result.folder).events if event["event"] == "warning"]
    assert [event["step"] for event in warnings] == steps
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("the rate is high") == len(steps)
    for event in warnings:
        assert event["epoch"] == 1
        assert event["message"] in shown
        assert event["message"] == (
            f"the loss of step 3 is {losses[3]:.3g}, where guessing among 10 classes would be at 2.3: "
            "the rate is high for a run of 20 steps, try lr=0.004, or what find_rate suggests"
        )


def test_a_run_that_goes_on_does_not_warn_again(tmp_path, monkeypatch):
    _inject_losses(monkeypatch, {3: 9 * GUESSING, 14: 9 * GUESSING, 20: math.nan})
    with pytest.raises(NonFiniteLossError):
        go(change(checkpoint_every=4), tmp_path / "run")
    _inject_losses(monkeypatch, {1: 9 * GUESSING})
    train.resume(tmp_path / "run", dataset=shapes(), progress="none")
    assert [event["step"] for event in Run(tmp_path / "run").events if event["event"] == "warning"] == [3]


@pytest.mark.parametrize("rate", [1e10, 1e38])
def test_a_rate_that_blows_up_ends_in_an_error_and_no_warning(rate, tmp_path):
    with pytest.raises(NonFiniteLossError):
        go(change(lr=rate), tmp_path / "run")
    assert not [
        name for name, entry in run_state(tmp_path / "run" / "last.safetensors")[0].items() if b"\x7f\xc0" in entry[2]
    ]


def test_a_full_disk_ends_the_run_and_costs_only_the_new_checkpoint(tmp_path, monkeypatch):
    real, calls = durable.os.write, []

    def full(descriptor, piece):
        calls.append(None)
        if len(calls) > 8:  # config, origin, metrics, environment, then steps 0, 3, 6, 9
            raise OSError(28, "No space left on device")
        return real(descriptor, piece)

    monkeypatch.setattr(durable.os, "write", full)
    with pytest.raises(CheckpointWriteError, match="No space left on device"):
        go(change(checkpoint_every=3), tmp_path / "run")
    monkeypatch.undo()
    assert run_state(tmp_path / "run" / "last.safetensors")[1]["optimizer"]["steps"] == 9
    assert not list((tmp_path / "run").glob(".*.part"))


UNUSABLE = {
    "too_many_training_images": ({"train_images": 201}, "has 300 training images: validation=100 leaves 200"),
    "nothing_left_to_train_on": ({"validation": 300, "train_images": 0}, "validation=300 leaves 0"),
    "too_many_test_images": ({"test_images": 101}, "has 100 test images"),
    "too_many_stages": ({"widths": (2,) * 6}, "6 stages halve the image 6 times"),
    "nesterov_without_momentum": ({"momentum": 0.0}, "nesterov=True needs a momentum above 0"),
    "adam_that_never_forgets": ({"optimizer": "adam", "beta1": 1.0}, "beta1 must be below 1"),
    "adam_without_eps": ({"optimizer": "adam", "eps": 0.0}, "eps must be"),
}


@pytest.mark.parametrize(("settings", "message"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_settings_that_do_not_fit_each_other_leave_no_folder(settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        go(change(**settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(gpu_status()[0], reason="there is a GPU")
def test_a_gpu_asked_for_by_name_must_be_there(tmp_path):
    with pytest.raises(GpuUnavailableError) as reason, using("cuda"):
        pass
    with pytest.raises(GpuUnavailableError) as caught:
        go(change(device="cuda"), tmp_path / "run")
    assert str(caught.value) == str(reason.value)
    assert not (tmp_path / "run").exists()


# Signals and threads ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hang_up_heard")
@pytest.mark.parametrize("signum", train.signals.SIGNALS)
def test_the_interruption_says_which_signal_and_how_to_go_on(signum, tmp_path):
    error = interrupt(tmp_path / "run", TINY, step=2, signum=signum)
    assert (error.signum, error.folder) == (signum, tmp_path / "run")
    assert isinstance(error, KeyboardInterrupt)
    name = signal.Signals(signum).name
    assert str(error) == f"stopped by {name}; to go on: gpuconv train --resume {tmp_path / 'run'}"


def test_handlers_are_put_back(tmp_path):
    before = [signal.getsignal(signum) for signum in train.signals.SIGNALS]
    go(change(epochs=1), tmp_path / "one")
    interrupt(tmp_path / "two", TINY, step=2)
    assert [signal.getsignal(signum) for signum in train.signals.SIGNALS] == before


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        guard = train.signals.Guard()
        with guard:
            signal.raise_signal(signal.SIGINT)
            guard.check()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("signum", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_the_second_signal_stops_at_once(signum, error):
    with train.signals.Guard() as guard:
        signal.raise_signal(signal.SIGINT)
        assert guard.signum == signal.SIGINT
        with pytest.raises(error) as caught:
            signal.raise_signal(signum)
        assert getattr(caught.value, "code", None) in (None, 143)


@pytest.mark.usefixtures("hang_up_heard")
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a system without it")
def test_a_hang_up_that_is_told_twice_is_one():
    with train.signals.Guard() as guard:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert guard.signum == signal.SIGHUP
        with pytest.raises(train.signals.Stop):
            guard.check()


def test_training_works_in_any_thread(finished, tmp_path):
    worker = threading.Thread(target=go, args=(TINY, tmp_path / "run"))
    worker.start()
    worker.join()
    assert_same_run(tmp_path / "run", finished.folder)


# Folders ------------------------------------------------------------------------------------------------------------


def test_runs_are_numbered_on(tmp_path):
    for taken in ("convnet-1", "convnet-7", "convnet-x", "other-9", "convnet-"):
        (tmp_path / taken).mkdir()
    (tmp_path / "convnet-11").write_text("a file counts, too")
    with new_folder(None, runs=tmp_path, name="convnet") as made:
        assert made.path == tmp_path / "convnet-12"
    with new_folder(None, runs=tmp_path / "deep" / "er", name="a.b+c_d-e") as made:
        assert made.path == tmp_path / "deep" / "er" / "a.b+c_d-e-1"


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path):
    barrier, made = threading.Barrier(8), []

    def start() -> None:
        barrier.wait()
        made.append(new_folder(None, runs=tmp_path, name="run"))

    for _ in range(5):
        workers = [threading.Thread(target=start) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len({folder.path for folder in made}) == 40
    for folder in made:
        folder.close()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "-a", "a b", "a\n"])
def test_names_that_would_lead_elsewhere_are_refused(name, tmp_path):
    with pytest.raises(ConfigError, match="name must be"):
        new_folder(None, runs=tmp_path, name=name)


def test_a_folder_with_files_is_not_taken(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="already holds files"):
        go(TINY, tmp_path)
    assert names(tmp_path) == ["notes.txt"]


def test_a_folder_that_another_run_has_used_meanwhile_is_left_to_others(tmp_path, monkeypatch):
    looks = iter([False, True])
    (tmp_path / "last.safetensors").touch()
    monkeypatch.setattr("gpuconv.runs.folder._holds_files", lambda path: next(looks))
    with pytest.raises(ConfigError, match="already holds files") as refused:
        new_folder(tmp_path, runs=tmp_path, name="run")
    assert "--resume" in str(refused.value)
    RunFolder(tmp_path).close()  # it is not held, though the error, with all that it knows, is still there


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_folder_that_could_not_be_opened_is_not_held(error, tmp_path, monkeypatch):
    def fail(path):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("gpuconv.runs.folder.durable.remove_stale", fail)
        with pytest.raises(error) as caught:
            RunFolder(tmp_path)
    RunFolder(tmp_path).close()
    assert caught.value.__traceback__ is not None  # and with it the frames that know the folder


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match="could not be made"):
        go(TINY, tmp_path / "file" / "run")
    with pytest.raises(ConfigError, match="could not be made"):
        new_folder(None, runs=tmp_path / "file", name="run")


def test_a_run_belongs_to_one_process_at_a_time(tmp_path):
    interrupt(tmp_path / "run", TINY, step=2)
    with (
        RunFolder(tmp_path / "run"),
        pytest.raises(ConfigError, match="in use by another gpuconv process"),
    ):
        again(tmp_path / "run")
    again(tmp_path / "run")


# Evaluation ---------------------------------------------------------------------------------------------------------


class Told:
    """A net that gives the scores it was told to."""

    flat_params = np.zeros(0, np.float32)

    def __init__(self, scores: np.ndarray) -> None:
        self.scores, self.at, self.sizes = scores.astype(np.float32), 0, []

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.sizes.append(len(x))
        self.at += len(x)
        return self.scores[self.at - len(x) : self.at]


@pytest.mark.parametrize("count", [1, 249, 250, 251, 600])
def test_accuracy_and_loss_are_means_over_images_not_batches(count, rng):
    scores, labels = rng.standard_normal((count, 4)), rng.integers(0, 3, count)
    images = np.zeros((count, 3, 2, 2), np.uint8)
    net = Told(scores)
    found = train.evaluate(net, images, labels, mean=(0, 0, 0), std=(1, 1, 1), classes=4)
    right = scores.argmax(axis=1) == labels
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert found.accuracy == right.mean()
    assert abs(found.loss + np.log(chances[np.arange(count), labels]).mean()) < 1e-5
    assert found.count == count == sum(net.sizes)
    for label in range(4):
        of_class = right[labels == label]
        assert found.class_accuracy[label] == (of_class.mean() if of_class.size else None)


def test_evaluation_changes_nothing_in_the_net(finished):
    net = train.load_net(finished.folder / "best.safetensors")
    before = [net.flat_params.copy(), *(array.copy() for array in net.state.values())]
    pictures = shapes()
    train.evaluate(net, pictures.x_test, pictures.y_test, mean=pictures.mean, std=pictures.std, classes=10)
    for old, new in zip(before, [net.flat_params, *net.state.values()], strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_net_for_other_classes_is_refused(finished):
    net = train.load_net(finished.folder / "best.safetensors")
    pictures = shapes()
    with pytest.raises(CheckpointMismatchError, match="the net has 10 classes but the data set has 7"):
        train.evaluate(net, pictures.x_test, pictures.y_test, mean=pictures.mean, std=pictures.std, classes=7)


def test_auto_becomes_the_data_set_that_was_found(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", lambda name, **_: shapes())
    result = train.train(change(data="auto"), folder=tmp_path / "run", progress="none")
    assert tomllib.loads((result.folder / "config.toml").read_text())["data"] == "shapes"
