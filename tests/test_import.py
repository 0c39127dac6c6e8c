"""`import gpuconv` does nothing but import: no optional packages, no files, threads, processes or sockets."""

import json
import subprocess
import sys

import pytest

import gpuconv

# Run in a fresh interpreter.  NumPy is imported first: what it does is its own affair.
_WATCH = """
import json, sys, threading
import numpy
before = set(sys.modules)
events = []

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = isinstance(mode, str) and set(mode) & set("wax+") or isinstance(flags, int) and flags & 3
        if writes or not str(path).endswith((".py", ".pyc", ".so", ".pth", ".zip")):
            events.append(f"open {path!r} {mode!r}")
    elif event.split(".")[0] in ("socket", "subprocess", "urllib", "http", "ftplib", "smtplib", "ctypes"):
        events.append(event)
    elif event in ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.mkdir", "os.remove", "os.rename"):
        events.append(event)

sys.dont_write_bytecode = True
sys.addaudithook(watch)
<code>
print(json.dumps({
    "events": events,
    "modules": sorted({name.split(".")[0] for name in set(sys.modules) - before}),
    "inside": sorted(name for name in sys.modules if name.startswith("gpuconv")),
    "threads": threading.active_count(),
}))
"""


def _run(code):
    done = subprocess.run(
        [sys.executable, "-c", _WATCH.replace("<code>", code)], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def imported():
    return _run("import gpuconv")


def test_import_opens_nothing_and_starts_nothing(imported):
    assert imported["events"] == []
    assert imported["threads"] == 1


def test_import_needs_numpy_only(imported):
    optional = {
        "cupy",
        "numba",
        "torch",
        "matplotlib",
        "rich",
        "safetensors",
        "threadpoolctl",
        "pytest",
        "hypothesis",
        "mpi4py",
    }
    assert not optional & set(imported["modules"])


def test_import_loads_no_backend(imported):
    """A backend comes with the first of its arrays."""
    layers = {name.split(".")[1] for name in imported["inside"] if "." in name}
    assert not layers & {"cpu", "cuda", "naive", "train", "compat"}


def test_cpu_call_never_imports_cupy_or_torch():
    code = "import gpuconv; gpuconv.conv_forward(numpy.zeros((1, 1, 3, 3)), numpy.zeros((1, 1, 2, 2)))"
    found = _run(code)
    assert "gpuconv.cpu" in found["inside"]
    assert not {"cupy", "torch", "rich", "matplotlib"} & set(found["modules"])


@pytest.mark.parametrize("module", ["nn", "data", "train", "naive", "compat", "random"])
def test_each_part_imports_alone(module):
    """No part needs another to be imported first, and none imports CuPy or PyTorch."""
    found = _run(f"import gpuconv.{module}")
    assert not {"cupy", "torch", "matplotlib"} & set(found["modules"])
    assert not [event for event in found["events"] if not event.startswith("open")]


PARTS = ("compat", "cudnn", "data", "export", "nn", "testing", "train")


@pytest.mark.parametrize("part", PARTS)
def test_each_part_comes_when_it_is_touched(part):
    found = _run(f"import gpuconv; assert gpuconv.{part}.__name__ == 'gpuconv.{part}'")
    assert f"gpuconv.{part}" in found["inside"]


def test_the_version_is_the_installed_one():
    _run("import gpuconv, importlib.metadata; assert gpuconv.__version__ == importlib.metadata.version('gpuconv')")


def test_parts_are_shown_before_they_are_touched(imported):
    assert not [part for part in (*PARTS, "runs") if f"gpuconv.{part}" in imported["inside"]]
    _run(f"import gpuconv; assert {{*{PARTS}, '__version__', 'conv_forward', 'load', 'use'}} <= set(dir(gpuconv))")


def test_dir_shows_what_is_public_and_nothing_else():
    shown = {name for name in dir(gpuconv) if not name.startswith("__")}
    assert shown == {*gpuconv.__all__, *PARTS, "errors", "typing"}


def test_load_comes_when_it_is_touched():
    found = _run("import gpuconv; assert gpuconv.load.__module__ == 'gpuconv.runs.prediction'")
    assert not {"rich", "matplotlib", "PIL", "torch"} & set(found["modules"])


def test_a_private_name_is_missed_without_importing_more(imported):
    found = _run("import gpuconv; assert not hasattr(gpuconv, '__wrapped__')")
    assert found["inside"] == imported["inside"]


def test_a_name_that_is_not_there_is_said_to_be_missing():
    _run("import gpuconv; assert not hasattr(gpuconv, 'network')")
    with pytest.raises(AttributeError, match="module 'gpuconv' has no attribute 'network'"):
        gpuconv.network  # noqa: B018 - the look is the test


@pytest.mark.parametrize(
    ("module", "name", "meant"),
    [
        (gpuconv, "conv2d", "conv_forward"),
        (gpuconv, "avg_pool2d", "average_pool_forward"),
        (gpuconv, "relu", "relu_forward"),
        (gpuconv, "adam", "adam_update"),
        (gpuconv, "conv_foward", "conv_forward"),
        (gpuconv.nn, "Conv2d", "Conv"),
        (gpuconv.nn, "Linear", "Affine"),
        (gpuconv.nn, "ReLU", "Relu"),
    ],
)
def test_a_name_of_another_library_is_told_ours(module, name, meant):
    with pytest.raises(AttributeError, match=rf"has no attribute '{name}'; did you mean {meant}\?$"):
        getattr(module, name)
    assert not hasattr(module, f"_{name}")
