"""tests/ladder without a GPU: it refuses clearly, loses nothing, and what needs no CuPy works."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from emulate import EmulatedDevice
from emulate.hopper import examples as hopper

from bench import oracle
from bench.cases import Case
from bench.inputs import Inputs, draw
from gpuconv import backend
from tests.ladder import (
    ahead,
    calls,
    counters,
    failed,
    gpu_run,
    gpu_tests,
    groups,
    hopper_calls,
    kernels,
    layer_times,
    layers,
    replay,
    sanitizer,
    steps,
    torch_steps,
    training,
    warpgroups,
)
from tests.ladder import hopper as hopper_section
from tests.ladder.finished import LINES
from tests.ladder.kernel_calls import CALLS, emulated_on, launched, random_call
from tests.ladder.predictions import floor_us, predictions, share, step_ms
from tests.ladder.work import LOST, Work, read

# The command line ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", gpu_run.COMMANDS)
def test_help_and_list_need_no_gpu(command, capsys):
    with pytest.raises(SystemExit) as ended:
        gpu_run.main(["--help"])
    assert ended.value.code == 0
    assert gpu_run.main([command, "--list"]) == 0
    shown = capsys.readouterr().out
    assert all(section.name in shown for section in gpu_run.COMMANDS[command])


def test_commands_fit_into_their_time():
    shares = {name: sum(section.seconds for section in sections) for name, sections in gpu_run.COMMANDS.items()}
    assert all(shares[name] <= limit for name, limit in gpu_run.LIMITS.items())
    assert gpu_run.LIMITS["A"] < 290
    assert gpu_run.LIMITS["B"] < 230


def test_every_section_has_a_function():
    for sections in gpu_run.COMMANDS.values():
        assert all(callable(section.function()) for section in sections)


def test_without_a_gpu_one_line_says_why(monkeypatch, capsys):
    monkeypatch.setattr(gpu_run, "gpu_status", lambda: (False, "CUDA finds no usable GPU"))
    assert gpu_run.main(["A"]) == 3
    said = capsys.readouterr()
    assert said.err == "tests.ladder.gpu_run needs a GPU: CUDA finds no usable GPU\n"
    assert said.out == ""


@pytest.fixture
def no_processes(monkeypatch):
    """Let sections have been run already: what they found, by name."""
    results = {section.name: {"ok": True, "seconds": 1.0} for part in gpu_run.COMMANDS.values() for section in part}
    monkeypatch.setattr(gpu_run, "gpu_status", lambda: (True, "1 GPU"))
    monkeypatch.setattr(gpu_run, "run_section", lambda section, *_: results[section.name])
    return results


def test_all_results_are_kept_and_one_failure_is_the_exit_status(no_processes, capsys, tmp_path):
    no_processes["kernels"]["shown"] = ["conv forward x1.10 of predicted"]
    no_processes["training"] = {"ok": None, "why": "not run", "left out": ["speedrun"]}
    assert gpu_run.main(["A", "--out", str(tmp_path / "new")]) == 0
    kept = json.loads((tmp_path / "new" / "gpu_run_A.json").read_text())
    assert kept["sections"] == {section.name: no_processes[section.name] for section in gpu_run.COMMANDS["A"]}
    assert "not a measurement" in kept["predictions"]
    shown = capsys.readouterr().out
    assert "x1.10 of predicted" in shown
    assert "training: speedrun" in shown
    no_processes["large"] = {"ok": False, "failed": ["100,000 channels: AssertionError: wrong"], "done": 4, "of": 4}
    assert gpu_run.main(["B", "--out", str(tmp_path), "--only", "large"]) == 1
    assert list(json.loads((tmp_path / "gpu_run_B.json").read_text())["sections"]) == ["large"]
    assert "large: 100,000 channels: AssertionError: wrong" in capsys.readouterr().out


def test_results_go_to_the_folder_of_the_environment(no_processes, monkeypatch, tmp_path):
    monkeypatch.setenv("OUT", str(tmp_path))
    assert gpu_run.main(["A", "--only", "machine"]) == 0
    assert (tmp_path / "gpu_run_A.json").exists()


@pytest.mark.parametrize("kept", ["out", "results", None])
def test_b_finds_what_a_found(kept, no_processes, monkeypatch, tmp_path):
    places = {"out": tmp_path / "out", "results": tmp_path / "results"}
    for folder in places.values():
        folder.mkdir()
    if kept is not None:
        (places[kept] / "gpu_run_A.json").write_text("{}")
    given = []
    monkeypatch.setattr(gpu_run, "RESULTS", places["results"])
    monkeypatch.setattr(gpu_run, "run_section", lambda section, arguments, *_: given.append(arguments) or {"ok": True})
    assert gpu_run.main(["B", "--only", "failed", "--out", str(places["out"])]) == 0
    assert given[0].after == places[kept or "results"] / "gpu_run_A.json"


def test_what_a_section_leaves_of_its_time_goes_to_the_others(monkeypatch, tmp_path):
    clock, given = [0.0], {}

    def section_took(section, arguments, seconds, *_):
        given[section.name] = seconds
        clock[0] += 1.0 if section.name in ("machine", "compile") else seconds
        return {"ok": True, "seconds": 0}

    monkeypatch.setattr(gpu_run, "gpu_status", lambda: (True, "1 GPU"))
    monkeypatch.setattr(gpu_run, "run_section", section_took)
    monkeypatch.setattr(gpu_run.time, "monotonic", lambda: clock[0])
    assert gpu_run.main(["A", "--out", str(tmp_path)]) == 0
    shares = {section.name: section.seconds for section in gpu_run.COMMANDS["A"]}
    assert given["machine"] == pytest.approx(shares["machine"] * gpu_run.LIMITS["A"] / sum(shares.values()))
    later = {name: seconds for name, seconds in given.items() if name not in ("machine", "compile")}
    assert sum(later.values()) == pytest.approx(gpu_run.LIMITS["A"] - 2)
    assert all(seconds > shares[name] for name, seconds in later.items())


def test_no_time_left_is_not_a_failure(no_processes, capsys, tmp_path):
    assert gpu_run.main(["A", "--out", str(tmp_path), "--limit", "4"]) == 0
    assert "not run: time was spent" in capsys.readouterr().out


# A section and its processes -----------------------------------------------------------------------------------------


def _arguments(tmp_path, command="A"):
    return gpu_run.parser().parse_args([command, "--out", str(tmp_path), "--data", str(tmp_path)])


def _processes(monkeypatch, tmp_path, *ends):
    """Let the processes of a section end one after the other: status, and what each has kept by then."""
    started = []

    def run(command, seconds, noted):
        status, found = ends[len(started)]
        started.append(command)
        (tmp_path / "smoke.kept").write_text(json.dumps(read(tmp_path / "smoke.kept") | found))
        return status, "said", "its last words"

    monkeypatch.setattr(gpu_run, "run_section_group", run)
    section = next(section for section in gpu_run.COMMANDS["A"] if section.name == "smoke")
    return gpu_run.run_section(section, _arguments(tmp_path), 60, tmp_path, tmp_path / "log"), started


def test_a_lost_gpu_costs_one_case(monkeypatch, tmp_path):
    found, started = _processes(
        monkeypatch,
        tmp_path,
        (LOST, {"done": 3, "at": "relu", "failed": ["relu: illegal access"]}),
        (0, {"done": 9, "ok": True}),
    )
    assert len(started) == 2
    assert started[0] == started[1]  # the same end of its time, too
    assert found["ok"] is False
    assert found["done"] == 9
    assert found["failed"] == ["relu: illegal access"]
    assert found["ended"][0]["at"] == "relu"


def test_a_process_that_dies_is_a_failure_and_keeps_what_it_found(monkeypatch, tmp_path):
    found, started = _processes(monkeypatch, tmp_path, (-11, {"done": 3, "at": "relu"}), (-11, {"done": 3}))
    assert len(started) == 2  # the second one came no further
    assert found["ok"] is False
    assert found["why"] == "its process ended with status -11, at relu"
    assert found["ended"][0]["said"] == "its last words"
    assert "its last words" in (tmp_path / "log").read_text()


def test_a_section_that_hangs_keeps_what_it_found(monkeypatch, tmp_path):
    found, started = _processes(monkeypatch, tmp_path, (None, {"done": 3, "of": 9}))
    assert len(started) == 1
    ended = {"why": "did not end in its time", "at": None, "said": "its last words"}
    del found["seconds"]
    assert found == {"done": 3, "of": 9, "ok": False, "why": ended["why"], "ended": [ended]}


def test_a_program_whose_output_nobody_closes_is_not_waited_for(monkeypatch, tmp_path):
    """As of one that a driver does not let go: here a child in a session of its own keeps the pipe open."""
    monkeypatch.setattr(groups, "_LAST_WORDS", 0.2)
    keeper = tmp_path / "keeper"
    status, out, _ = groups.run_group(["sh", "-c", f"echo found; setsid sleep 60 & echo $! > {keeper}; wait"], 2)
    assert (status, out) == (None, "found\n")
    os.kill(int(keeper.read_text()), signal.SIGKILL)  # an error if it had been waited for


def test_the_host_of_a_gpu_run_compiles_no_loops(monkeypatch):
    monkeypatch.delenv("GPUCONV_COMPILED", raising=False)
    assert groups.environment()["GPUCONV_COMPILED"] == "0"
    monkeypatch.setenv("GPUCONV_COMPILED", "1")
    assert groups.environment()["GPUCONV_COMPILED"] == "1"


def _child(monkeypatch, tmp_path, function):
    monkeypatch.setattr(gpu_run, "gpu_status", lambda: (True, "1 GPU"))
    monkeypatch.setattr(gpu_run.Section, "function", lambda self: function)
    kept = tmp_path / "kept"
    until = str(time.monotonic() + 600)
    command = ["A", "--section", "smoke", "--kept", str(kept), "--until", until, "--out", str(tmp_path)]
    assert gpu_run.main([*command, "--scratch", str(tmp_path)]) == 0
    return json.loads(kept.read_text())


def test_a_section_that_raises_says_what(monkeypatch, tmp_path):
    def fails(work):
        work.keep(before=1)
        msg = "no such thing"
        raise RuntimeError(msg)

    found = _child(monkeypatch, tmp_path, fails)
    assert found["ok"] is False
    assert found["why"] == "RuntimeError: no such thing"
    assert found["before"] == 1
    assert "in fails" in found["trace"]


def test_a_section_is_given_its_time_and_places(monkeypatch, tmp_path):
    given = []
    found = _child(monkeypatch, tmp_path, given.append)
    assert found == {"ok": None}
    assert 0 < given[0].left() <= 600
    assert (given[0].scratch, given[0].results) == (tmp_path, tmp_path)


def test_a_section_that_is_done_is_not_held_by_what_it_began():
    held = "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start(); "
    program = held + "from tests.ladder.gpu_run import leave; print('done'); leave(3)"
    assert groups.run_group([sys.executable, "-c", program], 300)[:2] == (3, "done\n")


def _work(tmp_path, *, seconds=600.0, **options):
    return Work(tmp_path / "kept", time.monotonic() + seconds, scratch=tmp_path, results=tmp_path, **options)


class _Died(BaseException):
    """The end of a process."""


def test_items_go_on_behind_the_one_that_ended_the_process(tmp_path):
    seen = []

    def one(item):
        seen.append(item)
        if item == 1:
            raise _Died

    with pytest.raises(_Died):
        _work(tmp_path).each(range(4), one)
    assert read(tmp_path / "kept") == {"done": 2, "of": 4, "at": "1"}
    assert _work(tmp_path).each(range(4), one) is True
    assert seen == [0, 1, 2, 3]


def test_a_failed_item_is_named_and_hides_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.ladder.work.device_lost", lambda: False)
    work, seen = _work(tmp_path), []

    def one(item):
        seen.append(item)
        if item == 1:
            msg = "one is wrong"
            raise AssertionError(msg)

    assert work.each(range(3), one) is False
    assert seen == [0, 1, 2]
    assert read(tmp_path / "kept")["failed"] == ["1: AssertionError: one is wrong"]


def test_an_item_that_leaves_the_gpu_unusable_ends_its_process(tmp_path, monkeypatch):
    statuses = []

    def ended(status):
        statuses.append(status)
        raise _Died

    def one(item):
        msg = "an illegal access"
        raise RuntimeError(msg)

    monkeypatch.setattr("tests.ladder.work.device_lost", lambda: True)
    monkeypatch.setattr("tests.ladder.work.os._exit", ended)
    with pytest.raises(_Died):
        _work(tmp_path).each(range(3), one)
    assert statuses == [LOST]
    found = read(tmp_path / "kept")
    assert (found["done"], found["failed"]) == (1, ["0: RuntimeError: an illegal access"])


def test_spent_time_leaves_items(tmp_path):
    work = _work(tmp_path, seconds=-1)
    assert work.each(range(3), print) is None
    assert work.found["of"] == 3


def test_a_program_ends_with_all_it_started(tmp_path):
    # The grandchild keeps the output open: were it left, this would wait for ever.
    wait = (
        f"import signal, subprocess, sys; subprocess.Popen([{sys.executable!r}, '-c', 'import signal; signal.pause()'])"
    )
    assert groups.run_group([sys.executable, "-c", f"{wait}; signal.pause()"], 0.5)[0] is None
    noted = tmp_path / "groups"
    inner = f"from tests.ladder.groups import run_group; run_group([{sys.executable!r}, '-c', 'input()'], 60)"
    status, _, _ = groups.run_section_group([sys.executable, "-c", inner], 60, noted)
    assert status == 0
    assert len(noted.read_text().splitlines()) == 1


# The tests -----------------------------------------------------------------------------------------------------------


def test_a_line_a_test_is_kept_as_it_ends(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # if this test runs in one
    (tmp_path / "test_some.py").write_text(
        "import os, pytest\n"
        "def test_right(): pass\n"
        "def test_wrong(): assert 1 == 2\n"
        "@pytest.mark.skip(reason='no such thing')\n"
        "def test_left_out(): pass\n"
        "def test_that_ends_it(): os._exit(9)\n"
    )
    (tmp_path / "test_other.py").write_text("import no_such_package\n")
    lines = tmp_path / "lines"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.ladder.finished", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors", "."]
    ended = subprocess.run(
        command, cwd=tmp_path, env=groups.environment(**{LINES: str(lines)}), capture_output=True, check=False
    )
    assert ended.returncode == 9
    found = gpu_tests.summary(lines)
    assert next(iter(found)) == "failed"
    assert found["failed"] == ["test_some.py::test_wrong"]
    assert "assert 1 == 2" in found["messages"]["test_some.py::test_wrong"]
    assert (found["collected"], found["ran"], found["skipped"]) == (4, 3, 1)
    assert found["counts"] == {"passed": 1, "failed": 1, "skipped": 1}
    assert found["reasons"] == {"Skipped: no such thing": 1}
    assert "No module named 'no_such_package'" in found["not collected"]["test_other.py"]


def test_files_of_tests_that_take_a_place_run_what_no_gpu_has_run_first():
    places = gpu_tests.in_order()
    assert {"tests/test_conv.py", "tests/test_errors.py", "tests/test_gpu_graph.py", "tests/test_export.py"} <= {
        *places
    }
    assert not {"tests/test_docs_links.py", "tests/test_wrong_values.py", "tests/test_hostile_files.py"} & {*places}
    for name in gpu_tests._FIRST:
        assert any(f"test_{name}" in place for place in places[:12]), name
    assert places[-1] == "tests/test_gpu_calls.py"


def test_a_broken_line_is_the_last_one_of_a_process(tmp_path):
    lines = tmp_path / "lines"
    good = {"test": "a", "outcome": "failed", "when": "call", "seconds": 1, "said": "why"}
    late = {"test": "a", "outcome": "passed", "when": "call", "seconds": 1, "said": ""}
    lines.write_text(f'{json.dumps(good)}\n{json.dumps(late)}\n{{"test": "b", "outc')
    found = gpu_tests.summary(lines)
    assert (found["failed"], found["ran"]) == (["a"], 1)


_ERROR = {"uncollected": "test_b.py", "said": "ImportError: cannot import name"}
_MISSING = {"uncollected": "test_b.py", "said": "ModuleNotFoundError: No module named 'nbformat'"}


@pytest.mark.parametrize(
    ("status", "lines", "ok"),
    [
        (0, [{"collected": 1}], True),
        (0, [{"collected": 2}], False),
        (None, [{"collected": 1}], False),
        (3, [{"collected": 1}], False),
        (1, [{"collected": 1}, _MISSING], True),
        (1, [{"collected": 1}, _MISSING, _ERROR], False),
    ],
    ids=["all", "one_is_missing", "not_done", "pytest_fails", "package_missing", "file_broken"],
)
def test_tests_are_well_only_if_all_of_them_ran(status, lines, ok, monkeypatch, tmp_path):
    passed = {"test": "a", "outcome": "passed", "when": "call", "seconds": 1, "said": ""}

    def ran(places, seconds, file, **_):
        file.write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, passed]))
        return status, "", "its last words"

    monkeypatch.setattr(gpu_tests, "pytest", ran)
    work = _work(tmp_path)
    assert gpu_tests.run(work) is ok
    assert ("why" in work.found) == (status in (None, 3))


# What failed, again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "ok", "said"),
    [
        (None, None, "nothing to repeat"),
        ({"smoke": {"ok": True}}, True, "nothing failed"),
        ({"smoke": {"ok": False, "failed": ["relu_rows, float32, NCHW: E"]}}, False, ""),
    ],
    ids=["no_result", "nothing_failed", "a_call"],
)
def test_what_failed_runs_again_with_debugging_on(sections, ok, said, monkeypatch, tmp_path):
    after, asked = tmp_path / "A.json", []
    if sections is not None:
        after.write_text(json.dumps({"sections": sections}))

    def run(command, seconds, **variables):
        asked.append((command[3:], variables))
        return 1, "", "wrong again"

    monkeypatch.setattr(failed, "run_group", run)
    work = _work(tmp_path, after=after)
    assert failed.run(work) is ok
    assert said in work.found.get("why", "")
    if ok is False:
        assert asked == [(["relu_rows", "float32", "NCHW"], {"CUDA_LAUNCH_BLOCKING": "1", "GPUCONV_DEBUG": "1"})]
        assert "wrong again" in work.found["failed"][0]


# Tools ---------------------------------------------------------------------------------------------------------------


def test_without_the_sanitizer_nothing_is_claimed(monkeypatch, tmp_path):
    monkeypatch.setattr(sanitizer, "installed", lambda: None)
    assert sanitizer.run(_work(tmp_path)) is None


@pytest.mark.parametrize(
    ("control", "over_calls", "said", "ok"),
    [
        (86, 0, "clean", True),
        (0, 0, "planted fault was not noticed", None),
        (86, 86, "found: ========= out of bounds", False),
        (1, 0, "planted fault was not noticed", None),
        (86, 1, "not measured: status 1", None),
        (86, None, "time was spent", None),
    ],
    ids=["clean", "blind_tool", "fault_found", "refused", "tool_fails", "no_time"],
)
def test_a_tool_counts_only_if_it_sees_its_planted_fault(control, over_calls, said, ok, monkeypatch, tmp_path):
    def run(command, seconds, **_):
        status = control if command[-1].startswith("fault") else over_calls
        return status, "========= out of bounds\n", ""

    monkeypatch.setattr(sanitizer, "installed", lambda: "compute-sanitizer")
    monkeypatch.setattr(sanitizer, "run_group", run)
    work = _work(tmp_path)
    assert sanitizer.run(work) is ok
    assert list(work.found["tools"]) == ["memcheck", "racecheck"]
    assert all(said in found for found in work.found["tools"].values())


_NCU = """==PROF== Connected to process 1
"ID","Process ID","Kernel Name","gpu__time_duration.sum","launch__registers_per_thread"
"","","","us","register/thread"
"0","1","void conv_forward_tiled<float>(...)","286.2","128"
"""


def test_counters_are_read_with_their_units(monkeypatch, tmp_path):
    wanted = [{"kernel": "void conv_forward_tiled<float>(...)", "time": "286.2 us", "registers": "128 register/thread"}]
    assert counters.counted(_NCU) == wanted
    assert counters.counted("==ERROR== ERR_NVGPUCTRPERM") == []
    monkeypatch.setattr(counters, "installed", lambda: "ncu")
    monkeypatch.setattr(counters, "run_group", lambda *_, **__: (1, "", "==ERROR== ERR_NVGPUCTRPERM"))
    work = _work(tmp_path)
    assert counters.run(work) is None
    assert "ERR_NVGPUCTRPERM" in work.found["why"]


# Predictions ---------------------------------------------------------------------------------------------------------


def test_predictions_name_their_source_and_each_layer_once():
    found = predictions()
    assert found["source"] == "a model of the kernels' machine code, not a measurement"
    names = [layer["name"] for layer in found["layers"] + found["passes"]]
    assert len(names) == len(set(names))
    assert {step["preset"] for step in found["steps"]} == {"convnet", "resnet18", "speedrun"}


def test_steps_are_measured_in_every_precision_and_each_is_predicted():
    chosen = predictions()["steps"]
    for preset in ("convnet", "resnet18", "speedrun"):
        assert {step["precision"] for step in chosen if step["preset"] == preset} == set(training.PRECISIONS)
    for step in chosen:
        assert step["gpu_ms"] == step_ms(step["preset"], step["batch"], step["precision"]) > 0
        assert step["host_ms"] == pytest.approx(step["launches"] * predictions()["host_us_per_launch"] / 1e3)


LAYERS = [*predictions()["layers"], *predictions()["passes"]]


class _SpoiledGraph:
    """What PyTorch's graph does as far as TorchReplay asks: no call but the first can be captured."""

    def __init__(self):
        self.capturing = False

    def capture_begin(self, **_):
        self.capturing = True

    def capture_end(self):
        self.capturing = False


