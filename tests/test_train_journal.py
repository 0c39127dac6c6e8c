"""The journal of a run: what is written, what a resumed run cuts, what a full disk does, and that nobody is named."""

from __future__ import annotations

import dataclasses
import getpass
import json
import platform
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from train_helpers import TINY, shapes

from gpuconv import durable, train
from gpuconv.errors import CheckpointWriteError, ConfigError, NonFiniteLossError
from gpuconv.runs import board, journal, machine
from gpuconv.runs.journal import Journal
from gpuconv.train import Interrupted, Stepper, loop
from gpuconv.train.step import NotFiniteError


def go(folder: Path, **settings) -> train.Result:
    return train.train(dataclasses.replace(TINY, **settings), folder=folder, dataset=shapes(), progress="none")


def kinds(folder: Path) -> list[str]:
    return [event["event"] for event in journal.read(folder)]


def timeless(folder: Path, *, without: tuple[str, ...] = ()) -> list[dict]:
    """Return the events without what differs between equal runs."""
    dropped = ("time", "seconds", "images_per_second")
    events = [event for event in journal.read(folder) if event["event"] not in without]
    return [{name: value for name, value in event.items() if name not in dropped} for event in events]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of TINY from the first step to the last."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    go(folder)
    return folder


# What is written ----------------------------------------------------------------------------------------------------


def test_the_events_of_a_run_are_in_order(finished):
    epoch = ["step"] * 10 + ["epoch", "best"]
    found = kinds(finished)
    assert found[0] == "start"
    assert found[1:13] == epoch
    assert found[-1] == "end"
    assert [event["step"] for event in journal.read(finished) if event["event"] == "step"] == list(range(1, 21))


def test_the_start_says_what_is_trained_on_what(finished):
    start = journal.read(finished)[0]
    assert start["data"] == shapes().name
    assert start["classes"] == list(shapes().classes)
    assert (start["training_images"], start["validation_images"], start["test_images"]) == (200, 100, 60)
    assert (start["epochs"], start["steps"]) == (2, 20)
    assert (start["step"], start["epoch"]) == (0, 1)


def test_the_steps_and_epochs_are_those_of_the_metrics(finished):
    events = journal.read(finished)
    rows = train.Run(finished).metrics
    assert [{name: event[name] for name in rows[0]} for event in events if event["event"] == "epoch"] == rows
    for row in rows:
        steps = [event for event in events if event["event"] == "step" and event["epoch"] == row["epoch"]]
        assert sum(step["loss"] for step in steps) / 10 == pytest.approx(row["train_loss"], rel=1e-12)
        assert sum(step["accuracy"] for step in steps) / 10 == pytest.approx(row["train_accuracy"], rel=1e-12)
        assert steps[-1]["learning_rate"] == row["learning_rate"]


def test_a_long_run_writes_about_a_thousand_steps(tmp_path):
    asked = []
    for steps in (1, 999, 5500):
        folder = tmp_path / str(steps)
        folder.mkdir()
        with Journal(folder, steps=steps) as events:
            for step in range(1, steps + 1):
                events.step(step, 1, lambda step=step: asked.append(step) or {"loss": 1.0})
        assert kinds(folder) == ["step"] * len(asked)
        assert len(asked) <= 1101
        assert asked[0] == 1
        asked.clear()


def test_every_line_is_on_the_disk_when_the_call_returns(tmp_path):
    events = Journal(tmp_path, steps=3)
    events.start({"data": "x"})
    events.step(1, 1, lambda: {"loss": 0.5})
    assert kinds(tmp_path) == ["start", "step"]


def test_the_end_says_what_ended_the_run_and_what_it_has_not(tmp_path):
    result = go(tmp_path / "run", validation=0, patience=0)
    end = journal.read(tmp_path / "run")[-1]
    assert (end["event"], end["ended_by"], end["step"], end["epoch"]) == ("end", "epochs", 20, 2)
    assert end["validation_accuracy"] is None
    assert end["test_accuracy_tta"] is None
    assert end["test_accuracy"] == result.test_accuracy
    assert "date" not in end


