"""The GPU through CuPy, played by a stand-in: what is passed on, and what is said where something is missing."""

import sys
import types

import numpy as np
import pytest

from gpuconv.cuda import device as device_module
from gpuconv.cuda.device import CupyDevice, current, device_of, gpu_status, register
from gpuconv.errors import ArgTypeError, GpuUnavailableError


class CUDARuntimeError(RuntimeError):
    pass


class ndarray:
    """Stands in for cupy.ndarray."""

    def __init__(self, index=0):
        self.device = types.SimpleNamespace(id=index)


ndarray.__module__, ndarray.__qualname__ = "cupy", "ndarray"


class Gpu:
    """Stands in for cupy.cuda.Device: knows which one is current."""

    current: list[int] = [0]  # noqa: RUF012 - shared on purpose: the current device is one per thread
    compute_capability = "90"
    attributes = {"MultiProcessorCount": 132}  # noqa: RUF012

    def __init__(self, index):
        self.id = index

    def __enter__(self):
        self.current.append(self.id)

    def __exit__(self, *_):
        self.current.pop()


class Function:
    """Stands in for a compiled kernel: notes its launches and the device that was current."""

    max_dynamic_shared_size_bytes = 48 * 1024

    def __init__(self):
        self.launches = []

    def __call__(self, grid, block, args, *, shared_mem):
        self.launches.append((Gpu.current[-1], grid, block, args, shared_mem))


@pytest.fixture
def cupy(monkeypatch):
    """Put a stand-in for CuPy in its place, with one GPU and a compiler that work."""
    module = types.ModuleType("cupy")
    module.ndarray = ndarray
    module.cuda = types.ModuleType("cupy.cuda")
    module.cuda.Device = Gpu
    module.cuda.runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda index: {"name": b"Stand-in"},
        CUDARuntimeError=CUDARuntimeError,
    )
    module.cuda.nvrtc = types.SimpleNamespace(getVersion=lambda: (13, 0))
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setitem(sys.modules, "cupy.cuda", module.cuda)
    gpu_status.cache_clear()
    device_module.gpu.cache_clear()
    yield module
    gpu_status.cache_clear()
    device_module.gpu.cache_clear()


def failing(error):
    def call():
        raise error

    return call


def test_a_gpu_that_works(cupy):
    assert gpu_status() == (True, "1 GPU, NVRTC 13.0")


def test_without_cupy(cupy, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    usable, reason = gpu_status()
    assert not usable
    assert reason.startswith("CUDA needs CuPy, which cannot be imported (")
    assert "install gpuconv[cuda13x]" in reason


def test_without_a_driver(cupy):
    error = CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient\nand more")
    cupy.cuda.runtime.getDeviceCount = failing(error)
    usable, reason = gpu_status()
    assert not usable
    assert reason.startswith(
        "CUDA finds no usable GPU: cudaErrorInsufficientDriver: CUDA driver version is insufficient;"
    )
    assert "and more" not in reason


def test_with_a_driver_but_no_gpu(cupy):
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    assert gpu_status() == (False, "CUDA finds no usable GPU: the driver reports none")


@pytest.mark.parametrize("error", [RuntimeError("libnvrtc.so.13 not found"), OSError("x"), ImportError("x")], ids=repr)
def test_without_the_compiler(error, cupy):
    cupy.cuda.nvrtc.getVersion = failing(error)
    usable, reason = gpu_status()
    assert not usable
    assert reason.startswith(f"CUDA's compiler NVRTC cannot be loaded ({error})")


def test_the_three_reasons_reach_the_user(cupy):
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    with pytest.raises(GpuUnavailableError, match="the driver reports none"):
        device_of(ndarray())


# Devices of arrays --------------------------------------------------------------------------------------------------


def test_arrays_run_on_their_own_gpu(cupy):
    first, second = device_of(ndarray(0)), device_of(ndarray(1))
    assert (first.name, first.arch, first.sm_count) == ("cuda:0 (Stand-in)", 90, 132)
    assert second.name == "cuda:1 (Stand-in)"
    assert device_of(ndarray(0)) is first
    assert first.holds(ndarray(0))
    assert not first.holds(ndarray(1))
    assert not first.holds(np.zeros(1))


def test_new_arrays_are_made_on_the_current_gpu(cupy, monkeypatch):
    monkeypatch.setattr(cupy.cuda, "Device", lambda index=1: Gpu(index))
    assert current() is device_of(ndarray(1))


def test_arrays_of_no_device():
    with pytest.raises(ArgTypeError, match=r"expected an array on a GPU, got numpy\.ndarray"):
        device_of(np.zeros(1))


def test_registered_arrays_run_on_their_device(monkeypatch):
    class Mine:
        pass

    monkeypatch.setattr(device_module, "_REGISTERED", {})
    register(Mine, lambda array: ("device of", array))
    mine = Mine()
    assert device_of(mine) == ("device of", mine)


# Launches -----------------------------------------------------------------------------------------------------------


def test_launch_passes_arguments_as_cupy_takes_them(cupy):
    """A null pointer is 8 bytes of 0; a struct by value must be an array of one element."""
    function, array = Function(), ndarray(1)
    struct = np.zeros((), [("N", "i4"), ("C", "i4")])[()]
    CupyDevice(1).launch(function, (2, 1, 1), (32, 1, 1), (array, None, np.float32(2), struct), 0)
    ((current, grid, block, args, shared),) = function.launches
    assert (current, grid, block, shared) == (1, (2, 1, 1), (32, 1, 1), 0)
    assert args[0] is array
    assert args[1] == np.uint64(0)
    assert args[1].dtype == np.uint64
    assert args[2].dtype == np.float32
    assert isinstance(args[3], np.ndarray)
    assert args[3].shape == ()
    assert args[3].dtype == struct.dtype
    assert Gpu.current == [0]


@pytest.mark.parametrize(("shared", "allowed"), [(1024, 48 * 1024), (64 * 1024, 64 * 1024)])
def test_much_shared_memory_is_asked_for(shared, allowed, cupy):
    function = Function()
    CupyDevice(0).launch(function, (1, 1, 1), (32, 1, 1), (), shared)
    assert function.max_dynamic_shared_size_bytes == allowed
    assert function.launches[0][-1] == shared


def test_compilation_names_its_kernels(cupy):
    asked = {}

    class RawModule:
        def __init__(self, **options):
            asked.update(options, device=Gpu.current[-1])

        def get_function(self, name):
            return f"function {name}"

    cupy.RawModule = RawModule
    found = CupyDevice(1).compile("text", "conv.cu", ("scale<float>",), ("-std=c++17",))
    assert found == {"scale<float>": "function scale<float>"}
    assert asked == {
        "code": "text",
        "options": ("-std=c++17",),
        "name_expressions": ("scale<float>",),
        "device": 1,
    }