def test_a_capture_that_pytorch_refuses_is_ended(monkeypatch):
    """Else the GPU would refuse what comes after it, ours too."""
    graph = _SpoiledGraph()
    nothing = SimpleNamespace(
        synchronize=lambda: None, Stream=object, stream=lambda _: contextlib.nullcontext(), CUDAGraph=lambda: graph
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=nothing))

    def call():
        if graph.capturing:
            msg = "not while a stream is captured"
            raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="not while a stream is captured"):
        replay.TorchReplay([call])
    assert not graph.capturing


class _Pool:
    """A pool of processes in which all is done at once, and noted."""

    def __init__(self, *_):
        self.asked = []

    def submit(self, function, *arguments):
        self.asked.append((function.__name__, *arguments))
        done = Future()
        done.set_result(0.5)
        return done

    def shutdown(self, **_):
        pass


def test_every_kernel_is_compiled_before_the_steps_that_want_several(monkeypatch, tmp_path):
    pool = _Pool()
    monkeypatch.setattr(ahead, "ProcessPoolExecutor", lambda *_: pool)
    monkeypatch.setattr(
        ahead, "_instances", lambda dry: [("relu.cu", "relu_forward<float>"), ("conv.cu", "conv<float>")]
    )
    assert ahead.compile_all(_work(tmp_path)) is True
    kinds = [name for name, *_ in pool.asked]
    assert kinds == ["compile_one"] * 2 + ["one_step"] * (len(kinds) - 2)
    assert len(kinds) == 2 + len(training.PRECISIONS) * len(ahead._WARMED)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer["name"])