def test_the_epoch_of_every_line_is_the_one_in_progress(tmp_path):
    go(tmp_path / "run", checkpoint_every=4)
    for event in journal.read(tmp_path / "run"):
        step = max(event["step"], 1)
        assert event["epoch"] == (step - 1) // 10 + 1
    saved = [(event["step"], event["epoch"]) for event in journal.read(tmp_path / "run") if event["event"] == "saved"]
    assert saved == [(4, 1), (8, 1), (12, 2), (16, 2)]


def test_a_run_that_goes_on_says_within_which_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "conclude", lambda run: run.guard.__setattr__("signum", 2) or run.guard.check())
    with pytest.raises(Interrupted):
        go(tmp_path / "over")
    monkeypatch.undo()
    train.resume(tmp_path / "over", dataset=shapes(), progress="none")
    own = ("interrupted", "resumed")
    found = [
        (event["event"], event["step"], event["epoch"])
        for event in journal.read(tmp_path / "over")
        if event["event"] in own
    ]
    assert found == [("interrupted", 20, 2), ("resumed", 20, 2)]
    with Journal(tmp_path, steps=40, resumed_step=10, epochs=1) as events:
        events.step(21, 3, dict)
        events.event("saved")
    assert [(event["step"], event["epoch"]) for event in journal.read(tmp_path)] == [(10, 2), (21, 3), (21, 3)]


def test_a_run_that_fails_leaves_a_line_with_the_reason(tmp_path, monkeypatch):
    real = Stepper.step

    def bad(self, batch, step):
        if step == 10:
            what = "the loss is nan"
            raise NotFiniteError(what, step)
        real(self, batch, step)

    monkeypatch.setattr(Stepper, "step", bad)
    with pytest.raises(NonFiniteLossError):
        go(tmp_path / "run")
    failed = journal.read(tmp_path / "run")[-1]
    assert (failed["event"], failed["step"], failed["epoch"]) == ("failed", 10, 2)
    assert failed["message"].startswith("the loss is nan in epoch 2, step 11, at a learning rate of 0.0143.  ")
    assert "of step 10 are kept in last.safetensors" in failed["message"]
    assert str(tmp_path) not in failed["message"]


# Going on -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 9, 10, 11, 20])
def test_an_interrupted_run_ends_with_the_events_of_the_whole_one(step, finished, tmp_path, monkeypatch):
    real, seen = Stepper.step, []

    def watched(self, *arguments):
        seen.append(None)
        if len(seen) == step:
            signal.raise_signal(signal.SIGINT)
        return real(self, *arguments)

    monkeypatch.setattr(Stepper, "step", watched)
    with pytest.raises(Interrupted):
        go(tmp_path / "run")
    assert kinds(tmp_path / "run")[-1] == "interrupted"
    train.resume(tmp_path / "run", dataset=shapes(), progress="none")
    own = ("interrupted", "resumed")
    assert timeless(tmp_path / "run", without=own) == timeless(finished)
    assert [kind for kind in kinds(tmp_path / "run") if kind in own] == list(own)


def test_what_lies_after_the_checkpoint_is_cut(tmp_path):
    with Journal(tmp_path, steps=40) as events:
        events.start({})
        for step in range(1, 11):
            events.step(step, 1, lambda: {"loss": 1.0})
        events.epoch({"epoch": 1, "step": 10, "validation_accuracy": 0.5}, best=True)
        events.step(11, 2, lambda: {"loss": 1.0})
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "step", "ti')  # killed within a line
    # The checkpoint of step 10 was written before the epoch had been validated: the epoch comes again.
    with Journal(tmp_path, steps=40, resumed_step=10, epochs=0):
        pass
    assert kinds(tmp_path) == ["start", *["step"] * 10, "resumed"]
    assert journal.read(tmp_path)[-1]["step"] == 10


def test_a_run_resumed_at_the_end_of_an_epoch_keeps_it(tmp_path):
    with Journal(tmp_path, steps=40) as events:
        events.epoch({"epoch": 1, "step": 10, "validation_accuracy": 0.5}, best=True)
    with Journal(tmp_path, steps=40, resumed_step=10, epochs=1):
        pass
    assert kinds(tmp_path) == ["epoch", "best", "resumed"]


