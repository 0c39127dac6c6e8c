"""Real CuPy on the CPU: what CuPy asks of a GPU is answered as one would (tests/cupy_emulated).

The checks lie in programs that CuPy runs in (tests/cupy_emulated_programs); a process runs all checks of a program.
"""

import ast
import functools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from cupy_emulated import build, requirements, settings
from cupy_emulated.errors import CupyEmulatedError
from emulate import nvrtc

pytestmark = pytest.mark.cupy

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ROOT / "tests" / "cupy_emulated_programs"
BESIDE = "import cupy_emulated.activate"  # what a process that is emulated can import


def environment(**variables):
    """Return an environment with nothing of CuPy's in it but these variables."""
    kept = ("CUPY_EMULATED_CACHE", "CUPY_CACHE_DIR")
    return {n: text for n, text in os.environ.items() if not n.startswith("CUPY_") or n in kept} | variables


def run(*arguments, **variables):
    """Run a program whose CuPy is emulated; return what it printed and how it ended."""
    command = [sys.executable, "-m", "tests.cupy_emulated", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True, check=False, timeout=600
    )


def checks(program, prefix="check_"):
    """Return the names of a program's checks, without running it."""
    tree = ast.parse((PROGRAMS / program).read_text(encoding="utf-8"))
    return [f.name for f in tree.body if isinstance(f, ast.FunctionDef) and f.name.startswith(prefix)]


@functools.cache
def outcomes(program, *names, **variables):
    """Run checks of a program, all if none are named; return why each failed ("" if not), and what was on stderr."""
    done = run(PROGRAMS / program, *names, **variables)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    return dict(map(json.loads, lines)), done.stderr


def passes(program, name, *alone, **variables):
    reasons, errors = outcomes(program, *alone, **variables)
    assert name in reasons, f"{program} ended before {name}:\n{errors}"
    assert not reasons[name], reasons[name] + errors
    return errors


@pytest.mark.parametrize("name", checks("basics.py"))
def test_basics(name):
    passes("basics.py", name)


@pytest.mark.parametrize("lazy", ["0", "1"], ids=["at_once", "lazy"])
@pytest.mark.parametrize("name", checks("order.py"))
def test_order(name, lazy):
    passes("order.py", name, CUPY_EMULATED_LAZY=lazy)


@pytest.mark.parametrize("lazy", ["0", "1"], ids=["at_once", "lazy"])
@pytest.mark.parametrize("name", checks("capture.py"))
def test_capture(name, lazy):
    passes("capture.py", name, CUPY_EMULATED_LAZY=lazy)


@pytest.mark.parametrize("name", checks("devices.py"))
def test_devices(name):
    passes("devices.py", name, CUPY_EMULATED_DEVICES="2")


@pytest.mark.parametrize("name", checks("guarded.py"))
def test_guard(name):
    passes("guarded.py", name, CUPY_EMULATED_GUARD="1", CUPY_EMULATED_LAZY="1")


SAID_BY_GUARD = {
    "alone_reading_past_the_end": (
        "kernel read_at",
        "block (0,0,0) thread (0,0,0)",
        "0 bytes past the end of allocation",
        "nearest is argument 1",
    ),
    "alone_writing_past_the_end": ("kernel write_at wrote outside of allocation", "396 bytes: 0 bytes past its end"),
    "alone_writing_before_the_start": ("kernel write_at wrote outside of allocation", "12 bytes before its start"),
    "alone_freeing_while_another_stream_works": ("kernel add", "invalid memory access"),
}


@pytest.mark.parametrize("name", checks("guarded.py", "alone_"))
def test_guard_finds(name):
    errors = passes("guarded.py", name, name, CUPY_EMULATED_GUARD="1", CUPY_EMULATED_LAZY="1")
    for words in SAID_BY_GUARD[name]:
        assert words in errors


SAID_OF_FAULTS = {
    "alone_illegal_access": ("kernel write_at, grid (2,1,1), block (3,1,1)", "block (0,0,0) thread (0,0,0)", ".cu:"),
    "alone_freed_memory": ("invalid memory access",),
    "alone_endless": ("TIMEOUT: kernel ran longer than 1 s",),
    "alone_trap": ("trap",),
}


@pytest.mark.parametrize("name", checks("faults.py", "alone_"))
def test_faults(name):
    errors = passes("faults.py", name, name, CUPY_EMULATED_TIMEOUT="1")
    for words in SAID_OF_FAULTS[name]:
        assert words in errors


