"""Many processes train one net, by MPI: with the numbers of one process, the same bits twice, and one end for all.

Weights of float64 may be 1e-10 apart, relative to the largest of their array: sums in another order, of some hundred
terms, twenty times over.  Those of float32 after two steps may be as far from float64 as lossy.py says.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from lossy import allowed, lossy_cpu
from process_trainings import pictures
from processes import TINY, distance, mpiexec, run, start, tiny, trainings
from train_helpers import assert_same_run, run_state

import gpuconv.train as gpuconv_train
from gpuconv import extras
from gpuconv.runs import journal, sealed
from gpuconv.train import processes

SECONDS = 20  # in which all processes end when one fails
FAILING = (
    "out-of-memory",
    "fault",
    "nan",
    "drift",
    "killed",
    "stopped",
    "hangs",
    "exits",
    "other-data",
    "other-version",
)
SHORT = ["--data", "shapes", "--train-images", "200", "--validation", "100", "--test-images", "60", "--epochs", "3"]
SHORT += ["--batch-size", "20", "--widths", "4", "--max-steps", "25", "--checkpoint-every", "5", "--progress", "plain"]


def _alone(work, runs):
    """Train by settings in this process."""
    for name, config in runs.items():
        gpuconv_train.train(config, folder=work / name, dataset=pictures(), progress="none")
    return {name: work / name for name in runs}


# Equal to one process -------------------------------------------------------------------------------------------------


def test_two_processes_end_where_one_does(tmp_path):
    config = tiny("convnet", dtype="float64", batch_norm="synchronised", batch_size=25, max_steps=3)
    one = _alone(tmp_path / "one", {"run": config})["run"]
    two = trainings(2, tmp_path / "two", {"run": config})["run"]
    assert distance(one, two) <= 1e-10
    record = json.loads((two / "result.json").read_text())
    assert record["processes"] == 2
    assert _accuracies(two) == _accuracies(one)
    for key in ("steps", "test_accuracy", "confusion", "training_images"):
        assert record[key] == json.loads((one / "result.json").read_text())[key]


def _accuracies(folder):
    """Return the share of hits of each step."""
    return [event["accuracy"] for event in journal.read(folder) if event["event"] == "step"]


EXACT = {"dtype": "float64", "batch_norm": "synchronised"}
RUNS = {preset: tiny(preset, max_steps=20, **EXACT) for preset in TINY}
DROPOUT = {"net": str(Path(__file__).with_name("process_net.toml")), "widths": ()}
RUNS["dropout"] = tiny("convnet", **DROPOUT, max_steps=20, **EXACT)
# Parts of ten pictures, a clipped norm, an average of weights, a mirror that draws.
RUNS["parts"] = tiny("convnet", accumulate=2, clip_norm=0.5, ema=0.9, flip_mode="random", max_steps=20, **EXACT)


@pytest.fixture(scope="module")
def one_process():
    with tempfile.TemporaryDirectory() as folder:
        yield _alone(Path(folder), RUNS)


@pytest.mark.processes
@pytest.mark.parametrize("count", [2, 3])
def test_every_preset_ends_where_one_process_does(count, one_process, tmp_path):
    """Twenty steps in float64, batch norm synchronised; of 20 pictures, and of 10, three processes have uneven shares."""
    folders = trainings(count, tmp_path, RUNS)
    apart = {name: distance(one_process[name], folder) for name, folder in folders.items()}
    assert max(apart.values()) <= 1e-10, apart


@pytest.mark.processes
@pytest.mark.parametrize("preset", ["convnet", "three-layer"])
def test_float32_is_as_near_to_float64_as_one_process_may_be(preset, tmp_path):
    settings = {"max_steps": 2, "batch_norm": "synchronised"}

    def arrays(folder):
        found, _ = sealed.read(folder / "last.safetensors")
        return {name: array.astype(np.float64) for name, array in found.items()}

    def again(rng):
        with tempfile.TemporaryDirectory() as folder, lossy_cpu(rng):
            return arrays(_alone(Path(folder), {"run": tiny(preset, dtype="float64", **settings)})["run"])

    exact = arrays(_alone(tmp_path / "exact", {"run": tiny(preset, dtype="float64", **settings)})["run"])
    found = arrays(trainings(3, tmp_path / "three", {"run": tiny(preset, **settings)})["run"])
    bounds = allowed(exact, again)
    for name, array in found.items():
        assert np.abs(array - exact[name]).max() <= bounds[name], name


@pytest.mark.processes
def test_the_same_number_of_processes_gives_the_same_bits(tmp_path):
    """Batch norm in each, float16 beside float32 weights, dropout of a net of one's own: nothing depends on the moment."""
    runs = {
        "own": tiny("convnet"),
        "synchronised": tiny("resnet9", batch_norm="synchronised", max_steps=8),
        "float16": tiny("convnet", precision="float16", max_steps=8),
        "dropout": tiny("convnet", **DROPOUT, max_steps=8),
    }
    folders = [trainings(3, tmp_path / name, runs) for name in ("first", "second")]
    for name in runs:
        assert_same_run(folders[0][name], folders[1][name])