@pytest.mark.parametrize(
    "damage", [b"\x00" * 50, b"\xff\xfe\n", b'["step"]\n', b'{"event": 3}\n', b"[" * 100_000, b"\n\n"]
)
def test_damaged_lines_are_passed_over(damage, tmp_path):
    (tmp_path / "events.jsonl").write_bytes(b'{"event": "start"}\n' + damage + b'\n{"event": "end"}\n')
    assert kinds(tmp_path) == ["start", "end"]


def test_a_folder_without_journal_has_no_events(tmp_path):
    assert journal.read(tmp_path) == []


# What goes wrong ----------------------------------------------------------------------------------------------------


def test_a_full_disk_is_a_checkpoint_that_could_not_be_written(tmp_path, monkeypatch):
    events = Journal(tmp_path, steps=5)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(CheckpointWriteError, match=r"events\.jsonl could not be written \(No space left on device\)"):
        events.start({})


def test_a_run_that_cannot_write_its_journal_ends_like_one_that_cannot_write_its_checkpoint(tmp_path, monkeypatch):
    def full(*_, **__):
        msg = "full"
        raise CheckpointWriteError(msg)

    monkeypatch.setattr(Journal, "_write", full)
    with pytest.raises(CheckpointWriteError, match="full"):
        go(tmp_path / "run")


# env.json -----------------------------------------------------------------------------------------------------------


def test_the_environment_names_machine_versions_and_settings(finished, monkeypatch):
    record = json.loads((finished / "env.json").read_text())
    assert set(record) == {"machine", "versions", "packages", "cuda", "variables"}
    assert record["versions"]["gpuconv"]
    assert record["cuda"]
    monkeypatch.setenv("GPUCONV_THREADS", "1")
    monkeypatch.setenv("GPUCONV_DATA", "/home/someone/data")
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    found = machine.environment()["variables"]
    assert found["GPUCONV_THREADS"] == "1"
    assert found["GPUCONV_DATA"] == "(a path)"
    assert "SOMETHING_ELSE" not in found