TRACED = """
import cupy, numpy as np
from checks import add, filled, kernel
x, y = filled(1), filled(0)
add(y, x, 1)
cupy.cuda.profiler.start()
add(y, x, 1)
stream = cupy.cuda.Stream(non_blocking=True)
with stream:
    stream.begin_capture()
    add(y, x, 1)
    add(y, x, 1)
    graph = stream.end_capture()
graph.launch(stream)
stream.synchronize()
a = x.reshape(4, 8)
cupy.matmul(a, a.T, out=cupy.empty((4, 4), np.float32))
y.get()
cupy.cuda.profiler.stop()
"""


def test_traces(tmp_path):
    file = tmp_path / "trace.jsonl"
    done = run("-c", TRACED, CUPY_EMULATED_TRACE=str(file), PYTHONPATH=str(PROGRAMS))
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    names = [event["event"] for event in events]
    inside = events[names.index("profiler") + 1 : -1]
    assert events[-1]["on"] == 0
    launches = [event for event in inside if event["event"] == "launch"]
    assert [event["captured"] for event in launches] == [0, 1, 1]
    assert {(event["kernel"], *event["grid"], *event["block"]) for event in launches} == {("add", 1, 1, 1, 32, 1, 1)}
    (graph,) = (event for event in inside if event["event"] == "graph")
    assert graph["launch nodes"] == 2
    (product,) = (event for event in inside if event["event"] == "product")
    assert (sorted(product["sizes"]), product["dtype"]) == ([4, 4, 8], "float32")
    (wait,) = (event for event in inside if event["event"] == "wait" and event["stream"])
    assert wait["for"] == "stream"
    (copy,) = (event for event in inside if event["event"] == "copy")
    assert (copy["kind"], copy["bytes"], copy["waits"]) == ("device to host", 128, 1)
    assert {event["process"] for event in events} == {events[0]["process"]}
    assert any(event["event"] == "allocate" and event["bytes"] == 512 for event in events)
    said = run("-c", TRACED, CUPY_EMULATED_TRACE="1", PYTHONPATH=str(PROGRAMS)).stderr
    assert "cupy-emulated: launch kernel add grid (1, 1, 1) block (32, 1, 1)" in said
    assert len(said.splitlines()) == len(events)


# Starting ------------------------------------------------------------------------------------------------------------