# Going on ---------------------------------------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_interrupted_run_goes_on_with_any_number_of_processes(count, one_process, tmp_path):
    folder = tmp_path / "run"
    ended = start(
        2,
        "process_failing.py",
        "1",
        "interrupted",
        "7",
        "train",
        "--config",
        _written(tmp_path),
        "--run-dir",
        str(folder),
    )
    assert ended.code == 130
    assert ended.err.count("stopped by SIGINT; to go on: gpuconv train --resume") == 1
    _, values = sealed.read(folder / "last.safetensors")
    assert values["position"]["steps"] == 8
    (tmp_path / "runs.json").write_text(json.dumps([[None, str(folder)]]))
    ended = start(count, "process_trainings.py", str(tmp_path / "runs.json"))
    assert ended.code == 0, ended.err
    assert distance(one_process["convnet"], folder) <= 1e-10


def _written(folder):
    config = folder / "config.toml"
    one = gpuconv_train.train(RUNS["convnet"], folder=folder / "settings", dataset=pictures(), progress="none")
    config.write_text((one.folder / "config.toml").read_text())
    return str(config)


@pytest.mark.processes
def test_a_run_that_goes_on_with_as_many_processes_has_the_bits_of_one_that_was_not_interrupted(tmp_path):
    for name, way in (("whole", "never"), ("interrupted", "interrupted")):
        start(2, "process_failing.py", "0", way, "7", "train", *SHORT, "--run-dir", str(tmp_path / name))
    (tmp_path / "runs.json").write_text(json.dumps([[None, str(tmp_path / "interrupted")]]))
    ended = start(2, "process_trainings.py", str(tmp_path / "runs.json"))
    assert ended.code == 0, ended.err
    assert_same_run(tmp_path / "whole", tmp_path / "interrupted")


# Ends --------------------------------------------------------------------------------------------------------------------


SAID = {
    "out-of-memory": (1, r"process 1 of 3: out of memory \(Unable to allocate 900. GiB\)"),
    "fault": (1, "process 1 of 3: TypeError: a mistake in the program"),
    "nan": (5, "the loss is nan in epoch 2, step 13.*The weights of step 10 are kept"),
    "drift": (1, "after step 15 the weights of process 1 of 3 are not those of the first"),
    "stopped": (1, "process 1 of 3 has not answered for 12 s"),
    "hangs": (1, "process 1 of 3 has not answered for 12 s"),
    "killed": (9, "process 1 of 3 has ended without a word: it was killed"),
    "exits": (7, "process 1 of 3 has ended without a word"),  # or 9, where mpiexec counts those that it has killed
    "other-data": (2, "process 1 of 3 has data .*, the first has"),
    "other-version": (2, "process 1 of 3 has gpuconv 0.0.9, the first has"),
}