def test_a_predicted_pass_is_the_model_s_and_takes_at_least_what_it_must(layer):
    again = layer_times.predicted(layer)
    assert layer_times.differences(layer_times.read(), {layer["name"]: again}) == []
    by_warpgroups = set() if "op" in layer else {layers.WGMMA}
    assert layer["us"].keys() == again.keys() == {*layers.regimes_of(layer), *by_warpgroups}
    case = layers.case_of(layer)
    for regime, row in layer["us"].items():
        assert tuple(row) == layers.passes_of(layer)
        for name, us in row.items():
            direction = "backward" if name == "backward" else "forward"
            moved = case.bytes(direction, layers.dtype_of(regime).itemsize)
            assert us > floor_us(case.flop(direction), moved, regime), (regime, name)


def test_layers_that_are_in_the_table_are_those_that_are_measured():
    assert list(layer_times.read()) == [layer["name"] for layer in LAYERS]


def test_what_changed_in_the_table_is_named():
    row = {"layer": {"float32": {"forward": 100.0, "dw": 50.0}}}
    assert layer_times.differences(row, {"layer": {"float32": {"forward": 100.4, "dw": 50.0}}}) == []
    said = layer_times.differences(row, {"layer": {"float32": {"forward": 101.0}, "tf32": {"forward": 3.0}}})
    assert said == [
        "layer, float32, forward: 101 us, was 100",
        "layer, tf32, forward: 3 us, was nothing",
    ]


