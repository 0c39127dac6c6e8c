"""What all tests share: the places that compute, dtypes, memory layouts, random data.

The CUDA backend runs twice: in the emulator, and on a GPU.  A missing GPU skips those cases, counts them at the end of
the run, and fails them when GPUCONV_REQUIRE_GPU=1.  The emulator's compilers, g++ and NVRTC, must be there, unless
GPUCONV_ALLOW_MISSING_COMPILER=1 skips what needs them.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from emulate import EmulatedArray, EmulatedDevice, EmulatorUnavailableError, build, nvrtc, sass
from hypothesis import settings
from pairs import DEVICES, DTYPES, GPUS

from gpuconv import backend
from gpuconv.cuda import device as cuda_device
from gpuconv.cuda.kernel import OPTIONS
from gpuconv.cuda.source import source

# Every run tries the same examples; HYPOTHESIS_PROFILE=explore draws new ones, and prints how to repeat a failure.
settings.register_profile("repeat", derandomize=True, deadline=None, database=None, max_examples=100)
settings.register_profile("explore", deadline=None, database=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


class Cpu:
    """How a test makes arrays for a backend and reads them back; strides are kept on every device."""

    name = "cpu"

    @staticmethod
    def array(a):
        return a

    @staticmethod
    def numpy(a):
        return a


class Emulated:
    """The CUDA backend with the emulator for a GPU.

    GPUCONV_EMULATED names the emulated device (emulated, emulated-check, emulated-ptx, ...), GPUCONV_EMULATED_ORDER the
    order of its threads.
    """

    name = "cuda-emulated"
    device = EmulatedDevice(
        os.environ.get("GPUCONV_EMULATED", "emulated"), order=os.environ.get("GPUCONV_EMULATED_ORDER", "forward")
    )

    @classmethod
    def array(cls, a):
        return None if a is None else cls.device.same_layout(a)

    @classmethod
    def numpy(cls, a):
        return None if a is None else cls.device.asnumpy(a)


cuda_device.register(EmulatedArray, lambda array: Emulated.device)
backend.register_array(EmulatedArray.__module__.partition(".")[0], EmulatedArray.__qualname__, "CuPy")


class Cuda:
    """The CUDA backend on a GPU."""

    name = "cuda"

    @staticmethod
    def array(a):
        import cupy

        if a is None or not a.size:
            return None if a is None else cupy.asarray(a)
        low, high = np.lib.array_utils.byte_bounds(a)
        memory = cupy.empty(high - low, np.uint8)
        start = memory.data + (a.__array_interface__["data"][0] - low)
        array = cupy.ndarray(a.shape, a.dtype, start, a.strides)
        array[...] = cupy.asarray(np.ascontiguousarray(a))
        return array

    @staticmethod
    def numpy(a):
        import cupy

        return None if a is None else cupy.asnumpy(a, order="K")


def _place(name):
    if name == "cpu":
        return Cpu
    if name == "cuda-emulated":
        return Emulated
    usable, reason = cuda_device.gpu_status()
    if not usable:
        if os.environ.get("GPUCONV_REQUIRE_GPU") == "1":
            pytest.fail(f"GPUCONV_REQUIRE_GPU=1, but: {reason}")
        pytest.skip(reason)
    return Cuda


@pytest.fixture(params=DEVICES, scope="session")
def device(request):
    """Every place that computes."""
    return _place(request.param)


@pytest.fixture(params=GPUS, scope="session")
def gpu(request):
    """Every place that runs kernels."""
    return _place(request.param)


# So many emulated cases are worth building the kernels for, all of a file at once, while other tests run.
_MANY_CASES = 200
_builders = ThreadPoolExecutor(os.cpu_count(), "build")


def _is_emulated(item):
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return "cuda-emulated" in (params.get("device"), params.get("gpu"))


def _missing_compiler():
    """Return what the emulator lacks, in a sentence, or None."""
    try:
        build.compiler()
        nvrtc.nvrtc()
        sass.nvdisasm()
    except EmulatorUnavailableError as error:
        return str(error)
    return None


@pytest.hookimpl(tryfirst=True)  # before -m looks at markers
def pytest_collection_modifyitems(items):
    needing = [item for item in items if _is_emulated(item) or item.get_closest_marker("compilers")]
    missing = _missing_compiler() if needing else None
    if missing and os.environ.get("GPUCONV_ALLOW_MISSING_COMPILER") != "1":
        msg = f"{missing}; GPUCONV_ALLOW_MISSING_COMPILER=1 skips the {len(needing)} tests that need it"
        raise pytest.UsageError(msg)
    for item in needing:
        if missing:
            item.add_marker(pytest.mark.skip(reason=missing))
        if _is_emulated(item) and item.get_closest_marker("large"):
            item.add_marker("ladder")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    yield
    usable, reason = cuda_device.gpu_status()
    skipped = [] if usable else terminalreporter.stats.get("skipped", [])
    count = sum(isinstance(report.longrepr, tuple) and reason in report.longrepr[2] for report in skipped)
    if count:
        terminalreporter.write_line(f"{count} cases were not run on a GPU: {reason}")


def pytest_collection_finish(session):
    if session.config.option.collectonly or sum(map(_is_emulated, session.items)) < _MANY_CASES:
        return
    from kernel_calls import launched

    expressions = {}
    for one in launched().values():
        expressions.setdefault(one.kernel.file, []).append(one.expression)
    for file, of_file in sorted(expressions.items(), key=lambda item: len(item[1])):  # what many tests share is small
        Emulated.device.build_ahead(_builders, source(file), file, of_file, OPTIONS)


def pytest_sessionfinish():
    _builders.shutdown(cancel_futures=True)


@pytest.fixture(params=DTYPES, scope="session")
def dtype(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def poisoned_memory(monkeypatch):
    """Fill memory that NumPy hands out uninitialised with NaN, the largest integer or True: who reads it is seen."""

    def poisoned(allocate):
        def allocated(*args, **kwargs):
            array = allocate(*args, **kwargs)
            kind = array.dtype.kind
            array.fill(np.nan if kind == "f" else np.iinfo(array.dtype).max if kind in "iu" else True)
            return array

        return allocated

    for name in ("empty", "empty_like"):
        monkeypatch.setattr(np, name, poisoned(getattr(np, name)))


# Memory layouts: each takes an array and returns a view with the same values, stored in another way.


def _c_order(a):
    return np.ascontiguousarray(a)


def _channels_last(a):
    if a.ndim != 4:
        return np.asfortranarray(a)
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def _fortran(a):
    return np.asfortranarray(a)


def _last_axes_swapped(a):
    return np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2) if a.ndim > 1 else a


def _every_second(a):
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _every_second_image(a):
    wide = np.full((2 * a.shape[0], *a.shape[1:]), np.nan, a.dtype)
    wide[::2] = a
    return wide[::2]


def _backwards(a):
    everywhere = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[everywhere])[everywhere]


def _offset(a):
    room = np.full((*a.shape[:-1], a.shape[-1] + 3), np.nan, a.dtype)
    room[..., 2:-1] = a
    return room[..., 2:-1]


def _unaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)
    view = memory[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def _read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def _odd_strides_of_size_one(a):
    steps = [12345 * a.itemsize if size == 1 else step for size, step in zip(a.shape, a.strides, strict=True)]
    return np.lib.stride_tricks.as_strided(a, strides=steps)


LAYOUTS = {
    "c_order": _c_order,
    "channels_last": _channels_last,
    "fortran": _fortran,
    "last_axes_swapped": _last_axes_swapped,
    "every_second_column": _every_second,
    "every_second_image": _every_second_image,
    "negative_strides": _backwards,
    "offset_start": _offset,
    "unaligned": _unaligned,
    "read_only": _read_only,
    "odd_strides_of_size_one": _odd_strides_of_size_one,
}


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS.keys())
def layout(request):
    return request.param
