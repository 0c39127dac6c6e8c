"""Steps on a GPU as one recorded graph: the bits of a run without it, through all that may happen to a run.

In the emulator a recording begins with memory of 0xFF bytes at each replay, and one that uses what has died is an error.
"""

import dataclasses
import json
import re
import signal
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from compare import U_OUT
from emulate.recording import EmulatedRecording, _Pool
from places import EMULATED, GPU
from test_cuda_training_step import LONG, SMALL, TINY
from train_helpers import metrics, run_state, shapes, watch

from gpuconv import backend, nn, train
from gpuconv.cuda import step as cuda_step
from gpuconv.cuda.recording import active
from gpuconv.errors import ConfigError, NonFiniteLossError, StaleBatchError, UnsupportedError
from gpuconv.nn import replayed
from gpuconv.runs import evaluation
from gpuconv.train import PRESETS, Interrupted, Stepper, recipe, resume
from gpuconv.train import state as train_state
from gpuconv.train.feed import Feed
from gpuconv.train.loop import Training

FEATURES = {
    "plain": {},
    "parts": {"accumulate": 2, "dtype": "float64"},
    "clip_and_average": {"clip_norm": 0.1, "ema": 0.9, "accumulate": 2},
    "adamw": {"optimizer": "adamw", "lr": 1e-2, "weight_decay": 0.1, "bias_lr": 2.0, "cutout": 4},
    "rmsprop_as_they_are": {"optimizer": "rmsprop", "lr": 1e-3, "crop": 0, "flip": False},
    "float16": {"precision": "float16", "clip_norm": 1.0, "ema": 0.9, "accumulate": 3},
    "bfloat16": {"precision": "bfloat16", "optimizer": "adamw", "lr": 1e-2, "ema": 0.9, "accumulate": 2},
}


def _config(preset="convnet", **settings):
    """Return a run of five steps: two, a third that is recorded, and two of the next epoch."""
    changes = {**SMALL, "epochs": 2, "max_steps": 5, "device": "cuda", **TINY[preset], **settings}
    return dataclasses.replace(PRESETS[preset], **{**changes, "max_steps": settings.get("max_steps", 5)})


def _go(config, folder):
    return train.train(config, folder=folder, dataset=shapes(), progress="none")


@contextmanager
def _counted():
    """Yield what counts the recordings that are made, and their replays."""
    counts, real = {"recordings": 0, "replays": 0}, replayed.record

    class Counted:
        def __init__(self, recording):
            self._recording = recording

        @property
        def result(self):
            return self._recording.result

        def replay(self):
            counts["replays"] += 1
            self._recording.replay()

    def record(*arguments):
        counts["recordings"] += 1
        return Counted(real(*arguments))

    with mock.patch.object(replayed, "record", record):
        yield counts


def _assert_same(folder, other):
    """Check that two runs ended in the same bits, with the same settings but for `graph`."""
    for name in ("last.safetensors", "best.safetensors"):
        (arrays, values), (other_arrays, other_values) = (run_state(each / name) for each in (folder, other))
        for each in (values, other_values):
            del each["config"]["graph"]
        assert values == other_values
        assert arrays == other_arrays
    assert metrics(folder) == metrics(other)
    results = [json.loads((each / "result.json").read_text()) for each in (folder, other)]
    assert (
        len(
            {
                str([each[name] for name in ("test_loss", "test_accuracy_tta", "skipped_steps", "steps")])
                for each in results
            }
        )
        == 1
    )


def _cases(*values, core=False, long=False, at=(EMULATED, GPU)):
    marks = [*([pytest.mark.core] if core else []), *([pytest.mark.long] if long else [])]
    return [
        pytest.param(
            *values, *place.values, marks=[*place.marks, *marks], id="-".join(map(str, [*values, *place.values]))
        )
        for place in at
    ]


# The same bits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "precision", "cuda"),
    [
        case
        for preset in TINY
        for precision in ("float32", "float16", "bfloat16")
        if precision != "bfloat16" or preset in ("convnet", "speedrun")  # the others' kernels are those of float16
        for case in (
            *_cases(preset, precision, long=preset in LONG, at=(EMULATED,)),
            *_cases(preset, precision, core=preset in ("convnet", "speedrun"), at=(GPU,)),
        )
    ],
    indirect=["cuda"],
)
def test_each_preset_ends_in_the_same_bits(preset, precision, cuda, tmp_path):
    config = _config(preset, precision=precision)
    _go(dataclasses.replace(config, graph="off"), tmp_path / "off")
    with _counted() as counts:
        _go(dataclasses.replace(config, graph="on"), tmp_path / "on")
    views = config.tta == "flip+shift"  # six, of which the last four are replayed
    assert counts == {"recordings": 1 + views, "replays": 3 + 4 * views}
    _assert_same(tmp_path / "on", tmp_path / "off")


