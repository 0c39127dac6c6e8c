"""What the CUDA backend needs of a machine: what is there, in which version, and in a sentence what is missing.

Nothing here starts work on a GPU: libraries are loaded, files looked for.  `versions` alone asks a GPU for cuBLAS's.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# CuPy's packages for NVIDIA's GPUs: each brings the same files, so two of them spoil each other.
_PACKAGES = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")
_OLDEST_DRIVER = {12: "525", 13: "580"}  # by CUDA's major version
_DRIVER_VERSION = Path("/sys/module/nvidia/version")
_NO_GPU = 100  # cudaErrorNoDevice
_HEADER = "cuda_fp16.h"  # CuPy's own float16 kernels, such as a cast, include it


from .. import extras


@dataclass(frozen=True, slots=True)
class Missing:
    """What keeps CUDA from being used, and what to do; `broken` unless this is just a machine without a GPU or CuPy."""

    text: str
    broken: bool


@functools.cache
def gpu_status() -> tuple[bool, str]:
    """Return (True, what was found) or (False, what is missing and what to install)."""
    gap = missing()
    if gap is not None:
        return False, gap.text
    cuda = _cupy().cuda
    count = cuda.runtime.getDeviceCount()
    return True, f"{count} GPU{'s' if count > 1 else ''}, NVRTC {_dotted(cuda.nvrtc.getVersion())}"


def missing() -> Missing | None:
    """Return the first thing that is missing, None where all is there: CuPy, a driver with a GPU, then libraries."""
    looks = (_missing_cupy, _missing_gpu, _missing_compiler, _missing_headers, _missing_cublas)
    return next((gap for look in looks if (gap := look()) is not None), None)


def versions() -> dict[str, str]:
    """Return the versions that results on a GPU depend on; what cannot be asked is left out."""
    if _missing_cupy() is not None:
        return {}
    package = next(iter(_installed()), None)
    asked: dict[str, Callable[[], str]] = {
        "cupy": lambda: _cupy().__version__ + (f" ({package})" if package else ""),
        "nvrtc": lambda: _dotted(_cupy().cuda.nvrtc.getVersion()),
        "cuda_runtime": lambda: _of_cuda(_cupy().cuda.runtime.runtimeGetVersion()),
        "cuda_driver": _driver,
        "cublas": _cublas,
    }
    return {name: said for name, ask in asked.items() if (said := _said(ask))}


def gpus() -> list[str]:
    """Return each GPU in words: name, compute capability, memory."""
    runtime = _cupy().cuda.runtime
    lines = []
    for index in range(runtime.getDeviceCount()):
        facts = runtime.getDeviceProperties(index)
        memory = facts["totalGlobalMem"] / 2**30
        lines.append(
            f"{facts['name'].decode()}, compute capability {facts['major']}.{facts['minor']}, {memory:.1f} GiB"
        )
    return lines


# One thing each -----------------------------------------------------------------------------------------------------


def _missing_cupy() -> Missing | None:
    packages = _installed()
    if len(packages) > 1:
        text = (
            f"more than one CuPy is installed, {' and '.join(packages)}, and they overwrite each other's files: "
            f"pip uninstall {' '.join(packages)}, then {_extra(packages[-1])}"
        )
        return Missing(text, broken=True)
    try:
        cupy = _cupy()
    except Exception as error:  # noqa: BLE001 - a package in pieces raises anything
        if not packages and isinstance(error, ModuleNotFoundError):
            return Missing(f"CUDA needs CuPy, which is not installed: {_extra(None)}", broken=False)
        name = packages[0] if packages else "CuPy"
        text = f"{name} is installed but cannot be imported ({_line(_first(error))}): "
        return Missing(text + f"pip install --force-reinstall {_with_toolkit()}", broken=True)
    if not hasattr(cupy, "__version__") or not hasattr(cupy, "cuda"):
        text = "the folder cupy that Python finds is not CuPy, or only what is left of it: remove it, then "
        return Missing(text + _extra(packages[0] if packages else None), broken=True)
    return None


def _missing_gpu() -> Missing | None:
    cupy = _cupy()
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return _no_gpu(runtime, error)
    return None if count else _no_gpu(runtime, None)


def _no_gpu(runtime: Any, error: Exception | None) -> Missing:
    """Return why CUDA counts no GPU: the error for an old driver is the one for no driver at all."""
    needed, serves = runtime.runtimeGetVersion() // 1000, runtime.driverGetVersion()
    oldest = _OLDEST_DRIVER.get(needed)
    driver = f"version {oldest} or newer" if oldest else f"one for CUDA {needed}"
    if not serves:
        return Missing(f"CUDA needs NVIDIA's driver, which is not installed: install {driver}", broken=False)
    if serves // 1000 < needed:
        text = f"NVIDIA's driver is too old: it serves CUDA {_of_cuda(serves)}, this CuPy needs CUDA {needed}: "
        other = serves // 1000
        instead = f", or in place of this CuPy {extras.install(f'cuda{other}x')}" if other in _OLDEST_DRIVER else ""
        return Missing(f"{text}install {driver}{instead}", broken=True)
    if error is None or getattr(error, "status", None) == _NO_GPU:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        return Missing(f"CUDA finds no usable GPU: the driver reports none{hidden}", broken=False)
    return Missing(f"CUDA finds no usable GPU: {_line(error)}", broken=True)


def _missing_compiler() -> Missing | None:
    try:
        _cupy().cuda.nvrtc.getVersion()
    except (RuntimeError, ImportError, OSError) as error:
        text = f"CUDA's compiler NVRTC cannot be loaded ({_line(error)}): install {_with_toolkit()}"
        return Missing(text, broken=True)
    return None


def _missing_headers() -> Missing | None:
    """Look where CuPy's compiler would: it is told folders (wheels, conda, CUDA_PATH) by options -I."""
    cupy = _cupy()
    try:
        core, compiler = cupy._core.core, cupy.cuda.compiler
        ask = [core.assemble_cupy_compiler_options]
    except AttributeError:  # another CuPy: where it looks is not known
        return None
    if hasattr(compiler, "_get_extra_include_dir_opts"):  # until CuPy 14.0
        ask.append(lambda _: compiler._get_extra_include_dir_opts())
    try:
        options = [option for each in ask for option in each(())]
    except (RuntimeError, ImportError, OSError):
        options = []
    folders = [Path(option[2:]) for option in options if option.startswith("-I")]
    if any(folder.joinpath(_HEADER).is_file() for folder in folders) or _compiles(f"#include <{_HEADER}>", options):
        return None
    text = f"CUDA's headers ({_HEADER}), which CuPy compiles its own kernels with, are not found: "
    return Missing(f"{text}install {_with_toolkit()}, or set CUDA_PATH to a CUDA toolkit", broken=True)


