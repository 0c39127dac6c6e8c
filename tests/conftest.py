"""What all tests share: the places that compute, dtypes, memory layouts, random data.

The CUDA backend runs twice: in the emulator, and on a GPU.  A missing GPU skips those cases, counts them at the end of
the run, and fails them when GPUCONV_REQUIRE_GPU=1.  The emulator's compilers, g++ and NVRTC, must be there, unless
GPUCONV_ALLOW_MISSING_COMPILER=1 skips what needs them.
"""

import contextlib
import importlib.metadata
import os
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from emulate import EmulatorUnavailableError, build, nvrtc, sass
from hypothesis import settings
from pairs import DTYPES
from places import CPU, EMULATED, GPU, LAYOUTS, Emulated, device_cuda, place

from gpuconv.cuda import device as cuda_device
from gpuconv.cuda.kernel import OPTIONS
from gpuconv.cuda.source import source

# Nets and data are created on the CPU, on every machine, unless a test chooses: by the fixture `cuda`, say.
os.environ.setdefault("GPUCONV_DEVICE", "cpu")

# Every run tries the same examples; HYPOTHESIS_PROFILE=explore draws new ones, and prints how to repeat a failure.
settings.register_profile("repeat", derandomize=True, deadline=None, database=None, max_examples=100)
settings.register_profile("explore", deadline=None, database=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


# The newest versions that these tests are known to pass with.  A newer one may deprecate what is used here: its warnings
# are shown, where those of the versions below are errors (filterwarnings of pyproject.toml).
_KNOWN = {"numpy": (2, 4), "cupy-cuda12x": (14, 2), "cupy-cuda13x": (14, 2)}


def _newer():
    """Return the names of the known packages that are installed in a newer version."""
    found = []
    for name, known in _KNOWN.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            major, minor = importlib.metadata.version(name).split(".")[:2]
            if (int(major), int(re.match(r"\d+", minor)[0])) > known:
                found.append(name)
    return found


def pytest_configure(config):
    # A shell ignores it for what it begins with & in a script, and so would all processes that tests begin.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if _newer():
        for kind in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning"):
            config.addinivalue_line("filterwarnings", f"default::{kind}")


@pytest.fixture(params=[CPU, EMULATED, GPU], scope="session")
def device(request):
    """Every place that computes."""
    return place(request.param)


@pytest.fixture(params=[EMULATED, GPU], scope="session")
def gpu(request):
    """Every place that runs kernels."""
    return place(request.param)


@pytest.fixture(params=[EMULATED, GPU])
def cuda(request):
    """Let gpuconv's device "cuda" be each place that runs kernels."""
    with device_cuda(request.param) as found:
        yield found


@pytest.fixture
def emulated_gpu():
    """Let gpuconv's device "cuda" be the emulator."""
    with device_cuda("cuda-emulated") as found:
        yield found


# So many emulated cases are worth building the kernels for, all of a file at once, while other tests run.
_MANY_CASES = 200
_builders = ThreadPoolExecutor(os.cpu_count(), "build")


def _needs_compilers(item):
    return any(item.get_closest_marker(name) is not None for name in ("emulated", "compilers"))


def _missing_compiler():
    """Return what the emulator lacks, in a sentence, or None."""
    try:
        build.compiler()
        nvrtc.nvrtc()
        sass.nvdisasm()
    except EmulatorUnavailableError as error:
        return str(error)
    return None


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("emulated") and item.get_closest_marker("large"):
            item.add_marker("ladder")
    yield  # pytest drops what -m and -k do not choose: a machine with a GPU needs no g++ for what runs on that
    needing = [item for item in items if _needs_compilers(item)]
    missing = _missing_compiler() if needing else None
    if missing and os.environ.get("GPUCONV_ALLOW_MISSING_COMPILER") != "1":
        msg = f"{missing}; GPUCONV_ALLOW_MISSING_COMPILER=1 skips the {len(needing)} tests that need it"
        raise pytest.UsageError(msg)
    for item in needing if missing else ():
        item.add_marker(pytest.mark.skip(reason=missing))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    yield
    usable, reason = cuda_device.gpu_status()
    skipped = [] if usable else terminalreporter.stats.get("skipped", [])
    count = sum(isinstance(report.longrepr, tuple) and reason in report.longrepr[2] for report in skipped)
    if count:
        terminalreporter.write_line(f"{count} cases were not run on a GPU: {reason}")


# What may be imported of gpuconv/cpu/loops to collect tests: it compiles nothing.
_COMPILES_NOTHING = {"jit", "cache", "vectors", "atomic"}


def pytest_collection_finish(session):
    loaded = {name.rpartition(".")[2] for name in sys.modules if name.startswith("gpuconv.cpu.loops.")}
    if loaded - _COMPILES_NOTHING:
        msg = f"tests compile loops of {', '.join(sorted(loaded - _COMPILES_NOTHING))} while they are collected"
        raise pytest.UsageError(msg)
    emulated = sum(item.get_closest_marker("emulated") is not None for item in session.items)
    one_of_others = os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0"
    if session.config.option.collectonly or emulated < _MANY_CASES or one_of_others:
        return
    from tests.ladder.kernel_calls import launched

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
def hang_up_heard():
    """Let SIGHUP do what it does in a terminal, also where the tests were begun by nohup, for processes of a test, too."""
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(name="gpuconv")
def gpuconv_command(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder on a small data set; return (exit code, stdout, stderr)."""
    from train_helpers import shapes

    from gpuconv import cli, data

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "load", lambda name, **_: shapes())

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return run


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


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS.keys())
def layout(request):
    return request.param