@pytest.mark.parametrize(
    ("feature", "cuda"),
    [case for name in FEATURES for case in _cases(name, core=name in ("clip_and_average", "float16", "bfloat16"))],
    indirect=["cuda"],
)
def test_what_a_step_may_do_besides_is_in_the_recording(feature, cuda, tmp_path, monkeypatch):
    """With tables of rates that end within the run, and looks at every second step."""
    monkeypatch.setattr(train_state, "TABLE_STEPS", 4)
    monkeypatch.setattr("gpuconv.train.step._LOOK_EVERY", 2)
    config = _config(**FEATURES[feature])
    _go(dataclasses.replace(config, graph="off"), tmp_path / "off")
    with _counted() as counts:
        _go(config, tmp_path / "auto")
    assert counts == {"recordings": 1, "replays": 3}
    _assert_same(tmp_path / "auto", tmp_path / "off")


@pytest.mark.parametrize(("tta", "cuda"), [*_cases("none"), *_cases("flip+shift", core=True)], indirect=["cuda"])
def test_validation_and_views_are_replayed_with_the_same_bits(tta, cuda, tmp_path, monkeypatch):
    """Batches of 3 of 10 pictures for validation, the last one smaller, and of 12 for the test."""
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 3)
    config = _config(tta=tta, ema=0.9, max_steps=2, epochs=1)
    _go(dataclasses.replace(config, graph="off"), tmp_path / "off")
    with _counted() as counts:
        _go(config, tmp_path / "auto")
    views = {"none": (2, 1 + 2), "flip+shift": (3, 1 + 2 + 4 * 6 - 2)}
    assert (counts["recordings"], counts["replays"]) == views[tta]
    _assert_same(tmp_path / "auto", tmp_path / "off")


@pytest.mark.parametrize(
    ("before", "after", "precision", "cuda"),
    [
        *_cases("on", "on", "float32", core=True),
        *_cases("on", "off", "bfloat16"),
        *_cases("off", "on", "float16"),
    ],
    indirect=["cuda"],
)
def test_a_run_that_was_interrupted_ends_in_the_same_bits(before, after, precision, cuda, tmp_path):
    """Within a replayed epoch, with other settings from then on."""
    config = _config(batch_size=2, epochs=1, max_steps=9, ema=0.9, checkpoint_every=2, precision=precision)
    _go(dataclasses.replace(config, graph="off"), tmp_path / "whole")
    real, calls = Stepper.step, []

    def interrupted(stepper, *arguments):
        calls.append(None)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        real(stepper, *arguments)

    with mock.patch.object(Stepper, "step", interrupted), pytest.raises(Interrupted):
        _go(dataclasses.replace(config, graph=before), tmp_path / "again")
    assert run_state(tmp_path / "again" / "last.safetensors")[1]["position"]["steps"] == 5
    with _counted() as counts:
        resume(tmp_path / "again", dataset=shapes(), progress="none", graph=after)
    assert counts == ({"recordings": 1, "replays": 2} if after == "on" else {"recordings": 0, "replays": 0})
    _assert_same(tmp_path / "again", tmp_path / "whole")


@pytest.mark.parametrize("cuda", [EMULATED], indirect=True)
def test_a_time_limit_within_an_epoch_ends_both_alike(cuda, tmp_path, monkeypatch):
    def ends(training):
        if training.steps_done == 4:
            training.position.ended_by = "max-minutes"

    monkeypatch.setattr(Training, "_look_at_the_clock", ends)
    for setting in ("on", "off"):
        _go(_config(batch_size=2, epochs=1, max_steps=9, max_minutes=1.0, graph=setting), tmp_path / setting)
    _assert_same(tmp_path / "on", tmp_path / "off")
    assert run_state(tmp_path / "on" / "last.safetensors")[1]["position"]["steps"] == 4


