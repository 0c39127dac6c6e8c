"""Many processes with a GPU each, by real CuPy on the CPU: NCCL's calls through the stand-in, recorded in the step's graph."""

import json

import pytest
from processes import distance, start, tiny, trainings
from train_helpers import assert_same_run

from gpuconv.runs import journal

pytestmark = [pytest.mark.processes, pytest.mark.cupy]

SMALL = {"batch_size": 7, "train_images": 21, "validation": 10, "test_images": 12, "max_steps": 6}
ON_GPU = {**SMALL, "device": "cuda"}


def _trained(count, work, runs, **settings):
    """Train by settings in processes on devices of their own; return the folders, and what was asked of CUDA."""
    trace = work.with_suffix(".jsonl")
    devices = {"CUPY_EMULATED_DEVICES": "2", "CUPY_EMULATED_TRACE": str(trace)}
    folders = trainings(count, work, runs, emulated=True, **{**devices, **settings})
    return folders, [json.loads(line) for line in trace.read_text().splitlines()]


RUNS = {
    "convnet": tiny("convnet", dtype="float64", batch_norm="synchronised", **ON_GPU),
    "speedrun": tiny("speedrun", dtype="float64", batch_norm="synchronised", ema=0.9, clip_norm=0.5, **ON_GPU),
}


def test_two_gpus_end_where_one_process_on_the_cpu_does(tmp_path):
    """Six steps, the last three of them replayed; of seven pictures, three and four are each one's."""
    one = trainings(1, tmp_path / "one", {name: tiny(name, **_on_cpu(config)) for name, config in RUNS.items()})
    two, events = _trained(2, tmp_path / "two", RUNS)
    for name, folder in two.items():
        assert distance(one[name], folder) <= 1e-10, name
        assert not [event for event in journal.read(folder) if event["event"] == "notice"]
    devices = {(event["process"], event["device"]) for event in events if event["event"] == "nccl"}
    assert sorted(device for _, device in devices) == [0, 1]
    for process, _ in devices:
        of_it = [event for event in events if event["process"] == process and event["event"] == "nccl"]
        captured = [event for event in of_it if event["captured"]]
        # Steps that are launched one by one, two of each run, and the one that is recorded do the same.
        assert len(of_it) == 3 * len(captured)
        assert {event["stream"] for event in of_it} != {0}


def _on_cpu(config):
    own = {name: getattr(config, name) for name in ("dtype", "batch_norm", "ema", "clip_norm")}
    return {**SMALL, **own, "device": "cpu"}


def test_the_bits_are_the_same_with_and_without_a_graph_and_whenever_work_is_done(tmp_path):
    settings = {"graph": {"graph": "auto"}, "no-graph": {"graph": "off"}}
    runs = {name: tiny("convnet", precision="float16", **ON_GPU, **more) for name, more in settings.items()}
    usual, _ = _trained(2, tmp_path / "usual", runs)
    lazy, _ = _trained(2, tmp_path / "lazy", {"graph": runs["graph"]}, CUPY_EMULATED_LAZY="1")
    assert distance(usual["graph"], usual["no-graph"]) == 0
    assert_same_run(usual["graph"], lazy["graph"])


def test_gradients_that_go_in_many_stretches_beside_the_backward_give_the_same_bits(tmp_path):
    """Lazy: what is not waited for is not there."""
    runs = {
        "own": tiny("convnet", **ON_GPU),
        "synchronised": tiny("convnet", batch_norm="synchronised", **ON_GPU),
        "bfloat16": tiny("convnet", precision="bfloat16", batch_norm="synchronised", **ON_GPU),
    }
    whole, at_once = _trained(2, tmp_path / "whole", runs)
    cut, in_turn = _trained(2, tmp_path / "cut", runs, BUCKET_BYTES="64", CUPY_EMULATED_LAZY="1")
    for name in runs:
        assert_same_run(whole[name], cut[name])
    assert _exchanges(in_turn) > 2 * _exchanges(at_once)


def test_without_nccl_gradients_go_by_way_of_the_host_with_the_same_bits(tmp_path):
    runs = {"own": tiny("convnet", **ON_GPU), "synchronised": tiny("convnet", batch_norm="synchronised", **ON_GPU)}
    by_nccl, _ = _trained(2, tmp_path / "nccl", runs)
    by_host, events = _trained(2, tmp_path / "host", runs, WITHOUT_NCCL="1")
    assert not _exchanges(events)
    for name in runs:
        assert_same_run(by_nccl[name], by_host[name])
        (notice,) = [event["message"] for event in journal.read(by_host[name]) if event["event"] == "notice"]
        assert notice == (
            "steps are launched kernel by kernel, not as one graph: gradients go by way of the host, which cannot be "
            "recorded: NCCL is not installed"
        )


def _exchanges(events):
    return sum(event["event"] == "nccl" for event in events)


def test_processes_that_share_a_gpu_are_refused(tmp_path):
    (tmp_path / "runs.json").write_text(json.dumps([[vars(RUNS["convnet"]), str(tmp_path / "run")]]))
    ended = start(
        2, "process_trainings.py", str(tmp_path / "runs.json"), settings={"CUPY_EMULATED_DEVICES": "1"}, emulated=True
    )
    assert ended.code != 0
    assert "2 processes on this machine find 1 GPU: start one process for each GPU" in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("way", ["out-of-memory", "hangs", "nan"])
def test_a_process_that_fails_ends_both(way, tmp_path):
    arguments = [
        "1",
        way,
        "4",
        "train",
        "--data",
        "shapes",
        "--widths",
        "2",
        "--device",
        "cuda",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    for name, value in SMALL.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    settings = {"CUPY_EMULATED_DEVICES": "2", "GPUCONV_WAIT": "40"}
    ended = start(2, "process_failing.py", *arguments, settings=settings, emulated=True)
    code, said = {
        "out-of-memory": (1, "process 1 of 2: out of memory"),
        "hangs": (1, "process 1 of 2 has not answered"),
        "nan": (5, "is nan"),
    }[way]
    assert ended.code == code, ended.err
    assert ended.err.count("gpuconv: error: ") == 1
    assert said in ended.err
