"""The command line: exit codes, messages, and runs that are killed, stopped and gone on with in real processes."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import numpy as np
import pytest
from train_helpers import TINY, assert_same_run, metrics, names, run_state, shapes

from gpuconv import cli, data, doctor, train
from gpuconv.backend import on_gpu
from gpuconv.data import sources
from gpuconv.errors import DatasetMissingError, DownloadError
from gpuconv.runs import evaluation, sealed
from gpuconv.runs.settings import read
from gpuconv.train import Run

FLAGS = [
    *("--widths", "4", "--epochs", "2", "--batch-size", "20", "--lr", "0.02", "--data", "shapes"),
    *("--crop", "4", "--pad-mode", "zero", "--flip-mode", "random", "--warmup-steps", "0"),
    *("--validation", "100", "--train-images", "200", "--test-images", "60"),
]  # TINY in words
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of TINY from the first step to the last."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return train.train(TINY, folder=folder, dataset=shapes(), progress="none")


def start(*arguments: object, folder: Path, place: str = "never", signals: str = "SIGTERM") -> subprocess.Popen:
    """Start the command in a process of its own, see train_process.py."""
    program = Path(__file__).parent / "train_process.py"
    return subprocess.Popen(
        [sys.executable, "-W", "error", program, place, signals, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Wait for a process; one that does not end is killed, for it would go on beside the tests that follow.

    So are its pipes closed: left to be collected, they would be warned of, and fail one of those tests.
    """
    with process:
        try:
            out, err = process.communicate(timeout=100)
        finally:
            process.kill()
    return process.returncode, out, err


# Real processes -----------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("place", ["step:7", "step:13", "replace:7", "evaluate:2"])
def test_a_run_that_is_killed_goes_on_to_the_same_bits(place, gpuconv, finished, tmp_path):
    """step: mid-epoch, between checkpoints; replace: while a checkpoint is being put in place; evaluate: after epoch 2."""
    run = tmp_path / "runs" / "convnet-1"
    code, _, err = finish(
        start("train", *FLAGS, "--checkpoint-every", 3, folder=tmp_path, place=place, signals="SIGKILL")
    )
    assert (code, err) == (-signal.SIGKILL, "")
    assert not (run / "result.json").exists()
    code, out, err = gpuconv("train", "--resume", run)
    assert (code, err) == (0, "")
    assert f"going on with {run}" in out
    wanted, found = (run_state(folder / "last.safetensors") for folder in (finished.folder, run))
    assert found[0] == wanted[0]
    assert found[1]["position"] == wanted[1]["position"]
    assert metrics(run) == metrics(finished.folder)
    assert not list(run.glob(".*.part"))


@pytest.mark.long
@pytest.mark.usefixtures("hang_up_heard")
@pytest.mark.parametrize("name", [signum.name for signum in train.signals.SIGNALS])
def test_a_signal_stops_after_the_step_and_says_how_to_go_on(name, finished, tmp_path):
    code, out, err = finish(start("train", *FLAGS, folder=tmp_path, place="step:14", signals=name))
    assert code == 128 + signal.Signals[name]
    assert err == f"gpuconv: stopped by {name}; to go on: gpuconv train --resume runs/convnet-1\n"
    assert "  1/2" in out
    assert "  2/2" not in out
    run = tmp_path / "runs" / "convnet-1"
    assert run_state(run / "last.safetensors")[1]["optimizer"]["steps"] == 14
    code, _, err = finish(start("train", "--resume", "runs/convnet-1", folder=tmp_path))
    assert (code, err) == (0, "")
    assert_same_run(run, finished.folder)


@pytest.mark.long
def test_a_second_signal_stops_at_once_and_keeps_the_last_checkpoint(tmp_path):
    code, _, err = finish(start("train", *FLAGS, folder=tmp_path, place="step:14", signals="SIGINT+SIGINT"))
    assert (code, err) == (130, "gpuconv: stopped at once\n")
    folder = tmp_path / "runs" / "convnet-1"
    assert run_state(folder / "last.safetensors")[1]["optimizer"]["steps"] == 10
    assert not list(folder.glob(".*.part"))


@pytest.mark.long
def test_a_signal_from_outside_stops_a_long_run(tmp_path):
    flags = [*FLAGS, "--epochs", "100000"]
    process = start("train", *flags, folder=tmp_path)
    for line in process.stdout:
        if line.startswith("  2/100000"):
            break
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert "gpuconv train --resume runs/convnet-1" in err
    assert run_state(tmp_path / "runs" / "convnet-1" / "last.safetensors")[1]["optimizer"]["steps"] >= 20


@pytest.mark.long
def test_runs_that_start_at_once_do_not_meet(finished, tmp_path):
    processes = [start("train", *FLAGS, folder=tmp_path) for _ in range(2)]
    for process in processes:
        code, _, err = finish(process)
        assert (code, err) == (0, "")
    for number in (1, 2):
        assert_same_run(tmp_path / "runs" / f"convnet-{number}", finished.folder)


def as_module(*arguments: str, folder: Path, **streams) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "gpuconv", *arguments],
        text=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}, stderr=subprocess.PIPE, **streams,
    )  # fmt: skip