def _compiles(text: str, options: list[str]) -> bool:
    """Return whether NVRTC compiles a text, which takes no GPU: the last word on what it finds."""
    nvrtc = _cupy().cuda.nvrtc
    try:
        program = nvrtc.createProgram(text, "look.cu", (), ())
        try:
            nvrtc.compileProgram(program, tuple(options))
        finally:
            nvrtc.destroyProgram(program)
    except (RuntimeError, ImportError, OSError, AttributeError):
        return False
    return True


def _missing_cublas() -> Missing | None:
    try:
        _cupy().cuda.cublas  # noqa: B018 - CuPy loads the library when it is asked for
    except (RuntimeError, ImportError, OSError) as error:
        text = f"CUDA's matrix products, cuBLAS, cannot be loaded ({_line(error)}): install {_with_toolkit()}"
        return Missing(text, broken=True)
    return None


# Versions -----------------------------------------------------------------------------------------------------------


def _driver() -> str:
    """Return the CUDA that the driver serves, with the driver's own number where Linux tells it."""
    serves = _cupy().cuda.runtime.driverGetVersion()
    if not serves:
        return ""
    try:
        own = _DRIVER_VERSION.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        own = ""
    return _of_cuda(serves) + (f" ({own})" if own else "")


def _cublas() -> str:
    cuda = _cupy().cuda
    number = cuda.cublas.getVersion(cuda.device.get_cublas_handle())
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _said(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except (RuntimeError, ImportError, OSError, MemoryError):
        return ""


def _of_cuda(number: int) -> str:
    """Return CUDA's 12040 as "12.4"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _dotted(parts: tuple[int, ...]) -> str:
    return ".".join(map(str, parts))


# Names --------------------------------------------------------------------------------------------------------------


def _installed() -> list[str]:
    """Return CuPy's packages that are installed here."""
    packages = []
    for name in _PACKAGES:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        packages.append(name)
    return packages


def _extra(package: str | None) -> str:
    """Return what installs the extra of gpuconv that brings a package."""
    served = package in ("cupy-cuda12x", "cupy-cuda13x")
    return extras.install(package.removeprefix("cupy-") if package and served else "cuda13x")


def _with_toolkit() -> str:
    """Return what brings CUDA's libraries and headers to the CuPy that is here, in pip's words."""
    package = next((name for name in _installed() if name != "cupy"), None)
    return f"{package or 'cupy-cuda13x'}[ctk]"


def _cupy() -> Any:
    return importlib.import_module("cupy")


def _first(error: BaseException) -> BaseException:
    """Return what an error was raised from in the first place: CuPy's own has a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
