"""What real CuPy says where something is missing or fails, in gpuconv's words (tests/cupy_emulated)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cupy

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ["train", "--device", "cuda", "--data", "shapes", "--preset", "three-layer", "--filters", "4"]
FEW = [
    "--hidden",
    "16",
    "--train-images",
    "64",
    "--test-images",
    "20",
    "--validation",
    "20",
    "--batch-size",
    "20",
    "--epochs",
    "1",
]


def run(*arguments, folder, **variables):
    """Run a program whose CuPy is emulated; return its exit code, what it printed and what it complained of."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("CUPY_", "GPUCONV_"))}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "tests.cupy_emulated", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment | variables, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def run_command(before, *arguments, folder, **variables):
    """Run some Python and then gpuconv's command line in the same process."""
    code = f"{before}\nimport sys\nfrom gpuconv import cli\nsys.exit(cli.main({list(arguments)!r}))"
    return run("-c", code, folder=folder, **variables)


WITHOUT = {
    "cublas": (
        """
from cuda import pathfinder
load = pathfinder.load_nvidia_dynamic_lib
def without(name):
    if name == "cublas":
        raise pathfinder.DynamicLibNotFoundError("Failure finding libcublas.so.13")
    return load(name)
pathfinder.load_nvidia_dynamic_lib = without
""",
        "CUDA's matrix products, cuBLAS, cannot be loaded (Failure finding libcublas.so.13): install cupy-cuda",
    ),
    "nvrtc": (
        """
from cuda import pathfinder
load = pathfinder.load_nvidia_dynamic_lib
def without(name):
    if name == "nvrtc":
        raise pathfinder.DynamicLibNotFoundError("Failure finding libnvrtc.so.13")
    return load(name)
pathfinder.load_nvidia_dynamic_lib = without
""",
        "CUDA's compiler NVRTC cannot be loaded (Failure finding libnvrtc.so.13): install cupy-cuda",
    ),
    "headers": (
        """
from cuda import pathfinder
pathfinder.find_nvidia_header_directory = lambda name: None
""",
        "CUDA's headers (cuda_fp16.h), which CuPy compiles its own kernels with, are not found: install cupy-cuda",
    ),
}


@pytest.mark.parametrize("what", WITHOUT)
def test_what_is_missing_is_said_before_anything_is_done(what, tmp_path):
    before, sentence = WITHOUT[what]
    code, out, err = run_command(before, "doctor", "--json", folder=tmp_path)
    found = json.loads(out)["cuda"]
    assert code == 1, err
    assert found["value"].startswith(sentence)
    assert not found["ok"]
    code, _, err = run_command(before, *TRAIN, *FEW, folder=tmp_path)
    assert code == 1
    assert err.startswith(f"gpuconv: error: {sentence}")
    assert len(err.splitlines()) == 1


def test_the_doctor_shows_what_is_there(tmp_path):
    code, out, err = run("-m", "gpuconv", "doctor", "--json", folder=tmp_path)
    found = {name: entry["value"] for name, entry in json.loads(out).items()}
    assert (code, err) == (0, "")
    assert found["cuda"].startswith("device cuda can be used: 1 GPU, NVRTC ")
    assert found["GPU 0"] == "Emulated on the CPU, compute capability 8.0, 8.0 GiB"
    assert {"cupy", "nvrtc", "cuda_runtime", "cuda_driver", "cublas"} <= found.keys()


def test_to_look_for_a_gpu_takes_no_memory_on_it(tmp_path):
    code = """
from gpuconv.cuda.installed import gpu_status
import cupy
def refused(*_):
    raise AssertionError("something was started on the GPU")
for name in ("malloc", "mallocAsync", "memGetInfo", "streamCreate", "deviceSynchronize"):
    assert hasattr(cupy.cuda.runtime, name), name
    setattr(cupy.cuda.runtime, name, refused)
cupy.cuda.device.get_cublas_handle = refused
assert gpu_status()[0], gpu_status()
assert cupy.get_default_memory_pool().total_bytes() == 0
"""
    assert run("-c", code, folder=tmp_path) == (0, "", "")


# A kernel that writes where no memory is.
FAULT = """
import gpuconv
from gpuconv import backend
gpuconv.use("cuda")
import cupy
x = backend.zeros((4,), "float32")
wild = cupy.RawKernel('extern "C" __global__ void wild(float* x) { x[1ll << 36] = 1; }', "wild")
def fault():
    wild((1,), (1,), (x,))
"""
FAULT_AT = """
import numpy as np
from gpuconv.cuda import device as cuda_device
from gpuconv.errors import GpuFaultError
gpu = cuda_device.current()
a = backend.zeros((4, 4), "float32")
gpuconv.relu_forward(x)
gpu.synchronize()
fault()
calls = {
    "asnumpy": lambda: backend.asnumpy(x),
    "synchronize": gpu.synchronize,
    "empty": lambda: gpu.empty((1 << 20,), "float32"),
    "zeros": lambda: backend.zeros((1 << 20,), "float32"),
    "asarray": lambda: backend.asarray(np.zeros(1 << 20)),
    "matmul": lambda: gpu.matmul(a, a, a),
    "compile": lambda: gpuconv.max_pool_forward(a.reshape(1, 1, 4, 4), window=2),
    "launch": lambda: gpuconv.relu_forward(x),
}
for name in [FIRST, *calls]:
    try:
        calls[name]()
        print(name, "passed")
    except GpuFaultError as error:
        assert "an earlier kernel failed (" in str(error), str(error)
        assert "GPUCONV_DEBUG=1" in str(error), str(error)
        assert type(error.__cause__).__module__.startswith("cupy"), error.__cause__
"""


@pytest.mark.parametrize("first", ["asnumpy", "synchronize"])
def test_a_fault_is_told_wherever_it_shows(first, tmp_path):
    """First where somebody waits, then at every call, for a fault is for good."""
    code = FAULT + f"FIRST = {first!r}\n" + FAULT_AT
    status, out, err = run("-c", code, folder=tmp_path, CUPY_EMULATED_LAZY="1")
    assert status == 0, err
    assert out == ""


@pytest.mark.parametrize(
    "call",
    ["backend.asnumpy(x)", "float((x + 1).sum())", "x.get()"],
    ids=["ours", "CuPy's own arithmetic", "CuPy's own copy"],
)
def test_a_fault_ends_the_command_line_with_one_line(call, tmp_path):
    before = f"""{FAULT}
from gpuconv import train
def broken(*_, **__):
    fault()
    {call}
train.train = broken
"""
    code, _, err = run_command(before, *TRAIN, *FEW, folder=tmp_path, CUPY_EMULATED_LAZY="1")
    said = [line for line in err.splitlines() if line.startswith("gpuconv: error: ")]
    assert code == 1
    assert len(said) == 1
    assert "an earlier kernel failed (" in said[0]
    assert "Traceback" not in err


def test_a_gpu_run_s_record_names_what_it_was_computed_by(tmp_path):
    code, _, err = run("-m", "gpuconv", *TRAIN, *FEW, "--run-dir", "run", folder=tmp_path)
    assert code == 0, err
    versions = json.loads((tmp_path / "run" / "env.json").read_text())["versions"]
    assert versions["cupy"].startswith("14.")
    assert {"nvrtc", "cuda_runtime", "cuda_driver", "cublas"} <= versions.keys()