def test_the_package_runs_as_a_module(tmp_path):
    code, out, err = finish(as_module("--version", folder=tmp_path, stdout=subprocess.PIPE))
    assert (code, err) == (0, "")
    assert re.fullmatch(r"gpuconv \d+\.\d+\.\d+\S*\n", out)


def test_output_that_nobody_reads_is_no_traceback(tmp_path):
    process = as_module("doctor", folder=tmp_path, stdout=subprocess.PIPE)
    process.stdout.close()
    process.stdout = None
    assert finish(process) == (1, None, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_does_not_fit_is_one_message(tmp_path):
    with Path("/dev/full").open("w") as full:
        code, _, err = finish(as_module("doctor", folder=tmp_path, stdout=full))
    assert (code, err) == (1, "gpuconv: error: [Errno 28] No space left on device\n")


# train --------------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("progress", ["plain", "bar"])
def test_training_goes_on_when_nobody_reads_any_more(progress, finished, tmp_path):
    process = as_module("train", *FLAGS, "--progress", progress, folder=tmp_path, stdout=subprocess.PIPE)
    process.stdout.close()
    process.stdout = None
    code, _, err = finish(process)
    assert (code, err) == (0, "nothing more is shown (Broken pipe); the work goes on\n")
    assert Run(tmp_path / "runs" / "convnet-1").finished


@pytest.mark.long
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_training_goes_on_when_the_disk_of_its_output_is_full(tmp_path):
    with Path("/dev/full").open("w") as full:
        code, _, err = finish(as_module("train", *FLAGS, folder=tmp_path, stdout=full))
    assert (code, err) == (0, "nothing more is shown (No space left on device); the work goes on\n")
    assert Run(tmp_path / "runs" / "convnet-1").finished


@pytest.mark.long
def test_neither_stream_needs_a_reader(tmp_path):
    process = as_module("train", *FLAGS, folder=tmp_path, stdout=subprocess.PIPE)
    for stream in (process.stdout, process.stderr):
        stream.close()
    process.stdout = process.stderr = None
    finish(process)
    assert Run(tmp_path / "runs" / "convnet-1").finished


def test_train_shows_a_line_for_each_epoch_and_the_outcome(gpuconv, finished):
    code, out, err = gpuconv("train", *FLAGS)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    at = lines.index("epoch    train loss   training   validation   learning rate   seconds")
    for number, (line, row) in enumerate(zip(lines[at + 1 : at + 3], finished.metrics, strict=True)):
        fields = line.split()
        assert fields[0] == f"{number + 1}/2"
        assert fields[1] == f"{row['train_loss']:.4f}"
        assert fields[2] == f"{row['train_accuracy']:.2%}"
        assert fields[3] == f"{row['validation_accuracy']:.2%}"
        assert float(fields[4]) == pytest.approx(row["learning_rate"], rel=1e-2)
    assert f"{shapes().name}: 200 train, 100 validation, 60 test" in " ".join(out.split())
    assert f"test {finished.test_accuracy:.2%} of 60 images" in out
    assert "gpuconv eval runs/convnet-1" in out


def test_a_dry_run_shows_net_memory_and_time_and_leaves_nothing(gpuconv, tmp_path):
    code, out, err = gpuconv("train", *FLAGS, "--dry-run", "--tta", "flip")
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    for text in ("conv1     Conv(3, 4", "memory   ", "a step   ", "a test   ", "for 20 steps", "nothing was written"):
        assert text in out
    assert names(tmp_path) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpuconv-feed")]


def test_a_dry_run_that_blows_up_says_so(gpuconv, tmp_path):
    code, _, err = gpuconv("train", *FLAGS, "--dry-run", "--lr", "1e38", "--schedule", "constant")
    assert code == 5
    assert re.search(
        r"epoch 1, step \d, at a learning rate of 1e\+38\.  Nothing was saved; lower --lr \(1e\+38 now\), or --clip-norm 1; "
        r"gpuconv find-lr looks for a rate$",
        err.strip(),
    )
    assert names(tmp_path) == []


def test_a_rate_too_high_is_warned_of_in_the_words_of_the_command(gpuconv, tmp_path):
    code, out, _ = gpuconv(
        "train", *FLAGS, "--schedule", "constant", "--lr", "3", "--run-dir", "run", "--max-steps", "5"
    )
    assert code == 0
    warning = " ".join(out[out.index("the loss of step") :].split("\n", 3)[:3]).removesuffix(" ")
    assert warning.endswith("high for a run of 5 steps, try --lr 0.6, or what gpuconv find-lr suggests")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert [event["message"] for event in Run(tmp_path / "run").events if event["event"] == "warning"] == [warning]


def test_seeds_are_runs_of_their_own_with_a_table(gpuconv, finished, tmp_path):
    code, out, err = gpuconv("train", *FLAGS, "--seeds", "2", "--progress", "plain")
    assert (code, err) == (0, "")
    folder = tmp_path / "runs" / "convnet-seeds-1"
    assert names(folder) == [".lock", "config.toml", "origin.json", "plan.json", "seed-0", "seed-1", "seeds.json"]
    assert_same_run(folder / "seed-0", finished.folder)
    record = json.loads((folder / "seeds.json").read_text())
    accuracies = [json.loads((folder / f"seed-{i}" / "result.json").read_text())["test_accuracy"] for i in (0, 1)]
    assert [run["test_accuracy"] for run in record["seeds"]] == accuracies
    found = record["statistics"]["test_accuracy"]
    assert found["mean"] == pytest.approx(sum(accuracies) / 2)
    assert found["standard_deviation"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    assert "test_accuracy_tta" not in record["statistics"]
    lines = out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("seed   "))
    assert [line.split()[0] for line in lines[at + 1 :]] == ["0", "1", "-" * 61, "mean", "deviation", "everything"]
    assert lines[at + 1].split()[2] == f"{accuracies[0]:.2%}"
    assert lines[at + 4].split()[2] == f"{found['mean']:.2%}"
    assert all(len(line) <= 80 for line in lines[at:])


def test_interrupted_seeds_go_on(gpuconv, tmp_path, monkeypatch):
    real, calls = train.Stepper.step, []

    def stops(self, *arguments):
        calls.append(None)
        if len(calls) == 25:  # in the second run
            signal.raise_signal(signal.SIGTERM)
        real(self, *arguments)

    monkeypatch.setattr(train.Stepper, "step", stops)
    code, _, err = gpuconv("train", *FLAGS, "--seeds", "3", "--run-dir", "all", "--progress", "none")
    assert (code, err) == (143, "gpuconv: stopped by SIGTERM; to go on: gpuconv train --resume all\n")
    monkeypatch.setattr(train.Stepper, "step", real)
    code, out, err = gpuconv("train", "--resume", "all", "--progress", "none")
    assert (code, out, err) == (0, "", "")
    whole = train.train_seeds(TINY, 3, folder=tmp_path / "whole", dataset=shapes(), progress="none")
    for seed in whole.seeds:
        assert_same_run(tmp_path / "all" / f"seed-{seed}", whole.folder / f"seed-{seed}")
    found, wanted = (json.loads((folder / "seeds.json").read_text()) for folder in (tmp_path / "all", whole.folder))
    for record in (found, wanted):
        del record["statistics"]["seconds"]
        for run in record["seeds"]:
            del run["seconds"]
    assert found == wanted


def test_overfit_changes_what_stands_in_its_way_and_nothing_that_was_given(gpuconv, tmp_path):
    flags = (
        "--widths",
        "4",
        "--data",
        "shapes",
        "--test-images",
        "60",
        "--overfit",
        "20",
        "--epochs",
        "2",
        "--crop",
        "1",
    )
    code, out, _ = gpuconv("train", *flags)
    assert code == 0
    config = read(tmp_path / "runs" / "convnet-1" / "config.toml")
    assert (config.overfit, config.batch_size, config.epochs, config.crop, config.flip) == (20, 20, 2, 1, False)
    assert (config.weight_decay, config.label_smoothing) == (0.0, 0.0)
    assert "of the 20 images it was trained on" in out


NAMES = {
    "preset": ([], "convnet"),
    "another_preset": (["--preset", "three-layer"], "three-layer"),
    "net_of_another_preset": (["--net", "three-layer"], "three-layer"),
    "file": (["--net", "my_net.toml"], "my_net"),
    "file_of_a_strange_name": (["--net", "nets/.My net (2).toml"], "My-net-2-"),
    "given": (["--net", "my_net.toml", "--name", "mine"], "mine"),
}


@pytest.mark.parametrize(("arguments", "name"), NAMES.values(), ids=NAMES.keys())
def test_runs_are_called_by_their_nets(arguments, name, gpuconv, tmp_path):
    (tmp_path / "nets").mkdir()
    for file in ("my_net.toml", "nets/.My net (2).toml"):
        (tmp_path / file).write_text('[[layer]]\nkind = "affine"\n')
    assert gpuconv("train", *FLAGS[2:], *arguments, "--hidden", "4", "--filters", "2", "--max-steps", "1")[0] == 0
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()] == [f"{name}-1"]