@pytest.mark.parametrize(
    ("precision", "cuda"), [c for p in ("float32", "float16", "bfloat16") for c in _cases(p)], indirect=["cuda"]
)
def test_a_step_gone_bad_stops_the_run_in_the_same_words(precision, cuda, tmp_path, monkeypatch):
    """A rate beyond all bounds in a replayed step: the loss of the next one is no number."""
    real = recipe.schedule

    def schedule(*arguments):
        rate = real(*arguments)
        return lambda step: 1e30 if step == 5 else rate(step)

    monkeypatch.setattr(recipe, "schedule", schedule)
    said = set()
    for setting in ("on", "off"):
        settings = {"batch_size": 2, "epochs": 1, "max_steps": 9, "precision": precision, "checkpoint_every": 4}
        with pytest.raises(NonFiniteLossError, match="the loss is nan in epoch 1, step 7") as caught:
            _go(_config(**settings, graph=setting), tmp_path / setting)
        said.add(str(caught.value).replace(str(tmp_path / setting), ""))
        assert run_state(tmp_path / setting / "last.safetensors")[1]["position"]["steps"] == 4
    assert len(said) == 1


def _losses_with_dropout(setting, **settings):
    """Return the losses of six steps of a net whose first layer draws for each part of each step."""
    config, noted, pictures = _config(accumulate=2, graph=setting, **settings), [], shapes()
    split = recipe.split(pictures, config)
    with backend.using("cuda"):
        body = nn.Dropout(0.5), nn.Flatten(), nn.Affine(3 * 32 * 32, 10)
        stepper = Stepper(nn.Net(nn.Sequential(*body), (3, 32, 32), seed=2), config, lambda step: 1e-5, noted.append)
        with Feed(split.x_train, split.y_train, config, mean=pictures.mean, std=pictures.std) as feed:
            for epoch in range(2):
                for batch in feed.epoch(epoch, 0, 3):
                    stepper.step(batch, 3 * epoch + batch.number)
        stepper.look()
    return [outcome.loss for outcome in noted]


@pytest.mark.core
def test_each_part_of_a_replayed_step_draws_for_itself(cuda):
    assert _losses_with_dropout("on") == _losses_with_dropout("off")


def _documented_rule():
    """Return the optimiser of docs/cuda-graphs.md."""
    text = (Path(__file__).resolve().parents[1] / "docs" / "cuda-graphs.md").read_text(encoding="utf-8")
    names = {"__name__": "documented"}
    exec(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0], names)  # noqa: S102 - our own
    return names["AggMo"]