@pytest.mark.usefixtures("emulated_gpu")
@pytest.mark.parametrize(
    ("op", "regime"),
    [
        *(("conv", regime) for regime in layers.REGIMES),
        *((op, regime) for op in ("max_pool", "spatial_batchnorm") for regime in layers.PASS_REGIMES),
    ],
)
def test_what_is_timed_is_what_is_said(op, regime):
    shapes = {
        "conv": ((2, 16, 6, 6), (16, 16, 3, 3)),
        "max_pool": ((2, 8, 6, 6), None),
        "spatial_batchnorm": ((2, 8, 6, 6), None),
    }
    options = {"conv": {"stride": 1, "pad": 1}, "max_pool": {"window": 2}, "spatial_batchnorm": {}}
    layer = {"name": op, "x": shapes[op][0], "w": shapes[op][1], **options[op]} | ({} if op == "conv" else {"op": op})
    inputs, references = kernels.prepared(layer, regime)
    with layers.in_regime(regime):
        passes = layers.ours(inputs.case, kernels._put(inputs), regime)
        assert tuple(passes) == layers.passes_of(layer)
        for name, call in passes.values():
            kernels._hold(references, inputs, name, call)
            wrong = partial(_scaled, call)
            with pytest.raises(AssertionError, match=f"gpuconv's {name} is wrong"):
                kernels._hold(references, inputs, name, wrong)