def test_progress_none_is_silent(gpuconv):
    assert gpuconv("train", *FLAGS, "--progress", "none") == (0, "", "")


def test_flags_are_the_settings(gpuconv, tmp_path):
    flags = [*FLAGS, "--preset", "three-layer", "--filters", "3", "--hidden", "5", "--no-flip", "--seed", "7"]
    assert gpuconv("train", *flags, "--name", "mine", "--max-steps", "2")[0] == 0
    config = read(tmp_path / "runs" / "mine-1" / "config.toml")
    assert (config.net, config.optimizer) == ("three-layer", train.PRESETS["three-layer"].optimizer)
    assert (config.filters, config.hidden, config.flip, config.seed, config.max_steps) == (3, 5, False, 7, 2)
    assert config.widths == (4,)


def test_a_config_file_repeats_a_run_and_flags_change_it(gpuconv, finished, tmp_path):
    assert gpuconv("train", "--config", finished.folder / "config.toml", "--run-dir", "again")[0] == 0
    assert_same_run(tmp_path / "again", finished.folder)
    assert gpuconv("train", "--config", finished.folder / "config.toml", "--epochs", 1, "--run-dir", "short")[0] == 0
    assert len(metrics(tmp_path / "short")) == 1


def test_every_setting_is_a_flag():
    fields = set(train.Config.__dataclass_fields__)
    parser = next(
        action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction)
    ).choices["train"]
    flags = {action.dest for action in parser._actions}
    assert fields <= flags


