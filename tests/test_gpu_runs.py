"""The command line on a GPU: runs that are interrupted, memory that does not suffice, and what the doctor finds."""

import gc
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from compare import assert_same_bits, whole
from places import GPU
from train_helpers import assert_same_run, names, run_state, shapes

import gpuconv
from gpuconv import cli, data

pytestmark = [pytest.mark.core, pytest.mark.parametrize("cuda", [GPU], indirect=True)]

FLAGS = [
    *("train", "--device", "cuda", "--preset", "three-layer", "--filters", "3", "--hidden", "9", "--data", "shapes"),
    *("--batch-size", "6", "--train-images", "18", "--validation", "10", "--test-images", "12", "--epochs", "2"),
]


def _process(folder, place, *arguments):
    """Run the command in a process of its own, which sends itself a SIGINT at a place; see train_process.py."""
    program = Path(__file__).parent / "train_process.py"
    command = [sys.executable, "-W", "error", program, place, "SIGINT", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    return done.returncode, done.stderr


def test_an_interrupted_process_goes_on_to_the_same_bits(cuda, tmp_path):
    """Ctrl-C in the second step of the second epoch."""
    assert _process(tmp_path, "never", *FLAGS, "--run-dir", "whole") == (0, "")
    said = "gpuconv: stopped by SIGINT; to go on: gpuconv train --resume again\n"
    assert _process(tmp_path, "step:5", *FLAGS, "--run-dir", "again") == (130, said)
    assert run_state(tmp_path / "again" / "last.safetensors")[1]["optimizer"]["steps"] == 5
    assert _process(tmp_path, "never", "train", "--resume", "again") == (0, "")
    assert_same_run(tmp_path / "again", tmp_path / "whole")


@contextmanager
def _room(size):
    """Let CuPy have so many bytes more than it uses now."""
    import cupy

    gc.collect()
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    before = pool.get_limit()
    pool.set_limit(size=pool.used_bytes() + size)
    try:
        yield
    finally:
        pool.set_limit(size=before)


def test_an_operator_without_room_leaves_everything_as_it_was(cuda):
    rng = np.random.default_rng(0)
    host = whole(rng, (2, 3, 64, 64), "float32"), whole(rng, (8, 3, 1, 1), "float32")
    x, w = map(cuda.array, host)
    with _room(100_000), pytest.raises(MemoryError):  # y has 262,144 bytes
        gpuconv.conv_forward(x, w)
    for array, before in zip((x, w), host, strict=True):
        assert_same_bits(cuda.numpy(array), before)
    assert_same_bits(cuda.numpy(gpuconv.conv_forward(x, w)[0]), gpuconv.conv_forward(*host)[0])


@pytest.fixture
def gpuconv_command(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; return (exit code, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "load", lambda name, **_: shapes())

    def run(*arguments):
        code = cli.main(list(arguments))
        return code, capsys.readouterr().err

    return run


def test_a_run_whose_pictures_do_not_fit_leaves_no_folder(cuda, gpuconv_command, tmp_path):
    with _room(20_000):
        code, err = gpuconv_command(*FLAGS)
    assert (code, err.count("\n")) == (1, 1), err
    assert err.startswith("gpuconv: error: out of memory (")
    assert names(tmp_path) == []


def test_a_run_whose_step_does_not_fit_can_go_on_with_more_room(cuda, gpuconv_command, tmp_path):
    """The pictures have 0.2 MB, the first batch 0.8, the output of the convolution 1.0."""
    large = ["--filters", "4", "--batch-size", "64", "--train-images", "64", "--max-steps", "1", "--run-dir", "run"]
    with _room(1_700_000):
        code, err = gpuconv_command(*FLAGS, *large)
    assert (code, err.count("\n")) == (1, 1), err
    assert err.startswith("gpuconv: error: out of memory (")
    run = tmp_path / "run"
    assert not [name for name in names(run) if name.endswith(".part") or name == "result.json"]
    assert run_state(run / "last.safetensors")[1]["position"]["steps"] == 0
    assert gpuconv_command("train", "--resume", "run") == (0, "")
    assert run_state(run / "last.safetensors")[1]["position"]["steps"] == 1


def test_the_doctor_can_use_the_gpu(cuda, capsys):
    cli.main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)["cuda"]
    assert found["ok"]
    assert "can be used" in found["value"]