def _scaled(call):
    return backend.asarray(backend.asnumpy(call()) * np.float32(1.5))


def test_sums_in_16_bits_are_not_what_is_promised():
    case = Case("conv", "conv", (2, 64, 6, 6), (16, 64, 3, 3), {"stride": 1, "pad": 1})
    inputs = draw(case, "NHWC", "bfloat16")
    (reference,) = oracle.references(inputs)["forward"]
    right = reference.values + np.abs(reference.values).max() * 2.0**-9
    wrong = reference.values + np.abs(reference.values).max() * 2.0**-6
    for values, promised in ((right, True), (wrong, False)):
        found = oracle.Sample(reference.shape, values, True)
        assert reference.as_promised(found) is promised
        assert reference.agrees(found)


def test_all_layers_are_measured_in_every_regime_those_that_tell_most_first():
    items = kernels.items(dry=False)
    assert len(items) == len({kernels.words(item) for item in items})
    products, passes = predictions()["layers"], predictions()["passes"]
    beside_ffma = len(layers.REGIMES) - 1
    assert len(items) == beside_ffma * len(products) + kernels._FIRST + len(layers.PASS_REGIMES) * len(passes)
    assert tuple(regime for _, regime in items[: len(layers.REGIMES)]) == layers.REGIMES
    assert {regime for _, regime in kernels.items(dry=True)} == set(layers.REGIMES)