def test_processes_that_it_starts_are_emulated_and_others_are_not(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('the one that was there')\n", encoding="utf-8")
    code = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', '{BESIDE}']).returncode)"
    done = run("-c", code, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "the one that was there\n" * 3  # also of the process that became the program
    assert run("-m", "platform").stdout.strip() == platform.platform()
    plain = subprocess.run(
        [sys.executable, "-c", BESIDE], env=environment(), capture_output=True, text=True, check=False
    )
    assert "No module named 'cupy_emulated'" in plain.stderr


def test_only_what_is_needed_can_be_imported():
    done = run("-c", "import emulate, cupy_emulated, compare")
    assert "No module named 'compare'" in done.stderr


def test_settings_that_make_no_sense_are_refused_in_one_sentence():
    done = run("-c", "print('ran')", CUPY_EMULATED_MEMORY="much")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "cupy-emulated: CUPY_EMULATED_MEMORY=much must be a whole number from 1 to 262144\n"
    for name, text, reason in (
        ("SMS", "0", "must be a whole number from 1 to 1024"),
        ("DEVICES", "9", "must be a whole number from 1 to 8"),
        ("LAZY", "yes", "CUPY_EMULATED_LAZY=yes must be 0 or 1"),
        ("TRACE", "no-such-folder/file", "is in a folder that does not exist"),
        ("SPEED", "1", "CUPY_EMULATED_SPEED is no setting; there are"),
    ):
        with pytest.raises(CupyEmulatedError, match=reason):
            settings.read({f"CUPY_EMULATED_{name}": text})


def test_settings_reach_the_device():
    code = "import cupy; p = cupy.cuda.runtime.getDeviceProperties(0); d = cupy.cuda.Device()\n"
    code += "print(p['multiProcessorCount'], d.compute_capability, p['totalGlobalMem'] >> 20, p['name'].decode())"
    done = run("-c", code, CUPY_EMULATED_SMS="132", CUPY_EMULATED_ARCH="90", CUPY_EMULATED_MEMORY="100")
    assert done.stdout == "132 90 100 Emulated on the CPU\n", done.stderr


def test_devices_can_be_hidden():
    code = "import cupy; print(cupy.cuda.is_available()); cupy.cuda.runtime.getDeviceCount()"
    done = run("-c", code, CUDA_VISIBLE_DEVICES="")
    assert done.stdout == "False\n", done.stderr
    assert "cudaErrorNoDevice" in done.stderr
    for text, count in (("", 0), ("-1", 0), ("0", 1), ("1,0", 2), ("1,2,0", 1), ("0,1,2", 2)):
        assert settings.read({"CUPY_EMULATED_DEVICES": "2", "CUDA_VISIBLE_DEVICES": text}).devices == count


def test_every_setting_is_in_the_table():
    text = (ROOT / "tests" / "cupy_emulated" / "README.md").read_text(encoding="utf-8")
    for name in (*settings._NUMBERS, *settings._SWITCHES, *settings._TEXTS):
        assert f"| `CUPY_EMULATED_{name}" in text
    for name, (otherwise, _, _) in settings._NUMBERS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `CUPY_EMULATED_{name}"))
        assert f"({otherwise})" in row


def test_a_stripped_wheel_is_refused_in_one_sentence(tmp_path):
    wheel = requirements.wheel()
    for path in (wheel.runtime, wheel.cublas):
        copy = tmp_path / path.relative_to(wheel.runtime.parents[3])
        copy.parent.mkdir(parents=True)
        subprocess.run(["strip", "-o", copy, path], check=True)
    (tmp_path / "cupy_backends" / "__init__.py").touch()
    done = run("-c", "", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "has no symbol table" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_missing_is_named(monkeypatch):
    done = run("-c", "", CXX="no-such-compiler")
    assert done.returncode == 1
    assert "no-such-compiler is not installed (Debian: apt-get install g++)" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    monkeypatch.setattr(nvrtc, "cuda_roots", list)
    with pytest.raises(
        CupyEmulatedError, match="CUDA 13, whose headers are not installed: pip install nvidia-cuda-run"
    ):
        requirements.headers(13)
    nvrtc.nvrtc.cache_clear()
    with pytest.raises(CupyEmulatedError, match="pip install nvidia-cuda-nvrtc"):
        requirements.check()
    monkeypatch.undo()
    nvrtc.nvrtc.cache_clear()
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(CupyEmulatedError, match="on Linux on x86-64 only, and this is linux on aarch64"):
        requirements.check()


BUILDS = """
import sys
from cupy_emulated import standins
print("ready", flush=True)
sys.stdin.readline()
print(standins.empty("libnothing.so"))
"""


def test_processes_that_build_at_once_do_not_disturb_each_other(tmp_path):
    command = [sys.executable, "-m", "tests.cupy_emulated", "-c", BUILDS]
    variables = environment(CUPY_EMULATED_CACHE=str(tmp_path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=ROOT, env=variables, **pipes) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    paths = {process.communicate()[0].strip() for process in processes}
    assert len(paths) == 1
    (folder,) = tmp_path.iterdir()  # and nothing half made beside it
    assert Path(paths.pop()) == folder / "libnothing.so"


RECORDED = """
import cupy
cupy.RawModule(code='extern "C" __global__ void one(float* y) { y[0] = 1; }').get_function("one")
cupy.RawModule(code='template <int K> __global__ void two(float* y) { y[0] = K; }', name_expressions=["two<2>"]).compile()
cupy.asarray([1.0]) * 3
"""


def test_kernels_are_recorded_and_built_ahead(tmp_path):
    file, cache = tmp_path / "kernels.jsonl", tmp_path / "ptx"
    done = run("-c", RECORDED, CUPY_EMULATED_RECORD=str(file))
    assert (done.returncode, done.stderr) == (0, "")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["names"] for line in lines] == [None, ["two<2>"], None]
    assert str(ROOT) not in "".join(lines)
    own = build.line("template <int K> __global__ void three(float* y) { y[0] = K; }", ["-std=c++17"], ["three<3>"])
    wrong = build.line("this is not CUDA", [], [])
    file.write_text("\n".join([*lines, own, wrong, ""]), encoding="utf-8")
    done = run("-m", "cupy_emulated.build", file, "--processes", 2, CUPY_CACHE_DIR=str(cache))
    assert done.returncode == 1
    assert done.stderr.count("CompileException") == 1
    made = {path.name for path in (cache / "emulated").iterdir()}
    assert len(made) == len(lines) + 1
    assert run("-c", RECORDED, CUPY_CACHE_DIR=str(cache)).returncode == 0
    assert {path.name for path in (cache / "emulated").iterdir()} == made  # all were there
