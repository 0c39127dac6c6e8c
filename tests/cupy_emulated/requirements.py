"""What must be there before a program starts: checked at once, so that what is missing is one sentence."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import platform
import re
import sys
from pathlib import Path
from typing import NamedTuple

from emulate import EmulatorUnavailableError, build, nvrtc

from .errors import CupyEmulatedError
from .patch import functions
from .settings import settings


class Wheel(NamedTuple):
    """The parts of the installed CuPy that matter here, and the CUDA that it was built for."""

    runtime: Path
    cublas: Path
    nccl: Path | None
    cuda: int  # 12, 13


def check() -> None:
    """Raise CupyEmulatedError unless CuPy can be emulated here."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        msg = f"CuPy can be emulated on Linux on x86-64 only, and this is {sys.platform} on {platform.machine()}"
        raise CupyEmulatedError(msg)
    settings()
    try:
        build.compiler()
        nvrtc.nvrtc()
    except EmulatorUnavailableError as error:
        raise CupyEmulatedError(str(error)) from error
    headers(wheel().cuda)


@functools.cache
def wheel() -> Wheel:
    """Find the installed CuPy, without importing it."""
    found = importlib.machinery.PathFinder.find_spec("cupy_backends")
    folder = Path(next(iter(found.submodule_search_locations))) if found and found.submodule_search_locations else None
    runtime = _one(folder, "cuda/api/runtime.*.so")
    cublas = _one(folder, "cuda/libs/cublas.*.so")
    if runtime is None or cublas is None:
        msg = "CuPy is not installed: pip install cupy-cuda13x (or cupy-cuda12x)"
        raise CupyEmulatedError(msg)
    if not any(True for _ in functions(runtime, b"cudaMalloc")):
        msg = (
            f"CuPy's {runtime.name} has no symbol table, which the emulation needs: install CuPy's wheel as it is, "
            "not stripped"
        )
        raise CupyEmulatedError(msg)
    needed = re.search(r"\(NEEDED\).*\[libcublas\.so\.(\d+)\]", build.run(["readelf", "-dW", cublas]))
    if needed is None:
        msg = f"CuPy's {cublas.name} does not name the cuBLAS it needs: only wheels for NVIDIA GPUs can be emulated"
        raise CupyEmulatedError(msg)
    return Wheel(runtime, cublas, _one(folder, "cuda/libs/nccl.*.so"), int(needed[1]))


def _one(folder: Path | None, pattern: str) -> Path | None:
    return next(iter(sorted(folder.glob(pattern))), None) if folder else None


def headers(cuda: int) -> tuple[Path, ...]:
    """Return the folders of NVIDIA's headers of that major version."""
    for root in nvrtc.cuda_roots():
        place = root / "include"
        header = place / "cuda_runtime_api.h"
        if not header.is_file():
            continue
        version = re.search(r"#define\s+CUDART_VERSION\s+(\d+)", header.read_text(encoding="utf-8", errors="replace"))
        if version is None or int(version[1]) // 1000 != cuda:
            continue
        crt = [r / "include" for r in (root, *nvrtc.cuda_roots()) if (r / "include/crt/host_defines.h").is_file()]
        if crt and (place / "cuda.h").is_file():
            return (place,) if crt[0] == place else (place, crt[0])
    packages = (
        "nvidia-cuda-runtime nvidia-cuda-crt"
        if cuda >= 13
        else f"nvidia-cuda-runtime-cu{cuda} nvidia-cuda-nvcc-cu{cuda}"
    )
    msg = f"CuPy was built for CUDA {cuda}, whose headers are not installed: pip install {packages}"
    raise CupyEmulatedError(msg)
