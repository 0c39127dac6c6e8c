"""Names the machine: GPU, driver, libraries; and its two ceilings, copying and multiplying."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess

import numpy as np

from gpuconv.cuda.device import gpu_status
from gpuconv.version import gpuconv_version

from .work import Work

_OTHERS = ("torch", "pytest", "pytest-xdist", "pytest-timeout", "hypothesis", "ml_dtypes", "safetensors", "pillow")
_ASKED = "driver_version,power.limit,clocks.max.sm,clocks.max.mem,clocks.sm,temperature.gpu,mig.mode.current"


def machine(work: Work) -> bool:
    """Keep what the results depend on."""
    import cupy
    from cupy.cuda import nvrtc

    runtime = cupy.cuda.runtime
    found = runtime.getDeviceProperties(0)
    capability = f"{found['major']}.{found['minor']}"
    free, total = runtime.memGetInfo()
    work.keep(
        **{
            "gpu": found["name"].decode(),
            "compute capability": capability,
            "multiprocessors": found["multiProcessorCount"],
            "L2 MB": round(found["l2CacheSize"] / 1e6, 1),
            "memory GB": round(total / 1e9, 1),
            "free GB": round(free / 1e9, 1),
            "cores": os.cpu_count(),
            "status": gpu_status()[1],
            "versions": {
                "gpuconv": gpuconv_version(),
                "python": platform.python_version(),
                "numpy": np.__version__,
                "cupy": cupy.__version__,
                "driver": runtime.driverGetVersion(),
                "runtime": runtime.runtimeGetVersion(),
                "nvrtc": ".".join(map(str, nvrtc.getVersion())),
                "cublas": _cublas(),
                **{name: _version(name) for name in _OTHERS},
            },
            "nvidia-smi": _nvidia_smi(),
            "shown": [f"{found['name'].decode()}, {capability}, CuPy {cupy.__version__}, NVRTC {nvrtc.getVersion()}"],
        }
    )
    return True


def _cublas() -> int | str:
    from cupy_backends.cuda.libs import cublas

    handle = cublas.create()
    try:
        return int(cublas.getVersion(handle))
    finally:
        cublas.destroy(handle)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _nvidia_smi() -> dict[str, str] | str:
    """Return clocks and limits as they are; nothing is set."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "not there"
    command = [program, f"--query-gpu={_ASKED}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return f"{type(error).__name__}: {error}"
    return dict(zip(_ASKED.split(","), (word.strip() for word in answer.split(",")), strict=False))