def test_a_row_says_what_was_predicted_and_what_pytorch_takes():
    layer = predictions()["layers"][0]
    us = layer["us"]["tf32"]["forward"]
    inputs = Inputs(layers.case_of(layer), "NHWC", "tf32", np.zeros(1, np.float32), None, None, None, None)
    row = kernels._result(layer, inputs, "forward", "tf32", [us, us, 2 * us], [3 * us])
    assert (row["predicted us"], row["measured / predicted"], row["torch / ours"]) == (us, 1.0, 3.0)
    assert 0 < row["of the floor"] < 1
    shown = kernels._shown([{"layer": layer["name"], "pass": "forward", "regime": "tf32"} | row])
    assert shown[0] == "geometric mean of ours / PyTorch's, tf32: 0.333 of 1 rows"
    assert "x1.00 of predicted" in shown[1]
    assert "torch / ours 3.00" in shown[1]


@pytest.mark.parametrize("predicted", [True, False])
def test_a_step_stands_beside_what_was_predicted_and_pytorch_s(predicted, monkeypatch, tmp_path):
    entry = dict(predictions()["steps"][0])
    if not predicted:
        entry |= dict.fromkeys(("gpu_ms", "host_ms", "launches"))
    row = {"step": steps.words(entry), "replayed ms": 2.0, "replayed measured / predicted": share(2.0, entry["gpu_ms"])}
    row |= steps._numbers(entry, 128, [1.0], [2.5], [(2.0, True)])
    assert (row["predicted ms"] is None) == (not predicted)
    work = _work(tmp_path)
    work.keep(rows=[row])
    monkeypatch.setattr(torch_steps, "ms", lambda *_, **__: [3.0, 3.0, 3.5])
    row |= steps._theirs(work, entry, 128)
    assert row["torch / ours"] == 1.5
    assert "replayed   2.00 ms" in steps._shown(row)
    assert "torch 3.00, torch / ours 1.5" in steps._shown(row)
    assert ("of predicted" in steps._shown(row)) == predicted