def test_the_record_of_a_cpu_run_imports_nothing_of_cuda(tmp_path):
    code = """
import sys
import gpuconv
from gpuconv.runs import machine
gpuconv.use("cpu")
record = machine.environment()
assert record["cuda"] == "not looked for: only the CPU was asked for", record["cuda"]
assert not {"cupy", "nvrtc", "cublas", "cuda_driver", "cuda_runtime"} & record["versions"].keys()
assert not {"cupy", "gpuconv.cuda.device", "gpuconv.cuda.installed"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tensorboard_that_is_gone_is_said_when_the_run_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    go(tmp_path / "run", tensorboard=True)
    (tmp_path / "run" / "result.json").unlink()
    before = (tmp_path / "run" / "events.jsonl").read_bytes()
    monkeypatch.setattr(board.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[tensorboard\]' in the checkout$"):
        train.resume(tmp_path / "run", dataset=shapes(), progress="none")
    assert (tmp_path / "run" / "events.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", ["env.json", "events.jsonl", "report.html"])
def test_nothing_says_whose_machine_it_was(name, finished):
    text = re.sub(r"base64,[\w+/=]*", "", (finished / name).read_text())  # pictures hold any letters
    for secret in (str(finished.parent), str(Path.home()), str(Path.cwd()), "site-packages"):
        assert secret not in text
    assert not re.search(rf"\b{re.escape(platform.node())}\b", text)
    assert f'"{getpass.getuser()}"' not in text


PATHS = {
    "posix": ("libcuda at /usr/lib/libcuda.so.1: no", "libcuda at (a path): no"),
    "windows": (r"in C:\Users\me\x, no", "in (a path), no"),
    "home": ("~/data", "(a path)"),
    "none": ("0.3/2 and 4/5 are numbers", "0.3/2 and 4/5 are numbers"),
}


@pytest.mark.parametrize(("text", "wanted"), PATHS.values(), ids=PATHS.keys())
def test_paths_are_taken_out_of_texts(text, wanted):
    assert machine.without_paths(text) == wanted


# TensorBoard --------------------------------------------------------------------------------------------------------


def board_events(path: Path) -> list:
    """Return the messages of a TensorBoard file, each checked against its length and checksums."""
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import masked_crc32c

    content, found = path.read_bytes(), []
    while content:
        (size,) = struct.unpack("<Q", content[:8])
        assert struct.unpack("<I", content[8:12]) == (masked_crc32c(content[:8]),)
        body = content[12 : 12 + size]
        assert struct.unpack("<I", content[12 + size : 16 + size]) == (masked_crc32c(body),)
        found.append(event_pb2.Event.FromString(body))
        content = content[16 + size :]
    return found


def board_values(folder: Path) -> dict[tuple[int, str], float]:
    """Return the numbers in the one file of a folder by step and tag."""
    (path,) = folder.glob("events.out.*")
    assert platform.node() not in path.name
    first, *others = board_events(path)
    assert first.file_version == "brain.Event:2"
    return {(each.step, value.tag): value.simple_value for each in others for value in each.summary.value}


def test_tensorboard_has_train_validation_and_test_by_one_tag(tmp_path):
    pytest.importorskip("tensorboardX")
    result = go(tmp_path / "run", tensorboard=True)
    values = {part: board_values(tmp_path / "run" / "tensorboard" / part) for part in ("train", "validation", "test")}
    for row in result.metrics:
        for part in ("train", "validation"):
            for name in ("loss", "accuracy"):
                wanted = pytest.approx(row[f"{part}_{name}"], rel=1e-6)  # a float32
                assert values[part][row["step"], f"epoch/{name}"] == wanted
        assert values["train"][row["step"], "epoch/learning_rate"] == pytest.approx(row["learning_rate"], rel=1e-6)
    assert values["test"] == {
        (20, "epoch/accuracy"): pytest.approx(result.test_accuracy, rel=1e-6),
        (20, "epoch/loss"): pytest.approx(result.test_loss, rel=1e-6),
    }
    assert sum(tag == "step/loss" for _, tag in values["train"]) == 20
    assert {tag for _, tag in values["validation"]} == {"epoch/loss", "epoch/accuracy"}


def test_tensorboard_knows_the_settings_and_where_their_results_are(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto import plugin_hparams_pb2

    go(tmp_path / "run", tensorboard=True, data_dir="")
    (path,) = (tmp_path / "run" / "tensorboard").glob("events.out.*")
    found = {}
    for event in board_events(path):
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "hparams"
            content = value.metadata.plugin_data.content
            found[value.tag] = plugin_hparams_pb2.HParamsPluginData.FromString(content)
    assert [*found] == [f"_hparams_/{name}" for name in ("experiment", "session_start_info", "session_end_info")]
    experiment = found["_hparams_/experiment"].experiment
    assert {(metric.name.group, metric.name.tag) for metric in experiment.metric_infos} == {
        (part, f"epoch/{name}") for part in ("train", "validation", "test") for name in ("loss", "accuracy")
    }
    values = found["_hparams_/session_start_info"].session_start_info.hparams
    assert values["lr"].number_value == 0.02
    assert values["flip"].bool_value is True
    assert values["widths"].string_value == "4"
    assert {info.name for info in experiment.hparam_infos} == set(values)
    assert "data_dir" not in values
    assert found["_hparams_/session_end_info"].session_end_info.status == 1


def test_tensorboard_forgets_what_lies_after_the_checkpoint(tmp_path):
    pytest.importorskip("tensorboardX")
    for resumed in (None, 7):
        with Journal(tmp_path, steps=20, resumed_step=resumed, tensorboard={"lr": 0.1}) as events:
            events.epoch({"epoch": 1, "step": 10, "validation_accuracy": None, "train_loss": 1.5}, best=False)
    first, second = sorted((tmp_path / "tensorboard" / "train").iterdir())
    assert not any(event.HasField("session_log") for event in board_events(first))
    mark = board_events(second)[1]
    assert (mark.step, mark.session_log.status) == (8, mark.session_log.START)
    assert [value.tag for value in board_events(second)[2].summary.value] == ["epoch/loss"]


def test_tensorboard_that_is_not_installed_is_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(board.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[tensorboard\]' in the checkout$"):
        go(tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()