def test_resume_takes_no_settings_but_the_place_of_the_data_and_how_a_gpu_is_asked(gpuconv, finished):
    code, _, err = gpuconv(
        "train", "--resume", finished.folder, "--epochs", 3, "--batch-size", 5, "--preset", "convnet"
    )
    assert code == 2
    assert "leave out --preset, --batch-size; what can be changed is its end, in a new run: --epochs" in err
    assert gpuconv("train", "--resume", finished.folder, "--data-dir", finished.folder, "--graph", "auto")[0] == 0
    code, _, err = gpuconv("train", "--resume", finished.folder, "--graph", "on")
    assert (code, err) == (
        2,
        'gpuconv: error: graph "on" needs a GPU, and this run is on the CPU: leave graph at "auto"\n',
    )


def test_a_loss_that_is_no_number_exits_with_5(gpuconv):
    code, _, err = gpuconv("train", *FLAGS, "--lr", "1e30")
    assert code == 5
    assert re.fullmatch(r"gpuconv: error: the loss is (nan|inf) in epoch 1, step \d+, at a learning rate of .*\n", err)


def test_a_gpu_that_cannot_be_used_exits_with_1(gpuconv):
    code, _, err = gpuconv("train", *FLAGS, "--device", "cuda")
    if code == 0:
        pytest.skip("there is a GPU")
    assert code == 1
    assert "cpu" in err


def test_a_corrupt_checkpoint_exits_with_1_and_names_the_other(gpuconv, tmp_path):
    gpuconv("train", *FLAGS, "--run-dir", "run")
    path = tmp_path / "run" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    code, _, err = gpuconv("train", "--resume", "run")
    assert code == 1
    assert "run/last.safetensors is corrupt" in err
    assert "gpuconv train --resume run/best.safetensors" in err
    assert gpuconv("train", "--resume", "run/best.safetensors")[0] == 0


def test_memory_that_runs_out_is_one_message(gpuconv, monkeypatch):
    def too_much(*_, **__):
        msg = "Unable to allocate 93 GiB"
        raise MemoryError(msg)

    monkeypatch.setattr(train, "train", too_much)
    code, _, err = gpuconv("train", *FLAGS)
    assert code == 1
    assert err.startswith("gpuconv: error: out of memory (Unable to allocate 93 GiB)")


def test_an_error_of_cupy_s_own_is_one_message(gpuconv, monkeypatch):
    """As CuPy's arithmetic raises it, outside of our launches."""

    class CUDARuntimeError(RuntimeError):
        __module__ = "cupy_backends.cuda.api.runtime"
        status = 700

    def broken(*_, **__):
        msg = "cudaErrorIllegalAddress: an illegal memory access was encountered"
        raise CUDARuntimeError(msg)

    monkeypatch.setattr(train, "train", broken)
    monkeypatch.setitem(sys.modules, "cupy", None)
    code, _, err = gpuconv("train", *FLAGS)
    assert code == 1
    assert err.startswith("gpuconv: error: the GPU: an earlier kernel failed (cudaErrorIllegalAddress")
    assert len(err.splitlines()) == 1


def test_a_mistake_of_the_program_keeps_its_traceback(gpuconv, monkeypatch):
    def broken(*_, **__):
        raise KeyError

    monkeypatch.setattr(train, "train", broken)
    with pytest.raises(KeyError):
        gpuconv("train", *FLAGS)