def test_pytorch_s_refusal_of_a_step_is_named(monkeypatch, tmp_path):
    def refuses(*_, **__):
        msg = "no such thing"
        raise RuntimeError(msg)

    monkeypatch.setattr(torch_steps, "ms", refuses)
    work = _work(tmp_path)
    assert steps._theirs(work, predictions()["steps"][0], 128) == {}
    assert work.found["torch refused"] == {"convnet, batch 128, float32": "RuntimeError: no such thing"}


def test_means_are_those_of_ratios():
    rows = [{"regime": "tf32", "torch / ours": ratio} for ratio in (0.5, 2.0, 4.0)] + [{"regime": "float32"}]
    assert kernels.means(rows) == {"tf32": round(4 ** (-1 / 3), 3)}


@pytest.mark.parametrize("precision", training.PRECISIONS)
def test_pytorch_takes_a_step_in_each_precision(precision):
    pytest.importorskip("torch")
    step = torch_steps.step_of("convnet", 2, precision)
    first, later = float(step().detach()), [float(step().detach()) for _ in range(4)][-1]
    assert 0 < later < first < 5


@pytest.mark.parametrize(
    ("measured", "predicted", "ratio"),
    [(3.0, 2.0, 1.5), (3.0, [2, 4], 1.0), (1.0, [2, 4], 0.5), (8.0, [2, 4], 2.0), (3.0, None, None)],
)
def test_shares(measured, predicted, ratio):
    assert share(measured, predicted) == ratio


# What needs no CuPy --------------------------------------------------------------------------------------------------


@pytest.mark.compilers
def test_random_calls_and_repeats_in_the_emulator(tmp_path):
    items = [("relu_rows", "float32", "NCHW"), ("sgd", "float32", "NHWC")]
    with emulated_on(EmulatedDevice("emulated")) as place:
        work = _work(tmp_path)
        assert calls.hold_random(work, place, 3) is True
        assert work.found["done"] == 3
        work = Work(tmp_path / "repeats", time.monotonic() + 600)
        assert calls.hold_repeats(work, place, items, 3) is True
        assert work.found["done"] == 2


class _Host:
    array = staticmethod(lambda a: a)
    numpy = staticmethod(lambda a: a)


def test_a_wrong_result_is_named(tmp_path, monkeypatch):
    class Wrong(_Host):
        numpy = staticmethod(lambda a: a + a.dtype.type(1))

    monkeypatch.setattr("tests.ladder.work.device_lost", lambda: False)
    work = _work(tmp_path)
    assert calls.hold_random(work, Wrong, 2) is False
    assert work.found["failed"][0].startswith("random_call(0): ")


def test_changed_bits_are_named(tmp_path, monkeypatch):
    class Changing(_Host):
        numpy = staticmethod(lambda a: a + a.dtype.type(next(changes)))

    changes = iter(range(100))
    monkeypatch.setattr("tests.ladder.work.device_lost", lambda: False)
    work = _work(tmp_path)
    assert calls.hold_repeats(work, Changing, [("relu_rows", "float32", "NCHW")], 3) is False
    assert "2 of 2 repeats have other bits" in work.found["failed"][0]