def _steps_by(rule, **settings):
    """Return the weights after five steps by an optimiser, and how many were skipped."""
    config, pictures = _config(epochs=2, **settings), shapes()
    split = recipe.split(pictures, config)
    with backend.using(config.device):
        net = recipe.net(config, pictures.x_train.shape[1:], 10)
        stepper = Stepper(net, config, lambda step: 1e-3 / (1 + step), lambda outcome: None, optimiser=rule(net))
        if stepper.arithmetic.scale is not None:
            stepper.arithmetic.scale.value = 2.0**19  # gradients beyond float16, at first
        with Feed(split.x_train, split.y_train, config, mean=pictures.mean, std=pictures.std) as feed:
            for step in range(5):
                stepper.step(next(feed.epoch(step // 3, step % 3, 3)), step)
        stepper.look()
        return backend.asnumpy(net.flat_params), stepper.skipped


@pytest.mark.parametrize(
    ("precision", "cuda"),
    [c for p in ("float32", "float16") for c in _cases(p, core=p == "float16")],
    indirect=["cuda"],
)
def test_an_optimiser_of_one_s_own_is_replayed(precision, cuda):
    """The documented one: with the bits of steps launched one by one, and where the CPU's steps by value lead."""
    rule = _documented_rule()
    with _counted() as counts:
        replayed_ones, skipped = _steps_by(rule, precision=precision)
    assert counts == {"recordings": 1, "replays": 3}
    np.testing.assert_array_equal(replayed_ones, _steps_by(rule, precision=precision, graph="off")[0])
    of_cpu, skipped_there = _steps_by(rule, precision=precision, device="cpu")
    assert skipped == skipped_there
    assert (0 < skipped < 5) == (precision == "float16")
    assert np.isfinite(replayed_ones).all()  # what was skipped changed nothing
    exact, _ = _steps_by(rule, device="cpu", dtype="float64")
    if precision == "float32":
        lost = np.abs(of_cpu - exact).max()
        assert np.abs(replayed_ones - exact).max() <= 4 * lost + 8 * U_OUT["float32"] * np.abs(exact).max()


class _ByValueOnly(nn.Optimiser):
    def __init__(self, net):
        super().__init__(net, (), 0.0, 1.0)

    def _update(self, arrays, lr, weight_decay):
        raise AssertionError


class _AnotherUpdate(nn.SGD):
    def _update(self, arrays, lr, weight_decay):
        raise AssertionError


class _AnotherStep(nn.Muon):
    def step(self, lr):
        raise AssertionError


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (_ByValueOnly, "_ByValueOnly defines _update and not _update_by_place, by which a training step on a GPU goes"),
        (_AnotherUpdate, "_AnotherUpdate defines _update and not _update_by_place"),
        (_AnotherStep, "_AnotherStep defines step and not step_by_place"),
    ],
)
def test_an_optimiser_by_value_only_is_refused_on_a_gpu_before_any_step(rule, said, cuda):
    with pytest.raises(UnsupportedError, match=f"^{said}"):
        _steps_by(rule)


def test_an_optimiser_by_value_only_does_on_the_cpu():
    with pytest.raises(AssertionError):
        _steps_by(_ByValueOnly, device="cpu")


def test_another_feed_s_steps_are_done_without_the_recording(cuda):
    """And in order: what one of them leaves, the next replay finds."""
    config, pictures, ends = _config(), shapes(), []
    split = recipe.split(pictures, config)
    with backend.using("cuda"):
        for setting in ("on", "off"):
            config = dataclasses.replace(config, graph=setting)
            net = recipe.net(config, pictures.x_train.shape[1:], 10)
            stepper = Stepper(net, config, lambda step: 0.01, lambda outcome: None)
            feeds = [Feed(x, split.y_train, config, mean=pictures.mean, std=pictures.std) for x in (split.x_train,) * 2]
            batches = [list(feed.epoch(0, 0, 3)) for feed in feeds]
            with _counted() as counts:
                for step, (which, number) in enumerate(((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 0))):
                    stepper.step(batches[which][number], step)
            assert counts["replays"] == (2 if setting == "on" else 0)
            ends.append(backend.asnumpy(net.flat_params))
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("setting", ["on", "off"])
def test_a_batch_of_an_epoch_that_is_over_is_refused(setting, cuda):
    """Before anything of its step is done; another pass over the same epoch has the same batches."""
    config, pictures, noted = _config(graph=setting), shapes(), []
    split = recipe.split(pictures, config)
    with backend.using("cuda"):
        net = recipe.net(config, pictures.x_train.shape[1:], 10)
        stepper = Stepper(net, config, lambda step: 0.01, noted.append)
        with Feed(split.x_train, split.y_train, config, mean=pictures.mean, std=pictures.std) as feed:
            kept = list(feed.epoch(0, 0, 3))
            for step, batch in enumerate((*kept, *feed.epoch(0, 0, 1), kept[2])):
                stepper.step(batch, step)
            stepper.step(next(feed.epoch(1, 0, 3)), 5)
            weights = backend.asnumpy(net.flat_params)
            with pytest.raises(
                StaleBatchError, match=r"^batch 1 is of epoch 0, and the feed has begun epoch 1, .* again"
            ):
                stepper.step(kept[1], 6)
            with pytest.raises(StaleBatchError, match=r"^batch 2 is of epoch 0"):
                _ = kept[2].parts
            np.testing.assert_array_equal(backend.asnumpy(net.flat_params), weights)
            stepper.step(next(feed.epoch(0, 1, 2)), 6)
        stepper.look()
    assert [outcome.step for outcome in noted] == list(range(7))


@pytest.mark.parametrize("cuda", [EMULATED], indirect=True)
@pytest.mark.parametrize(("setting", "done", "replays"), [("on", 5, 3), ("off", 3, 0)])
def test_a_dry_run_times_steps_as_most_are(setting, done, replays, cuda, monkeypatch):
    steps = watch(monkeypatch, Stepper, "step")
    with _counted() as counts:
        train.rehearse(_config(batch_size=2, graph=setting), progress="none", dataset=shapes())
    assert (len(steps), counts["replays"]) == (done, replays)


# What cannot be recorded ----------------------------------------------------------------------------------------------


def _notices(folder):
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [event["message"] for event in events if event["event"] == "notice"]


@pytest.mark.core
def test_what_cannot_be_recorded_is_said_once_and_done_without(cuda, tmp_path, monkeypatch):
    _go(_config(graph="off"), tmp_path / "off")
    monkeypatch.setenv("GPUCONV_DEBUG", "1")
    _go(_config(), tmp_path / "auto")
    _assert_same(tmp_path / "auto", tmp_path / "off")
    (notice,) = _notices(tmp_path / "auto")
    assert notice == (
        "steps are launched kernel by kernel, not as one graph: GPUCONV_DEBUG=1 waits for every launch, which cannot be "
        "recorded: record without it"
    )
    assert _notices(tmp_path / "off") == []


def _waits(monkeypatch):
    """Let each step wait for the GPU, which no recording can."""
    real = Stepper._work

    def work(stepper, *arguments):
        real(stepper, *arguments)
        backend.asnumpy(stepper.net.flat_params)

    monkeypatch.setattr(Stepper, "_work", work)


@pytest.mark.core
def test_a_step_that_waits_is_an_error_where_a_graph_is_asked_for(cuda, tmp_path, monkeypatch):
    _go(_config(graph="off"), tmp_path / "off")
    _waits(monkeypatch)
    _go(_config(), tmp_path / "auto")
    (notice,) = _notices(tmp_path / "auto")
    assert "a copy to the host cannot be recorded" in notice
    _assert_same(tmp_path / "auto", tmp_path / "off")
    with pytest.raises(ConfigError, match=r'^graph "on" cannot be, .*a copy to the host cannot be recorded'):
        _go(_config(graph="on"), tmp_path / "on")


@pytest.mark.core
def test_evaluations_that_cannot_be_recorded_are_said_once_and_done_without(cuda, tmp_path, monkeypatch):
    """Of two epochs and a test, each of more batches than are launched kernel by kernel anyway."""
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 3)
    config = _config(max_steps=2, batch_size=18)
    _go(dataclasses.replace(config, graph="off"), tmp_path / "off")
    real = evaluation._Forward._of

    def waits(forward, pictures):
        scores = real(forward, pictures)
        backend.asnumpy(scores)
        return scores

    monkeypatch.setattr(evaluation._Forward, "_of", waits)
    _go(config, tmp_path / "auto")
    (notice,) = _notices(tmp_path / "auto")
    assert notice == (
        "the batches of an evaluation are launched kernel by kernel, not as one graph: a copy to the host cannot be "
        "recorded: make it after a replay"
    )
    _assert_same(tmp_path / "auto", tmp_path / "off")
    with pytest.raises(
        ConfigError, match=r'^graph "on" cannot be, for the batches of an evaluation cannot be recorded: a'
    ):
        _go(dataclasses.replace(config, graph="on"), tmp_path / "on")


