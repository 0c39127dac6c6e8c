"""The GPU through CuPy, played by a stand-in: what is passed on, and what is said where something is missing."""

import sys
import types

import numpy as np
import pytest

from gpuconv import backend, doctor
from gpuconv.cuda import device as device_module
from gpuconv.cuda import installed
from gpuconv.cuda.device import CupyDevice, current, device_of, gpu_status, register
from gpuconv.errors import ArgTypeError, GpuFaultError, GpuLaunchError, GpuUnavailableError
from gpuconv.runs.machine import versions


class CUDARuntimeError(RuntimeError):
    """Stands in for CuPy's error of this name."""

    def __init__(self, message, status=999):
        super().__init__(message)
        self.status = status


CUDARuntimeError.__module__ = "cupy_backends.cuda.api.runtime"


class ndarray:
    """Stands in for cupy.ndarray."""

    def __init__(self, index=0):
        self.device, self.data = types.SimpleNamespace(id=index), types.SimpleNamespace(device_id=index)


ndarray.__module__, ndarray.__qualname__ = "cupy", "ndarray"


class Gpu:
    """Stands in for cupy.cuda.Device: knows which one is current."""

    current: list[int] = [0]  # noqa: RUF012 - shared on purpose: the current device is one per thread
    compute_capability = "90"
    attributes = {"MultiProcessorCount": 132}  # noqa: RUF012

    def __init__(self, index=0):
        self.id = index

    def __enter__(self):
        if self.id < 0:
            msg = "cudaErrorIllegalAddress: an illegal memory access was encountered"
            raise CUDARuntimeError(msg, 700)
        self.current.append(self.id)

    def __exit__(self, *_):
        self.current.pop()


class Function:
    """Stands in for a compiled kernel: notes its launches and the device that was current."""

    max_dynamic_shared_size_bytes = None  # not asked for
    shared_size_bytes = 112  # static

    def __init__(self):
        self.launches = []

    def __call__(self, grid, block, args, *, shared_mem):
        self.launches.append((Gpu.current[-1], grid, block, args, shared_mem))