@pytest.mark.processes
@pytest.mark.parametrize("way", FAILING)
def test_a_process_that_fails_ends_all_of_them_with_one_sentence(way, tmp_path):
    folder = tmp_path / "run"
    arguments = ("1", way, "12", "train", *SHORT, "--run-dir", str(folder))
    ended = start(3, "process_failing.py", *arguments, settings={"GPUCONV_WAIT": "12"})
    code, sentence = SAID[way]
    assert ended.code in ((code, 9) if way == "exits" else (code,)), ended.err
    if began := re.search(r"now (\S+)", ended.err):
        assert time.time() - float(began[1]) < SECONDS
    said = re.findall("gpuconv: error: .*", ended.err)
    assert len(said) == 1, ended.err
    assert re.search(sentence, said[0]), said
    if way.startswith("other"):
        assert not folder.exists()
        return
    last = folder / "last.safetensors"
    _, values = sealed.read(last)
    assert values["position"]["steps"] == 10
    if way not in ("killed", "exits"):  # which ends the first one, too
        event = journal.read(folder)[-1]
        assert event["event"] == "failed"
        assert re.search(sentence, event["message"].replace("(a path)", str(last)))
    (tmp_path / "runs.json").write_text(json.dumps([[None, str(folder)]]))
    ended = start(2, "process_trainings.py", str(tmp_path / "runs.json"))
    assert ended.code == 0, ended.err
    assert json.loads((folder / "result.json").read_text())["steps"] == 25


@pytest.mark.processes
def test_what_all_processes_refuse_is_said_once(tmp_path):
    refused = {
        ("--batch-size", "1"): "1 image of a step cannot be shared among 2 processes: raise batch_size",
        ("--seeds", "2"): "--seeds is for one process: start it without mpiexec",
    }
    for more, said in refused.items():
        arguments = ["train", *SHORT, *more, "--run-dir", str(tmp_path / "run")]
        ended = run(2, [sys.executable, "-m", "mpi4py", "-m", "gpuconv", *arguments])
        assert ended.code == 2
        assert ended.err == f"gpuconv: error: {said}\n"
        assert not (tmp_path / "run").exists()


@pytest.mark.processes
def test_a_dry_run_of_two_processes_is_shown_once(tmp_path):
    ended = run(2, [sys.executable, "-m", "mpi4py", "-m", "gpuconv", "train", *SHORT, "--dry-run"])
    assert ended.code == 0, ended.err
    assert ended.out.count("on 2 processes, each on the CPU with 1 thread") == 1
    assert ended.out.count("dry run: nothing was written") == 1


def test_processes_without_mpi_are_refused(tmp_path):
    code = "import sys; sys.modules['mpi4py'] = None; from gpuconv.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "train", *SHORT, "--run-dir", str(tmp_path / "run")]
    environment = {**os.environ, "PMI_SIZE": "2", "PMI_RANK": "0"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "2 processes were started, but without MPI they cannot find each other" in ended.stderr
    assert extras.install("mpi") in ended.stderr


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_processes_of_another_mpi_are_refused(variable, tmp_path):
    command = [sys.executable, "-m", "mpi4py", "-m", "gpuconv", "train", *SHORT, "--run-dir", str(tmp_path / "run")]
    environment = {**os.environ, variable: "2"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "2 processes were started, but by another MPI than mpi4py has found" in ended.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan"])
def test_seconds_to_wait_that_are_none_are_refused(text, monkeypatch):
    monkeypatch.setenv(processes.WAIT_SETTING, text)
    with pytest.raises(gpuconv_train.processes.ConfigError, match="GPUCONV_WAIT must be a number of seconds"):
        processes._seconds_to_wait()


def test_mpiexec_belongs_to_this_python():
    assert Path(mpiexec()).exists()


def test_run_state_of_one_process_says_nothing_of_processes(tmp_path):
    folder = _alone(tmp_path, {"run": tiny("three-layer", max_steps=1)})["run"]
    assert "processes" not in json.loads((folder / "result.json").read_text())
    _, values = run_state(folder / "last.safetensors")
    assert values["config"]["batch_norm"] == "own"