def test_random_calls_agree_with_the_oracle_on_the_cpu(tmp_path):
    work = _work(tmp_path)
    assert calls.hold_random(work, _Host, 60) is True
    assert work.found["done"] == 60
    assert len({random_call(seed)[0].operator for seed in range(60)}) >= 6


def test_every_call_runs_in_every_dtype_it_takes_the_slowest_first():
    items = calls.chosen(dry=False)
    assert len(set(items)) == len(items)
    assert {dtype for _, dtype, _ in items} == {"float32", "float16", "float64", "bfloat16"}
    assert {name for name, _, _ in items} == set(CALLS)
    slow = [name.startswith(calls._SLOW) for name, _, _ in items]
    assert slow == sorted(slow, reverse=True)


def test_tools_watch_tensor_cores_and_whatever_is_quick():
    items = calls.quick()
    assert [name.startswith("conv_tensor") for name, _, _ in items[:6]] == [True] * 6
    assert all(CALLS[name].takes(dtype) for name, dtype, _ in items)
    assert {name for name, _, _ in items} == calls._WATCHED.keys() | {
        call.name for call in CALLS.values() if call.quick
    }
    kernels = {one.kernel.name for name in calls._WATCHED for one in _launched_by(name)}
    assert {"conv_forward_tensor", "conv_backward_data_tensor"} <= kernels
    assert {"conv_backward_weight_tensor", "conv_backward_weight_tensor_float"} <= kernels


def _launched_by(name):
    return launched([CALLS[name]], (calls._WATCHED[name],)).values()


def test_results_by_loops_come_from_other_processes():
    items = [("relu_rows", "bfloat16", "NCHW"), ("all_finite", "float32", "NCHW")]
    with calls._expected(items, dry=False) as wanted:
        for item in items:
            for one, other in zip(wanted(item), calls.by_loops(item), strict=True):
                np.testing.assert_array_equal(one, other)


def test_dry_calls_exist_and_launch_each_kind_of_kernel():
    chosen = calls.chosen(dry=True)
    assert {name for name, _, _ in chosen} == set(calls.DRY)
    assert len(calls.chosen(dry=False)) > 20 * len(chosen)


@pytest.mark.compilers
def test_convolution_by_warpgroups_runs_in_the_emulator(tmp_path):
    work = _work(tmp_path, dry=True)
    assert warpgroups.run(work) is True
    assert work.found["done"] == len(warpgroups.items(dry=True)) == 4


def test_every_call_by_warpgroups_is_held_before_a_layer_is_timed():
    items = warpgroups.items(dry=False)
    kinds = [kind for kind, _, _ in items]
    assert kinds == sorted(kinds)
    assert {what for kind, what, _ in items if kind == "call"} == set(hopper_calls.CALLS)
    assert len(set(map(warpgroups.words, items))) == len(items)
    layer = {"name": "64->64", "us": {layers.WGMMA: {"dx": 1.0}}}
    found = warpgroups.row(layer, "dx", [4.0, 4.0, 5.0], [2.0])
    assert (found["warps / warpgroups"], found["measured / predicted"]) == (2.0, 2.0)
    assert warpgroups.shown(found).endswith("4.0 us by warps      2.0 us by warpgroups, 2.00, x2.00 of predicted")
    unknown = warpgroups.row(layer, "dw", [4.0, 4.0, 5.0], [2.0])
    assert warpgroups.shown(unknown).endswith("2.0 us by warpgroups, 2.00")


def test_hopper_s_modules_are_known_before_they_run():
    modules = hopper_section.modules(list(hopper.EXAMPLES))
    assert len(modules) == len(set(modules))
    expressions = {expression for _, names in modules for expression in names}
    assert {"conv_wgmma", "tensor_store", "tensor_load<4, true, false>"} <= expressions


def test_accuracy_is_held_to_a_committed_run_on_the_same_data_and_as_long():
    assert training._on_cpu("convnet", "no such data", 12) is None
    assert training._on_cpu("convnet", "CIFAR-10, JPEG-75 copy", 1000) is None
    kept = json.loads((training.ROOT / "bench" / "results" / "train-convnet-2026-11-30.json").read_text())
    assert training._on_cpu("convnet", kept["data"], kept["epochs"]) is not None


def test_a_packed_copy_of_the_data_is_unpacked_and_named(tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "unpack.py").write_text(
        "import pathlib, sys\nplace = pathlib.Path(sys.argv[1], 'batches')\nplace.mkdir(parents=True)\n"
    )
    work = _work(tmp_path, data=packed, data_name="a copy")
    assert ahead._unpacked(work, ahead._unpack(work)) is True
    assert (training.unpacked(tmp_path) / "batches" / "dataset-name.txt").read_text() == "a copy\n"
    (packed / "unpack.py").write_text("raise SystemExit('no Pillow')\n")
    assert ahead._unpacked(work, ahead._unpack(work)) is False
    assert "no Pillow" in work.found["data"]
