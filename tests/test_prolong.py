"""A run with a later end: a new run, the same bits as if the old one had had it; refused where it could not be."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from train_helpers import change, go, names, shapes, watch

from gpuconv import train
from gpuconv.errors import ConfigError
from gpuconv.runs import checkpoint
from gpuconv.runs.settings import read
from gpuconv.train import Run, Stepper, loop

LONG = change(epochs=3, checkpoint_every=3)  # three epochs of ten steps
STEADY = change(epochs=3, schedule="constant")


def contents(folder: Path) -> dict[str, str]:
    """Return what lies in a folder, and in those inside it, as digests."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def ended_after(steps: int, config: train.Config, folder: Path, **keywords) -> train.Result:
    """Return a run that its time limit ends after so many steps; each takes a tenth of a minute, as told here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.Position, "run_seconds", property(lambda self: 6.0 * self.steps))
        return go(dataclasses.replace(config, max_minutes=steps / 10), folder, **keywords)


def prolonged(run: Path, folder: Path, **end) -> train.Result:
    return train.prolong(run, end, folder=folder, dataset=shapes(), progress="none")


def assert_same_weights(run: Path, other: Path) -> None:
    """Check that two runs have come to the same bits, and that their epochs have the same lines but for rounding."""
    found, wanted = (checkpoint.load(folder / "last.safetensors") for folder in (run, other))
    assert found.arrays.keys() == wanted.arrays.keys()
    for name, array in wanted.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
    assert (found.optimiser_steps, found.position.steps) == (wanted.optimiser_steps, wanted.position.steps)
    for row, other_row in zip(Run(run).metrics, Run(other).metrics, strict=True):
        for name in set(row) - {"seconds"}:
            assert row[name] == pytest.approx(other_row[name], rel=1e-15)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return go(LONG, tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("steps", [14, 20, 1])
def test_a_run_that_its_time_ended_goes_on_to_its_last_epoch(steps, whole, tmp_path):
    """In the middle of an epoch, at the end of one, and after the first step."""
    assert ended_after(steps, LONG, tmp_path / "short").ended_by == "max-minutes"
    before = contents(tmp_path / "short")
    result = prolonged(tmp_path / "short", tmp_path / "long", max_minutes=0)
    assert contents(tmp_path / "short") == before
    assert (result.ended_by, result.steps, len(result.metrics)) == ("epochs", 30, 3)
    assert_same_weights(tmp_path / "long", whole.folder)
    assert read(tmp_path / "long" / "config.toml") == LONG
    events = Run(tmp_path / "long").events
    steps_noted = [event["step"] for event in events if event["event"] == "step"]
    assert steps_noted == list(range(1, 31))
    notes = [event["message"] for event in events if event["event"] == "notice"]
    assert notes == [f"goes on from short after step {steps}, with max_minutes {steps / 10} -> 0.0"]
    assert [event["event"] for event in events if event["event"] in ("start", "end")] == ["start", "end"]


def test_it_repeats_from_its_settings(whole, tmp_path):
    ended_after(14, LONG, tmp_path / "short")
    prolonged(tmp_path / "short", tmp_path / "long", max_minutes=0)
    go(read(tmp_path / "long" / "config.toml"), tmp_path / "again")
    assert_same_weights(tmp_path / "again", whole.folder)


@pytest.mark.parametrize("which", ["last", "best"])
def test_it_goes_on_after_it_was_broken_off(which, whole, tmp_path):
    ended_after(14, LONG, tmp_path / "short")
    real, count = Stepper.step, itertools.count(1)

    def step(self, *arguments):
        if next(count) > 5:
            raise KeyboardInterrupt
        return real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "step", step)
        with pytest.raises(KeyboardInterrupt):
            prolonged(tmp_path / "short", tmp_path / "long", max_minutes=0)
    train.resume(tmp_path / "long" / f"{which}.safetensors", dataset=shapes(), progress="none")
    if which == "last":
        assert_same_weights(tmp_path / "long", whole.folder)
    assert Run(tmp_path / "long").finished


def test_a_finished_run_of_a_steady_rate_takes_more_epochs(tmp_path):
    go(dataclasses.replace(STEADY, epochs=1), tmp_path / "short")
    result = prolonged(tmp_path / "short", tmp_path / "long", epochs=3)
    assert result.ended_by == "epochs"
    go(STEADY, tmp_path / "whole")
    assert_same_weights(tmp_path / "long", tmp_path / "whole")
    assert Run(tmp_path / "long").result["test_loss"] == Run(tmp_path / "whole").result["test_loss"]


def test_a_run_that_its_steps_ended_takes_more(tmp_path):
    go(dataclasses.replace(STEADY, max_steps=13), tmp_path / "short")
    prolonged(tmp_path / "short", tmp_path / "long", max_steps=0)
    go(STEADY, tmp_path / "whole")
    assert_same_weights(tmp_path / "long", tmp_path / "whole")


def test_a_run_that_patience_ended_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Training, "evaluate", _worse_and_worse(loop.Training.evaluate))
    config = change(epochs=4, patience=1, schedule="constant")
    assert go(config, tmp_path / "short").ended_by == "patience"
    with pytest.raises(ConfigError, match=r"short is 1 epochs past its best: --patience N \(patience\) must be more"):
        prolonged(tmp_path / "short", tmp_path / "long", max_minutes=9.0)
    result = prolonged(tmp_path / "short", tmp_path / "long", patience=0)
    assert (result.ended_by, len(result.metrics), result.best_epoch) == ("epochs", 4, 1)


def _worse_and_worse(real):
    count = itertools.count()

    def evaluate(*arguments, **keywords):
        return dataclasses.replace(real(*arguments, **keywords), accuracy=0.5 ** next(count))

    return evaluate


def test_a_net_of_a_file_and_an_average_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = ('kind = "conv"\nfilters = 3', 'kind = "global-average-pool"', 'kind = "affine"')
    Path("net.toml").write_text("".join(f"[[layer]]\n{layer}\n" for layer in layers))
    config = dataclasses.replace(STEADY, net="net.toml", widths=(), ema=0.9, epochs=2)
    go(config, tmp_path / "whole")
    ended_after(7, config, tmp_path / "short")
    Path("net.toml").write_text("no net any more")
    prolonged(tmp_path / "short", tmp_path / "long", max_minutes=0)
    assert_same_weights(tmp_path / "long", tmp_path / "whole")
    assert (tmp_path / "long" / "net.toml").read_bytes() == (tmp_path / "whole" / "net.toml").read_bytes()


def test_events_for_tensorboard_go_on(tmp_path):
    pytest.importorskip("tensorboardX")
    ended_after(4, dataclasses.replace(STEADY, tensorboard=True), tmp_path / "short")
    prolonged(tmp_path / "short", tmp_path / "long", max_minutes=0)
    for part in (".", "train", "validation"):
        first, second = sorted((tmp_path / "long" / "tensorboard" / part).glob("events.*"))
        (kept,) = (tmp_path / "short" / "tensorboard" / part).glob("events.*")
        assert first.read_bytes() == kept.read_bytes()
        assert second.stat().st_size > 0


REFUSED = {
    "one_cycle": (
        LONG,
        {"epochs": 5},
        (
            r"rate of (?P<run>\S*) comes down over its 30 steps .*, .* with 50: .* gpuconv train --weights (?P=run) "
            r"--config (?P=run)/config.toml --epochs 2$"
        ),
    ),
    "one_cycle_steps": (change(max_steps=5), {"max_steps": 8}, r"--config \S*/config.toml --max-steps 3$"),
    "time_of_a_run_that_is_through": (
        LONG,
        {"max_minutes": 9.0},
        r"has done 30 steps, .* after 30: gpuconv train --wei",
    ),
    "fewer_steps": (STEADY, {"epochs": 2}, r"has done 30 steps, and these settings end it after 20: a larger --epochs"),
    "no_end": (LONG, {"lr": 0.5}, r"^lr cannot be changed when a run goes on, only its end: epochs, max_steps"),
}


@pytest.mark.parametrize(("config", "end", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_change_what_is_done_is_refused_with_the_way_out(config, end, message, whole, tmp_path):
    run = whole.folder if config is LONG else go(config, tmp_path / "run").folder
    before = contents(tmp_path), contents(whole.folder)
    with pytest.raises(ConfigError, match=message):
        prolonged(run, tmp_path / "long", **end)
    assert (contents(tmp_path), contents(whole.folder)) == before


def test_less_time_than_it_took_is_refused(tmp_path):
    ended_after(4, LONG, tmp_path / "short")
    taken = Run(tmp_path / "short").metrics[0]["seconds"]
    assert taken > 0
    with pytest.raises(
        ConfigError, match=r"short has taken .*: --max-minutes X \(max_minutes\) must be more than that"
    ):
        prolonged(tmp_path / "short", tmp_path / "long", max_minutes=taken / 120)
    assert names(tmp_path) == ["short"]


# The command --------------------------------------------------------------------------------------------------------


def test_the_command_goes_on_in_a_folder_of_its_own(whole, gpuconv, tmp_path):
    ended_after(14, LONG, tmp_path / "short")
    code, out, err = gpuconv("train", "--resume", "short")
    assert (code, err) == (0, "")
    assert "it was ended by max-minutes; to go on" in out
    assert "gpuconv train --resume short --max-minutes 0\n" in out
    code, out, err = gpuconv("train", "--resume", "short", "--max-minutes", 0)
    assert (code, err) == (0, "")
    assert "runs/convnet-1: goes on from short after step 14, with max_minutes 1.4 -> 0.0\n" in out
    assert_same_weights(Path("runs/convnet-1"), whole.folder)
    assert gpuconv("train", "--resume", "short", "--max-minutes", 0, "--run-dir", "there", "--progress", "none")[0] == 0
    assert Run("there").finished
    assert names(tmp_path) == ["runs", "short", "there"]


def test_the_command_that_a_refusal_names_trains_on(whole, gpuconv, tmp_path, monkeypatch):
    code, _, err = gpuconv("train", "--resume", whole.folder, "--epochs", 4)
    assert code == 2
    flags = err.rstrip().rpartition("gpuconv train ")[2].split()
    seen = watch(monkeypatch, loop.Training, "_note")
    assert gpuconv("train", *flags, "--progress", "none")[0] == 0
    run = Run("runs/convnet-1")
    assert len(run.metrics) == 1
    assert (run.config.weights, run.config.widths) == (str(whole.folder), LONG.widths)
    first = json.loads((whole.folder / "events.jsonl").read_text().splitlines()[1])["loss"]
    assert seen[0][0][1].loss < first


def test_other_settings_are_refused_by_name(whole, gpuconv):
    code, _, err = gpuconv("train", "--resume", whole.folder, "--epochs", 9, "--lr", 0.1, "--seeds", 2)
    assert code == 2
    assert "leave out --seeds, --lr; what can be changed is its end, in a new run: --epochs, --max-steps" in err
    assert "leave out --name;" in gpuconv("train", "--resume", whole.folder, "--name", "x")[2]