@pytest.mark.parametrize("cuda", [EMULATED], indirect=True)
def test_memory_that_is_not_there_is_done_without(cuda, tmp_path, monkeypatch):
    def record(*arguments):
        msg = "the GPU has no 512 bytes left for what is recorded"
        raise MemoryError(msg)

    _go(_config(graph="off"), tmp_path / "off")
    monkeypatch.setattr(replayed, "record", record)
    _go(_config(), tmp_path / "auto")
    assert [notice.partition("graph: ")[2] for notice in _notices(tmp_path / "auto")] == [
        "the GPU has no 512 bytes left for what is recorded"
    ]
    _assert_same(tmp_path / "auto", tmp_path / "off")


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_on_the_cpu_a_graph_that_is_asked_for_is_refused_before_anything_happens(device, tmp_path):
    config = _config(device=device, graph="on")
    with backend.using("cpu"), pytest.raises(ConfigError, match=r'^graph "on" needs a GPU, and this run is on the CPU'):
        _go(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_on_the_cpu_a_run_goes_on_with_another_setting_but_not_with_on(tmp_path):
    config = _config("three-layer", device="cpu", graph="off", max_steps=2)
    _go(config, tmp_path / "run")
    with pytest.raises(ConfigError, match=r'^graph "on" needs a GPU'):
        resume(tmp_path / "run", dataset=shapes(), progress="none", graph="on")
    text = (tmp_path / "run" / "config.toml").read_text()
    (tmp_path / "run" / "config.toml").write_text(text.replace('graph = "off"', 'graph = "auto"'))
    assert resume(tmp_path / "run", dataset=shapes(), progress="none").steps == 2


@pytest.mark.parametrize("cuda", [EMULATED], indirect=True)
def test_in_debug_mode_a_graph_that_is_asked_for_is_refused_before_anything_happens(cuda, tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCONV_DEBUG", "1")
    with pytest.raises(ConfigError, match=r'^graph "on" cannot be with GPUCONV_DEBUG=1'):
        _go(_config(graph="on"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Faults that these tests notice ---------------------------------------------------------------------------------------


def _a_stale_rate(patch):
    """The table says of each step what it says of the one that is recorded."""
    real = cuda_step.StepNumbers.place

    def place(numbers, *, table, **others):
        real(numbers, table=np.broadcast_to(table[2], table.shape).copy(), **others)

    patch.setattr(cuda_step.StepNumbers, "place", place)


def _a_place_that_is_recorded(patch):
    real = Feed._placed_part
    patch.setattr(Feed, "_placed_part", lambda feed, place: real(feed, 12 if active() else place))


def _a_number_of_the_next_step(patch):
    real = cuda_step.StepNumbers.enter
    patch.setattr(cuda_step.StepNumbers, "enter", lambda numbers, first: real(numbers, first - (first > 0)))


def _words_of_the_epoch_before(patch):
    real, kept = Feed._drawn, []

    def drawn(feed, epoch):
        order, draws = real(feed, epoch)
        kept.append(draws)
        return order, kept[0]

    patch.setattr(Feed, "_drawn", drawn)


def _an_outcome_over_another(patch):
    real = cuda_step.StepNumbers.begin

    def begin(numbers):
        rows, numbers._rows = numbers._rows, 1
        real(numbers)
        numbers._rows = rows

    patch.setattr(cuda_step.StepNumbers, "begin", begin)


def _memory_handed_out_twice(patch):
    """Of one size, the second array of a recording lies where the first does."""
    real, given = _Pool.take, {}

    def take(pool, size):
        return given.setdefault((id(pool), size), real(pool, size))

    patch.setattr(_Pool, "take", take)


def _an_update_that_is_not_in_it(patch):
    real = nn.SGD.step_by_place
    patch.setattr(nn.SGD, "step_by_place", lambda rule, numbers: None if active() else real(rule, numbers))


def _an_average_s_share_that_is_recorded(patch):
    real = nn.WeightAverage.update_by_place

    def update(average, numbers):
        if active():
            average._take_in(0.5)
        else:
            real(average, numbers)

    patch.setattr(nn.WeightAverage, "update_by_place", update)


FAULTS = (
    _a_stale_rate,
    _a_place_that_is_recorded,
    _a_number_of_the_next_step,
    _words_of_the_epoch_before,
    _an_outcome_over_another,
    _memory_handed_out_twice,
    _an_update_that_is_not_in_it,
    _an_average_s_share_that_is_recorded,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_a_fault_is_noticed(fault, emulated_gpu, tmp_path, monkeypatch):
    config = _config(ema=0.9)
    _go(dataclasses.replace(config, graph="off"), tmp_path / "off")
    with monkeypatch.context() as patch:
        fault(patch)
        try:
            _go(config, tmp_path / "on")
        except NonFiniteLossError:
            return
    with pytest.raises(AssertionError):
        _assert_same(tmp_path / "on", tmp_path / "off")


def test_a_draw_for_another_step_is_noticed(emulated_gpu, monkeypatch):
    expected, real = _losses_with_dropout("off"), cuda_step.StepNumbers.drawn
    monkeypatch.setattr(
        cuda_step.StepNumbers, "drawn", lambda numbers, part: 4 + part if active() else real(numbers, part)
    )
    assert _losses_with_dropout("on") != expected


def test_scores_of_an_earlier_batch_are_noticed(emulated_gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 3)
    config = _config(max_steps=2, epochs=1)
    _go(dataclasses.replace(config, graph="off"), tmp_path / "off")
    real, done = EmulatedRecording.replay, []

    def first_time(recording):
        if recording not in done:
            done.append(recording)
            real(recording)

    monkeypatch.setattr(EmulatedRecording, "replay", first_time)
    _go(config, tmp_path / "on")
    with pytest.raises(AssertionError):
        _assert_same(tmp_path / "on", tmp_path / "off")