@pytest.fixture
def cupy(monkeypatch, tmp_path):
    """Put a stand-in for CuPy in its place, with one GPU and all that belongs to it."""
    tmp_path.joinpath("cuda_fp16.h").touch()
    module = types.ModuleType("cupy")
    module.__version__ = "14.2.0"
    module.ndarray = ndarray
    module._core = types.SimpleNamespace(
        core=types.SimpleNamespace(
            assemble_cupy_compiler_options=lambda options: (*options, "-std=c++17", f"-I{tmp_path}")
        )
    )
    module.cuda = types.ModuleType("cupy.cuda")
    module.cuda.Device = Gpu
    facts = {"name": b"Stand-in", "major": 9, "minor": 0, "totalGlobalMem": 80 * 2**30}
    module.cuda.runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDevice=lambda: Gpu.current[-1],
        getDeviceProperties=lambda index: facts,
        runtimeGetVersion=lambda: 13020,
        driverGetVersion=lambda: 13000,
        CUDARuntimeError=CUDARuntimeError,
    )
    module.cuda.device = types.SimpleNamespace(get_cublas_handle=lambda: "a handle")
    module.cuda.nvrtc = types.SimpleNamespace(getVersion=lambda: (13, 0))
    module.cuda.cublas = types.SimpleNamespace(getVersion=lambda handle: 130102)
    module.cuda.compiler = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setitem(sys.modules, "cupy.cuda", module.cuda)
    monkeypatch.setattr(installed, "_installed", lambda: ["cupy-cuda13x"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu_status.cache_clear()
    device_module.gpu.cache_clear()
    yield module
    gpu_status.cache_clear()
    device_module.gpu.cache_clear()


def failing(error):
    def call(*_, **__):
        raise error

    return call


def _reason():
    """Return why there is no GPU to be used."""
    gpu_status.cache_clear()
    usable, reason = gpu_status()
    assert not usable
    return reason


# What is missing ----------------------------------------------------------------------------------------------------


def test_a_gpu_that_works(cupy):
    assert gpu_status() == (True, "1 GPU, NVRTC 13.0")


def test_nothing_is_started_to_find_a_gpu(cupy):
    """No stream, no memory, no cuBLAS handle: each would make a context, hundreds of megabytes on the GPU."""
    cupy.cuda.Device = failing(AssertionError("a GPU was asked for"))
    cupy.cuda.device.get_cublas_handle = failing(AssertionError("cuBLAS was started"))
    assert gpu_status()[0]


def test_without_cupy(cupy, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(installed, "_installed", list)
    assert _reason() == "CUDA needs CuPy, which is not installed: pip install -e '.[cuda13x]' in the checkout"
    assert installed.versions() == {}


def test_a_cupy_that_cannot_be_imported(cupy, monkeypatch):
    def halted(name):
        msg = "\n====\nFailed to import CuPy.\n"
        raise ImportError(msg) from ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(installed.importlib, "import_module", halted)
    assert _reason() == (
        "cupy-cuda13x is installed but cannot be imported (libcudart.so.12: cannot open shared object file): "
        "pip install --force-reinstall cupy-cuda13x[ctk]"
    )


def test_what_is_left_of_a_removed_cupy(cupy, monkeypatch):
    """pip leaves folders that hold other files than its own, and Python takes any folder for a package."""
    monkeypatch.setitem(sys.modules, "cupy", types.ModuleType("cupy"))
    assert _reason() == (
        "the folder cupy that Python finds is not CuPy, or only what is left of it: remove it, then "
        "pip install -e '.[cuda13x]' in the checkout"
    )


def test_two_cupy_packages(cupy, monkeypatch, tmp_path):
    monkeypatch.undo()
    for name in ("cupy_cuda12x", "cupy_cuda13x"):
        folder = tmp_path / f"{name}-14.2.0.dist-info"
        folder.mkdir()
        folder.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 14.2.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert _reason() == (
        "more than one CuPy is installed, cupy-cuda12x and cupy-cuda13x, and they overwrite each other's files: "
        "pip uninstall cupy-cuda12x cupy-cuda13x, then pip install -e '.[cuda13x]' in the checkout"
    )


def test_without_a_driver(cupy):
    """CUDA's error is the same as for an old driver; its version is 0."""
    cupy.cuda.runtime.getDeviceCount = failing(CUDARuntimeError("cudaErrorInsufficientDriver: insufficient", 35))
    cupy.cuda.runtime.driverGetVersion = lambda: 0
    assert _reason() == ("CUDA needs NVIDIA's driver, which is not installed: install version 580 or newer")


@pytest.mark.parametrize(
    ("serves", "instead"),
    [(12040, ", or in place of this CuPy pip install -e '.[cuda12x]' in the checkout"), (11080, "")],
    ids=["CUDA 12", "CUDA 11"],
)
def test_with_a_driver_too_old(serves, instead, cupy):
    cupy.cuda.runtime.getDeviceCount = failing(CUDARuntimeError("cudaErrorInsufficientDriver: insufficient", 35))
    cupy.cuda.runtime.driverGetVersion = lambda: serves
    shown = f"{serves // 1000}.{serves % 1000 // 10}"
    assert _reason() == (
        f"NVIDIA's driver is too old: it serves CUDA {shown}, this CuPy needs CUDA 13: install version 580 or newer"
        + instead
    )


def test_with_a_driver_but_no_gpu(cupy, monkeypatch):
    cupy.cuda.runtime.getDeviceCount = failing(CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device", 100))
    assert _reason() == "CUDA finds no usable GPU: the driver reports none"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert _reason().endswith("the driver reports none (CUDA_VISIBLE_DEVICES is '7')")
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    assert _reason().startswith("CUDA finds no usable GPU: the driver reports none")


def test_with_a_driver_that_fails(cupy):
    cupy.cuda.runtime.getDeviceCount = failing(CUDARuntimeError("cudaErrorSystemNotReady: not ready\nand more", 802))
    assert _reason() == "CUDA finds no usable GPU: cudaErrorSystemNotReady: not ready"


@pytest.mark.parametrize("error", [RuntimeError("libnvrtc.so.13 not found"), OSError("x"), ImportError("x")], ids=repr)
def test_without_the_compiler(error, cupy):
    cupy.cuda.nvrtc.getVersion = failing(error)
    assert _reason() == (f"CUDA's compiler NVRTC cannot be loaded ({error}): install cupy-cuda13x[ctk]")


WITHOUT_HEADERS = (
    "CUDA's headers (cuda_fp16.h), which CuPy compiles its own kernels with, are not found: "
    "install cupy-cuda13x[ctk], or set CUDA_PATH to a CUDA toolkit"
)


def test_without_headers(cupy, tmp_path):
    """CuPy says so itself where it finds no folder at all, at its first kernel."""
    tmp_path.joinpath("cuda_fp16.h").unlink()
    assert _reason() == WITHOUT_HEADERS
    cupy._core.core.assemble_cupy_compiler_options = failing(RuntimeError("Failed to find CUDA headers."))
    assert _reason() == WITHOUT_HEADERS


def test_headers_where_cupy_14_0_looks(cupy, tmp_path):
    cupy._core.core.assemble_cupy_compiler_options = lambda options: options
    cupy.cuda.compiler._get_extra_include_dir_opts = lambda: (f"-I{tmp_path}",)
    assert gpu_status()[0]


def test_a_cupy_whose_search_for_headers_is_not_known(cupy):
    cupy._core.core = types.SimpleNamespace()
    assert gpu_status()[0]


@pytest.mark.parametrize("package", ["cupy-cuda13x", "cupy-cuda12x"])
def test_without_cublas(package, cupy, monkeypatch):
    """CuPy's extra `ctk` brings it; without it, the first affine layer would fail."""
    monkeypatch.setattr(installed, "_installed", lambda: [package])
    del cupy.cuda.cublas
    cupy.cuda.__getattr__ = failing(ImportError('Failure finding "libcublas.so.13"\nand where'))
    assert _reason() == (
        f'CUDA\'s matrix products, cuBLAS, cannot be loaded (Failure finding "libcublas.so.13"): install {package}[ctk]'
    )
    with pytest.raises(GpuUnavailableError, match="cuBLAS, cannot be loaded"):
        backend.resolve_device("cuda")


def test_the_reason_reaches_the_user(cupy):
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    with pytest.raises(GpuUnavailableError, match="the driver reports none"):
        device_of(ndarray())


# Versions -----------------------------------------------------------------------------------------------------------

CUDA = {
    "cupy": "14.2.0 (cupy-cuda13x)",
    "nvrtc": "13.0",
    "cuda_runtime": "13.2",
    "cuda_driver": "13.0",
    "cublas": "13.1.2",
}


@pytest.fixture
def no_driver_version(monkeypatch):
    """The number of NVIDIA's driver is this machine's own: not here."""
    monkeypatch.setattr(installed, "_DRIVER_VERSION", installed.Path("/nowhere"))


@pytest.mark.usefixtures("no_driver_version")
def test_versions_of_a_gpu_run_and_of_a_cpu_run(cupy, monkeypatch):
    monkeypatch.setattr(backend, "_chosen", "cuda")
    assert versions().items() >= CUDA.items()
    monkeypatch.setattr(backend, "_chosen", "cpu")
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert not CUDA.keys() & versions().keys()


def test_the_driver_s_own_number(cupy, monkeypatch, tmp_path):
    tmp_path.joinpath("version").write_text("580.65.06\n")
    monkeypatch.setattr(installed, "_DRIVER_VERSION", tmp_path / "version")
    assert installed.versions()["cuda_driver"] == "13.0 (580.65.06)"


def _findings():
    return {found.name: (found.value, found.ok) for found in doctor.examine()}


@pytest.mark.usefixtures("no_driver_version")
def test_the_doctor_shows_gpus_and_versions(cupy):
    found = _findings()
    assert found["cuda"] == ("device cuda can be used: 1 GPU, NVRTC 13.0", True)
    assert found["GPU 0"] == ("Stand-in, compute capability 9.0, 80.0 GiB", True)
    assert {name: found[name] for name in CUDA} == {name: (version, True) for name, version in CUDA.items()}


@pytest.mark.usefixtures("no_driver_version")
def test_the_doctor_tells_what_is_broken_from_what_is_not_here(cupy, monkeypatch):
    """A laptop without a GPU is in order; half a CUDA is not.  What can be asked is shown all the same."""
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    cupy.cuda.cublas.getVersion = failing(RuntimeError("no GPU"))
    found = _findings()
    assert found["cuda"][1]
    assert found.keys() & CUDA.keys() == CUDA.keys() - {"cublas"}
    cupy.cuda.runtime.getDeviceCount = lambda: 1
    cupy.cuda.nvrtc.getVersion = failing(RuntimeError("libnvrtc.so.13 not found"))
    text, ok = _findings()["cuda"]
    assert text.startswith("CUDA's compiler NVRTC cannot be loaded")
    assert not ok


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


@pytest.mark.parametrize(
    ("shared", "allowed"), [(1024, None), (49_152 - 112, None), (49_152 - 111, 49_152 - 111), (65_536, 65_536)]
)
def test_more_than_48_kb_of_shared_memory_is_asked_for(shared, allowed, cupy):
    function = Function()
    CupyDevice(0).launch(function, (1, 1, 1), (32, 1, 1), (), shared)
    assert function.max_dynamic_shared_size_bytes == allowed
    assert function.launches[0][-1] == shared


def test_shared_memory_is_asked_for_once(cupy):
    function, gpu = Function(), CupyDevice(0)
    for shared in (65_536, 50_000, 65_536, 70_000):
        gpu.launch(function, (1, 1, 1), (32, 1, 1), (), shared)
    assert function.max_dynamic_shared_size_bytes == 70_000
    function.max_dynamic_shared_size_bytes = None
    gpu.launch(function, (1, 1, 1), (32, 1, 1), (), 70_000)
    assert function.max_dynamic_shared_size_bytes is None


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


# Errors of CuPy -----------------------------------------------------------------------------------------------------

FAULT = CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered", 700)


@pytest.fixture
def broken(cupy, monkeypatch):
    """Return a function that makes all of CuPy raise an error, and the calls that a device makes of it."""

    class CompileException(Exception):
        pass

    CompileException.__module__ = "cupy.cuda.compiler"

    def with_error(error):
        for name in ("empty", "zeros", "array", "asnumpy", "RawModule"):
            setattr(cupy, name, failing(error))
        cupy.cuda.get_current_stream = cupy.cuda.device.get_cublas_handle = failing(error)
        device, matrix = CupyDevice(0), np.zeros((2, 2), np.float32)
        return {
            "empty": lambda: device.empty((1,), "float32"),
            "zeros": lambda: device.zeros((1,), "float32"),
            "asarray": lambda: device.asarray(np.zeros(1)),
            "asnumpy": lambda: device.asnumpy(ndarray()),
            "compile": lambda: device.compile("text", "conv.cu", ("scale<float>",), ()),
            "launch": lambda: device.launch(failing(error), (1, 1, 1), (1, 1, 1), (), 0),
            "matmul": lambda: device.matmul(matrix, matrix, matrix),
            "synchronize": device.synchronize,
        }

    with_error.CompileException = CompileException
    return with_error


CALLS = ("empty", "zeros", "asarray", "asnumpy", "compile", "launch", "matmul", "synchronize")


@pytest.mark.parametrize("name", CALLS)
def test_a_fault_of_an_earlier_kernel_is_told_wherever_it_shows(name, broken, monkeypatch):
    calls = broken(FAULT)
    with pytest.raises(GpuFaultError) as raised:
        calls[name]()
    assert str(raised.value) == (
        "cuda:0 (Stand-in): an earlier kernel failed (cudaErrorIllegalAddress: an illegal memory access was "
        "encountered), and this process can use the GPU no more; with GPUCONV_DEBUG=1 the launch that fails says so "
        "itself"
    )
    assert raised.value.__cause__ is FAULT
    assert Gpu.current == [0]
    monkeypatch.setenv("GPUCONV_DEBUG", "1")
    with pytest.raises(GpuFaultError, match=r"a kernel failed \(.*\), and this process can use the GPU no more$"):
        calls[name]()


def test_a_fault_that_shows_when_the_gpu_is_made_current(cupy):
    device = CupyDevice(-1)
    with pytest.raises(GpuFaultError, match="an earlier kernel failed"):
        device.synchronize()


@pytest.mark.parametrize("name", CALLS)
def test_any_other_error_of_cupy_is_a_launch_error(name, broken):
    for error in (CUDARuntimeError("cudaErrorInvalidValue: invalid argument", 1), broken.CompileException("line 7")):
        with pytest.raises(GpuLaunchError) as raised:
            broken(error)[name]()
        assert not isinstance(raised.value, GpuFaultError)
        assert str(raised.value) == f"cuda:0 (Stand-in): {error}"
        assert raised.value.__cause__ is error


@pytest.mark.parametrize("name", CALLS)
def test_memory_that_runs_out_stays_a_memory_error(name, broken):
    class OutOfMemoryError(MemoryError):
        __module__ = "cupy.cuda.memory"

    of_the_pool = OutOfMemoryError("Out of memory allocating 512 bytes")
    with pytest.raises(OutOfMemoryError) as raised:
        broken(of_the_pool)[name]()
    assert raised.value is of_the_pool
    of_cuda = CUDARuntimeError("cudaErrorMemoryAllocation: out of memory", 2)
    with pytest.raises(MemoryError, match=r"cuda:0 .*: cudaErrorMemoryAllocation") as raised:
        broken(of_cuda)[name]()
    assert raised.value.__cause__ is of_cuda


def test_cublas_is_not_blamed_for_an_earlier_fault(broken, cupy):
    """It says just that it failed; CUDA is asked why."""

    class CUBLASError(CUDARuntimeError):
        __module__ = "cupy_backends.cuda.libs.cublas"

    failed = CUBLASError("CUBLAS_STATUS_EXECUTION_FAILED", 13)
    cupy.cuda.runtime.deviceSynchronize = lambda: None
    with pytest.raises(GpuLaunchError, match="CUBLAS_STATUS_EXECUTION_FAILED") as raised:
        broken(failed)["matmul"]()
    assert not isinstance(raised.value, GpuFaultError)
    cupy.cuda.runtime.deviceSynchronize = failing(FAULT)
    with pytest.raises(GpuFaultError, match=r"an earlier kernel failed \(cudaErrorIllegalAddress") as raised:
        broken(failed)["matmul"]()
    assert raised.value.__cause__ is failed
    with pytest.raises(MemoryError, match="CUBLAS_STATUS_ALLOC_FAILED"):
        broken(CUBLASError("CUBLAS_STATUS_ALLOC_FAILED", 3))["matmul"]()


@pytest.mark.parametrize("error", [TypeError("a mistake of ours"), ValueError("x"), KeyboardInterrupt()], ids=repr)
def test_errors_that_are_not_cupy_s_stay(error, broken):
    with pytest.raises(type(error)) as raised:
        broken(error)["launch"]()
    assert raised.value is error