BAD = {
    "unknown_command": (["trian"], "invalid choice: 'trian'; did you mean train?\ngpuconv --help shows"),
    "command_of_another_name": (["evaluate", "x"], "invalid choice: 'evaluate'; did you mean eval?"),
    "command_like_no_other": (["zzz"], "invalid choice: 'zzz'; choose from train, find-lr, runs, eval, predict, plot"),
    "unknown_data_command": (["data", "gett"], "invalid choice: 'gett'; did you mean get?"),
    "unknown_data_set": (["data", "get", "cifar1"], "invalid choice: 'cifar1'; did you mean cifar10?"),
    "unknown_flag": (
        ["train", "--epoch", "3"],
        "unrecognized arguments: --epoch 3; did you mean --epochs?\ngpuconv train --help shows",
    ),
    "unknown_flag_with_its_value": (["train", "--batchsize=3"], "--batchsize=3; did you mean --batch-size?"),
    "flag_of_another_name": (["train", "--learning-rate", "1"], "--learning-rate 1; did you mean --lr?"),
    "two_unknown_flags": (
        ["train", "--bs", "1", "--no-flipp"],
        "--bs 1 --no-flipp; did you mean --batch-size --no-flip?",
    ),
    "flag_like_no_other": (["train", "--zzz"], "unrecognized arguments: --zzz\ngpuconv train --help shows"),
    "unknown_flag_of_eval": (["eval", "x", "--chekpoint", "last"], "--chekpoint last; did you mean --checkpoint?"),
    "unknown_flag_of_bench": (["bench", "--devise", "cpu"], "--devise cpu; did you mean --device?"),
    "unknown_flag_of_data": (["data", "show", "x", "--imgsz", "8"], "--imgsz 8; did you mean --image-size?"),
    "a_word_too_much": (["train", "3"], "unrecognized arguments: 3\n"),
    "zero_batch": (["train", "--batch-size", "0"], "batch_size must be an int from 1"),
    "negative_epochs": (["train", "--epochs", "-1"], "epochs must be an int from 1"),
    "fractional_epochs": (["train", "--epochs", "1.5"], "argument --epochs: invalid int value: '1.5'"),
    "nan_rate": (["train", "--lr", "nan"], "lr must be finite, at least 0, got lr=nan"),
    "negative_rate": (["train", "--lr", "-1"], "lr must be finite, at least 0"),
    "rate_as_text": (["train", "--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
    "huge_seed": (["train", "--seed", str(2**64)], "seed must be an int from 0 to 2^64 - 1"),
    "misspelt_optimizer": (["train", "--optimizer", "adamm"], "optimizer 'adamm' is not known; did you mean \"adam\"?"),
    "misspelt_preset": (["train", "--preset", "convnett"], "preset 'convnett' is not known; did you mean \"convnet\"?"),
    "bad_widths": (["train", "--widths", "8,,8"], "argument --widths: expected ints with commas between them"),
    "unknown_progress": (["train", *FLAGS, "--progress", "loud"], "progress must be one of auto, bar, plain, none"),
    "missing_data_folder": (["train", *FLAGS, "--data-dir", "nowhere"], "data_dir nowhere does not exist"),
    "missing_config": (["train", "--config", "none.toml"], "config file none.toml could not be read"),
    "config_and_preset": (
        ["train", "--config", "x", "--preset", "convnet"],
        "--config and --preset exclude each other",
    ),
    "two_folders": (["train", "--run-dir", "a", "--name", "b"], "--run-dir and --name exclude each other"),
    "name_with_slash": (["train", *FLAGS, "--name", "a/b"], "name must be letters"),
    "unwritable_folder": (["train", *FLAGS, "--run-dir", "/dev/null/run"], "could not be made"),
    "folder_in_use": (["train", *FLAGS, "--run-dir", "/"], "/ already holds files"),
    "too_many_stages": (["train", *FLAGS, "--widths", "2,2,2,2,2,2"], "6 stages halve the image 6 times"),
    "resume_nothing": (["train", "--resume", "runs/none-1"], "there is no run folder runs/none-1"),
    "resume_without_name": (["train", "--resume"], "argument --resume: expected one argument"),
    "no_seeds": (["train", *FLAGS, "--seeds", "0"], "seeds must be a number from 1 on"),
    "dry_run_with_a_folder": (
        ["train", "--dry-run", "--run-dir", "x"],
        "--dry-run leaves no run behind: leave out --run-dir",
    ),
    "resume_with_seeds": (["train", "--resume", "x", "--seeds", "2"], "leave out --seeds"),
    "resume_dry": (["train", "--resume", "x", "--dry-run"], "leave out --dry-run"),
    "tf32": (
        ["train", "--precision", "tf32"],
        "precision tf32 needs a GPU, and this run is on the CPU: choose float32",
    ),
    "parts_that_do_not_divide": (["train", "--accumulate", "3"], "accumulate must divide batch_size"),
    "eval_unknown_views": (["eval", "x", "--tta", "all"], "tta must be one of none, flip, flip+shift, got 'all'"),
    "eval_nothing": (["eval", "nowhere"], "there is no checkpoint nowhere"),
    "two_folders_of_data": (["train", "--data", "./a", "--data-dir", "b"], "--data ./a is a folder itself"),
    "eval_without_run": (["eval"], "the following arguments are required: RUN"),
    "eval_other_checkpoint": (
        ["eval", "x", "--checkpoint", "first"],
        "invalid choice: 'first'; choose from best, last",
    ),
    "data_without_action": (["data"], "the following arguments are required: COMMAND"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_used_exits_with_2_and_says_why(arguments, message, gpuconv, tmp_path):
    code, out, err = gpuconv(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("gpuconv: error: ")
    assert message in err
    assert "Traceback" not in err
    assert names(tmp_path) == []


@pytest.mark.parametrize("command", ["train", "find-lr", "import", "plot"])
def test_help_fits_a_narrow_terminal(gpuconv, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "60")
    code, out, _ = gpuconv(command, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 60
    monkeypatch.setenv("COLUMNS", "200")
    wide = gpuconv(command, "--help")[1]
    assert out.split() == wide.split()  # no word is broken


def test_help_fits_80_columns_and_documents_the_exit_codes(gpuconv):
    for arguments in (
        [],
        ["--help"],
        ["train", "-h"],
        ["find-lr", "-h"],
        ["runs", "-h"],
        ["eval", "-h"],
        ["plot", "-h"],
        ["compare", "-h"],
        ["data", "-h"],
        ["data", "get", "-h"],
        ["data", "show", "-h"],
        ["doctor", "-h"],
    ):
        code, out, err = gpuconv(*arguments)
        assert (code, err) == (0, "")
        assert all(len(line) <= 80 for line in out.splitlines())
        if arguments[:1] in ([], ["train"], ["eval"]):
            assert "130, 143  stopped by Ctrl-C or SIGTERM, after saving" in out
            assert "129       stopped by SIGHUP, as the terminal was closed, after saving" in out
        if arguments[:1] in (["train"], ["eval"]):
            assert f"examples:\n  gpuconv {arguments[0]} " in out


# eval, data, doctor -------------------------------------------------------------------------------------------------


def test_eval_says_and_draws_what_is_taken_for_what(gpuconv, finished, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, err = gpuconv("eval", finished.folder, "--test-images", 60, "--save", "confusion.svg")
    assert (code, err) == (0, "")
    counts = np.array(json.loads(gpuconv("eval", finished.folder, "--test-images", 60, "--json")[1])["confusion"])
    np.fill_diagonal(counts, 0)
    true, taken = np.unravel_index(counts.argmax(), counts.shape)
    names = shapes().classes
    assert f"most often taken for another: {names[true]} for {names[taken]} " in out
    assert out.endswith("confusion.svg is written\n")
    assert b"<svg" in (tmp_path / "confusion.svg").read_bytes()
    code, _, err = gpuconv("eval", finished.folder, "--save", "confusion.txt")
    assert (code, "a picture's name must end in" in err) == (2, True)


@pytest.mark.parametrize("which", ["best", "last"])
def test_eval_shows_the_accuracy_of_each_class_and_of_all(which, gpuconv, finished):
    code, out, err = gpuconv("eval", finished.folder, "--checkpoint", which, "--test-images", 60)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].endswith(f"{which}.safetensors, after epoch {finished.best_epoch if which == 'best' else 2}:")
    assert f"60 test images of {shapes().name}" in lines[1]
    shown = {line.split()[0]: line.split()[1] for line in lines[3:13]}
    assert tuple(shown) == shapes().classes
    if which == "best":
        record = json.loads((finished.folder / "result.json").read_text())
        assert shown == {name: f"{share:.2%}" for name, share in record["test_accuracy_by_class"].items()}
        assert lines[14].split()[:2] == ["all", f"{finished.test_accuracy:.2%}"]


def test_eval_averages_views(gpuconv, finished):
    code, out, _ = gpuconv("eval", finished.folder, "--test-images", 60, "--tta", "flip+shift")
    assert code == 0
    assert "scores averaged over the views of tta flip+shift" in out
    pictures, net = shapes(), train.load_net(finished.folder / "best.safetensors")
    wanted = train.evaluate(
        net, pictures.x_test[:60], pictures.y_test[:60],
        mean=pictures.mean, std=pictures.std, classes=10, tta="flip+shift",
    )  # fmt: skip
    assert out.splitlines()[14].split() == ["all", f"{wanted.accuracy:.2%}", "loss", f"{wanted.loss:.4f}"]


def test_eval_takes_a_checkpoint_file_and_all_test_images(gpuconv, finished):
    code, out, _ = gpuconv("eval", finished.folder / "last.safetensors")
    assert code == 0
    assert "100 test images" in out
    assert out.splitlines()[2] == "(the run's own test was of the first 60: --test-images 60 does that one again)"


def test_eval_of_the_same_test_as_the_run_s_says_nothing_of_it(gpuconv, finished):
    assert "own test" not in gpuconv("eval", finished.folder, "--test-images", 60)[1]


@pytest.mark.parametrize(("name", "said"), [("CIFAR-10", "CIFAR-10"), (shapes().name, "another version of it")])
def test_eval_on_other_data_than_the_training_must_be_asked_for(name, said, gpuconv, finished, tmp_path):
    values = sealed.read(finished.folder / "last.safetensors")
    values[1]["data"] = {"name": name, "fingerprint": "0"}
    values[1]["config"]["data"] = "cifar10"
    sealed.write(tmp_path / "x.safetensors", *values)
    code, out, err = gpuconv("eval", "x.safetensors")
    assert (code, out) == (2, "")
    assert f"the run was trained on {name}, the data given or found are others: " in err
    code, out, err = gpuconv("eval", "x.safetensors", "--data", "shapes")
    assert (code, err) == (0, "")
    assert f"(the net was trained on {said})" in out


def test_eval_as_json_has_what_the_table_says(gpuconv, finished):
    code, out, err = gpuconv("eval", finished.folder, "--test-images", 60, "--json", "--device", "cpu")
    assert (code, err) == (0, "")
    found, record = json.loads(out), json.loads((finished.folder / "result.json").read_text())
    assert (found["accuracy"], found["images"], found["notes"]) == (finished.test_accuracy, 60, [])
    assert found["confusion"] == record["confusion"]
    assert {row["class"]: row["accuracy"] for row in found["classes"]} == record["test_accuracy_by_class"]
    assert sum(row["recognised"] for row in found["classes"]) == round(60 * finished.test_accuracy)


def test_eval_computes_where_it_is_told_to(gpuconv, finished, emulated_gpu, monkeypatch):
    seen, real = [], evaluation.evaluate_on

    def watched(net, *arguments, **keywords):
        seen.append(on_gpu(net.flat_params))
        return real(net, *arguments, **keywords)

    monkeypatch.setattr(evaluation, "evaluate_on", watched)
    shown = {
        device: gpuconv("eval", finished.folder, "--test-images", 2, "--device", device) for device in ("cpu", "cuda")
    }
    assert seen == [False, True]
    assert [code for code, _, _ in shown.values()] == [0, 0]
    assert shown["cpu"][1].splitlines()[-1].split()[1] == shown["cuda"][1].splitlines()[-1].split()[1]


def test_eval_on_the_data_of_the_training_says_nothing_of_it(gpuconv, finished):
    assert "the net was trained on" not in gpuconv("eval", finished.folder)[1]


@pytest.mark.parametrize(("arguments", "name"), [((), "cifar10"), (("cifar100",), "cifar100")])
def test_data_get_fetches_and_shows_progress(arguments, name, gpuconv, monkeypatch):
    def fetched(folder, *, progress):
        for done in range(0, 101, 5):
            progress(done * 10**6, 100 * 10**6)
        return Path(folder) / "archive"

    monkeypatch.setattr(sources, f"download_{name}", fetched)
    code, out, _ = gpuconv("data", "get", *arguments, "--data-dir", "here")
    assert code == 0
    assert "50 of 100 MB" in out
    assert out.endswith("here/archive is complete and its SHA-256 is right\n")
    assert len(out.splitlines()) == 11


def test_data_get_that_fails_exits_with_1(gpuconv, monkeypatch):
    def refused(*_, **__):
        msg = "no mirror has it"
        raise DownloadError(msg)

    monkeypatch.setattr(sources, "download_cifar10", refused)
    assert gpuconv("data", "get") == (1, "", "gpuconv: error: no mirror has it\n")


def facts(name: str, *, official: bool = True, problem: str = "") -> data.FileFacts:
    return data.FileFacts(name, 12345, True, "", official, True, problem)


VERIFIED = {
    "original": ([facts("a.bin"), facts("b.bin")], 0, "original"),
    "look_alike": ([facts("a.bin", official=False)], 0, "sound, but not known to be the original CIFAR-10"),
    "broken": ([facts("a.bin"), facts("b.bin", problem="label 11 in record 3")], 1, "label 11 in record 3"),
}


@pytest.mark.parametrize(("rows", "code", "verdict"), VERIFIED.values(), ids=VERIFIED.keys())
def test_data_verify_names_each_file(rows, code, verdict, gpuconv, monkeypatch):
    monkeypatch.setattr(data, "verify", lambda folder, name: rows)
    found, out, _ = gpuconv("data", "verify")
    assert found == code
    assert [line.split()[0] for line in out.splitlines()] == [row.name for row in rows]
    assert out.splitlines()[-1].endswith(verdict)


def test_data_verify_without_data_exits_with_1(gpuconv, monkeypatch, tmp_path):
    code, _, err = gpuconv("data", "verify", "--data-dir", tmp_path)
    assert code == 1
    assert "holds no CIFAR-10" in err


def test_data_show_tells_size_classes_and_statistics(gpuconv, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "load", lambda *_, **__: shapes())
    code, out, err = gpuconv("data", "show", "shapes")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:3] == [
        shapes().name,
        f"source  {shapes().source}",
        "size    32 x 32 pixels (width x height), 3 channels",
    ]
    assert lines[3].split()[1:] == [f"{value:.4f}{',' * (i < 2)}" for i, value in enumerate(shapes().mean)]
    counts = {line.split()[0]: [int(word) for word in line.split()[1:]] for line in lines[7:17]}
    assert tuple(counts) == shapes().classes
    assert [sum(column) for column in zip(*counts.values(), strict=True)] == [300, 100]
    assert lines[-1].split() == ["all", "300", "100"]
    pytest.importorskip("matplotlib")
    code, out, _ = gpuconv("data", "show", "shapes", "--save", tmp_path / "x.png")
    assert code == 0
    assert out.endswith(f"pictures are in {tmp_path / 'x.png'}\n")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = gpuconv("data", "show", "shapes", "--save", tmp_path / "x.nonsense")
    assert code == 2
    assert "x.nonsense cannot be written: " in err


@pytest.fixture
def pets(gpuconv, tmp_path, monkeypatch):
    """Write a folder of 40 + 40 pictures, 8 wide and 10 high, of two colours; let the command read what it is told."""
    monkeypatch.setattr(data, "load", sources.load)
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    rng = np.random.default_rng(8)
    for name, colour in (("cat", 60), ("dog", 180)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(40):
            pixels = (colour + rng.integers(0, 60, (10, 8, 3))).astype(np.uint8)
            image.fromarray(pixels).save(tmp_path / "pets" / name / f"{number}.png")
    return tmp_path / "pets"


def test_a_net_is_trained_and_tested_on_a_folder_of_pictures(gpuconv, pets, tmp_path):
    flags = ("--widths", "4", "--epochs", "6", "--batch-size", "8", "--validation", "8", "--lr", "0.05", "--crop", "1")
    code, out, err = gpuconv("train", "--data", "pets", *flags, "--cutout", "3", "--flip-mode", "alternate")
    assert (code, err) == (0, "")
    assert "pictures in pets: 56 train, 8 validation, 16 test" in out
    record = json.loads((tmp_path / "runs" / "convnet-1" / "result.json").read_text())
    assert record["test_accuracy"] == 1
    assert record["test_accuracy_by_class"] == {"cat": 1, "dog": 1}
    code, out, err = gpuconv("eval", "runs/convnet-1")
    assert (code, err) == (0, "")
    assert "16 test images of pictures in pets" in out
    code, out, err = gpuconv("data", "show", "pets")
    assert (code, err) == (0, "")
    assert "size    8 x 10 pixels (width x height), 3 channels" in out


def test_a_run_tells_no_folder_of_the_machine(gpuconv, pets, tmp_path):
    flags = ("--widths", "4", "--max-steps", "1", "--batch-size", "8", "--validation", "8", "--crop", "1")
    code, _, err = gpuconv("train", "--data", pets, "--image-size", "12", *flags)
    assert (code, err) == (0, "")
    record = (tmp_path / "runs" / "convnet-1" / "result.json").read_text()
    assert str(tmp_path) not in record
    assert json.loads(record)["config"]["data"] == "./pets"  # still a path
    assert json.loads(record)["data"] == "pictures in pets, scaled to 12 x 12 pixels (width x height)"
    code, out, err = gpuconv("eval", "runs/convnet-1", "--data", f"{pets}/.")
    assert (code, err) == (0, "")
    assert "scaled to 12 x 12" in out


def test_a_size_that_does_not_fit_the_net_is_refused(gpuconv, pets):
    few = ("--validation", "8", "--batch-size", "8")
    code, _, err = gpuconv("train", "--data", pets, *few)
    assert code == 2
    assert "height and width must be multiples of 8, got input_shape (3, 10, 8)" in err
    code, _, err = gpuconv("train", "--data", pets, *few, "--widths", "4", "--cutout", "9")
    assert code == 2
    assert "cutout=9 is a square larger than a picture: the pictures are 8 x 10 pixels" in err
    code, _, err = gpuconv("train", "--data", pets, *few, "--widths", "4", "--pad-mode", "reflect", "--crop", "8")
    assert code == 2
    assert "crop=8 shifts further" in err
    code, _, err = gpuconv("train", "--data", pets, "--validation", "64")
    assert code == 2
    assert (
        "pictures in pets has 64 training images: validation=64 leaves 0 to train on: a smaller --validation N" in err
    )


def test_doctor_reports_in_words_and_in_json(gpuconv, monkeypatch):
    monkeypatch.setattr(data, "find_cifar10", lambda: None)
    code, out, err = gpuconv("doctor")
    assert (code, err) == (0, "")
    names = [line.split()[0] for line in out.splitlines()]
    for name in ("gpuconv", "python", "numpy", "blas", "threads", "kernels", "cuda", "CIFAR-10", "terminal"):
        assert name in names
    code, out, _ = gpuconv("doctor", "--json")
    assert code == 0
    assert list(json.loads(out)) == [finding.name for finding in doctor.examine()]


def test_doctor_says_how_to_get_what_commands_need_beyond_the_rest(gpuconv, monkeypatch):
    def version(name, real=importlib.metadata.version):
        if name == "onnx":
            raise importlib.metadata.PackageNotFoundError
        return "7.8.9" if name == "matplotlib" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    code, out, _ = gpuconv("doctor")
    assert code == 0
    lines = [line.split(maxsplit=2) for line in out.splitlines()]
    command = "pip install -e '.[onnx]' in the checkout"
    assert ["extra", "onnx", f"not installed, for nets as ONNX files: {command}"] in lines
    assert ["extra", "plots", "matplotlib 7.8.9"] in lines
    assert "in a checkout: pip install -e '.[NAME]'; from a wheel: pip install 'gpuconv[NAME] @ file://" in out


def test_doctor_fits_the_terminal():
    findings = [doctor.Finding("extra onnx", "not installed, " + "word " * 40), doctor.Finding("x", "y", ok=False)]
    lines = doctor.as_text(findings, 60).splitlines()
    assert max(map(len, lines)) <= 60
    assert {len(line) - len(line.lstrip()) for line in lines[1:-1]} == {len("extra onnx  ")}
    assert lines[-1] == "x           y   <- problem"
    assert " ".join(" ".join(lines[:-1]).split()) == f"extra onnx {findings[0].value}".strip()


def test_doctor_knows_every_extra_that_people_install_by_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    theirs = ("test", "bench", "docs", "emulated12x", "emulated13x")  # of those who work on gpuconv itself
    assert {*doctor.EXTRAS} | {*theirs} >= {*project["optional-dependencies"]}
    for extra, (package, _) in doctor.EXTRAS.items():
        needed = project["optional-dependencies"][extra]
        assert any(re.match(re.escape(package) + r"\b", each) for each in needed), extra


def test_doctor_points_at_problems(gpuconv, monkeypatch):
    def missing():
        msg = "the data folder /x does not exist.\nTo get CIFAR-10 ..."
        raise DatasetMissingError(msg)

    monkeypatch.setattr(data, "find_cifar10", missing)
    monkeypatch.setenv("GPUCONV_THREADS", "many")
    code, out, err = gpuconv("doctor")
    assert (code, err) == (1, "")
    problems = [line for line in out.splitlines() if line.endswith("<- problem")]
    assert [line.split()[0] for line in problems] == ["threads", "CIFAR-10"]
