"""What a number was measured on: machine and versions, without names of people, hosts or folders."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from ..backend import gpu_name, gpu_versions
from ..cpu.parallel import threads
from ..version import gpuconv_version

_THREAD_SETTINGS = ("GPUCONV_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def machine() -> dict[str, Any]:
    """Return what the machine is: processor, cores, threads, system, and the GPU if that is where nets are created."""
    gpu = gpu_name()
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads(),
        "thread_settings": {name: os.environ[name] for name in _THREAD_SETTINGS if name in os.environ},
        "system": f"{platform.system()} {platform.machine()}",
        **({} if gpu is None else {"gpu": gpu}),
    }


def versions() -> dict[str, str]:
    """Return the versions that a result depends on: those of CUDA, too, if nets are created on a GPU."""
    return {**host_versions(), **gpu_versions()}


def host_versions() -> dict[str, str]:
    """Return the versions that a result depends on anywhere."""
    return {
        "gpuconv": gpuconv_version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": blas(),
        "safetensors": importlib.metadata.version("safetensors"),
    }


def blas() -> str:
    """Return the library behind NumPy's matrix products, as "openblas 0.3.30 (Haswell)"."""
    found = []
    for library in threadpoolctl.threadpool_info():
        if library["user_api"] == "blas":
            kernels = library.get("architecture")
            found.append(f"{library['internal_api']} {library['version']}" + (f" ({kernels})" if kernels else ""))
    if found:
        return ", ".join(sorted(set(found)))
    built: Any = np.show_config(mode="dicts")
    entry = (built or {}).get("Build Dependencies", {}).get("blas", {})
    return f"{entry.get('name', 'unknown')} {entry.get('version', '')}".strip()


def processor() -> str:
    """Return the processor's name as its maker writes it, else its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
