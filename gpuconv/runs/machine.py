"""What a number was measured on: machine, versions and variables, without names of people, hosts or folders."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import threadpoolctl

from .. import bounded, durable
from ..backend import cuda_in_words, gpu_name, gpu_versions, loops_in_words, threads
from ..errors import ConfigError
from ..version import gpuconv_version
from . import records

ENVIRONMENT = "env.json"

_PACKAGES = ("rich", "threadpoolctl", "matplotlib", "tensorboardX", "numba", "llvmlite", "cupy-cuda12x", "cupy-cuda13x")
_VARIABLES = re.compile(
    r"GPUCONV_\w+|NUMBA_\w+|CUPY_\w+|CUDA_\w+|NVIDIA_TF32_OVERRIDE|(OMP|OPENBLAS|MKL)_\w+|PYTHONHASHSEED"
)
_ABSOLUTE_PATH = re.compile(r"(?<![\w.])(~|[A-Za-z]:)?[/\\][^\s,;:'\"()]+")
_THREAD_SETTINGS = ("GPUCONV_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Machine(TypedDict, total=False):
    """What `machine` returns."""

    processor: str
    cores: int | None
    usable_cores: int | None
    threads: int
    loops: str
    thread_settings: dict[str, str]
    system: str
    gpu: str


class Environment(TypedDict, total=False):
    """What env.json holds."""

    machine: Machine
    versions: dict[str, str]
    packages: dict[str, str]
    cuda: str
    variables: dict[str, str]


def machine() -> dict[str, Any]:
    """Return what the machine is: processor, cores, threads, loops, system, and the GPU if that is where nets are created."""
    gpu = gpu_name()
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads(),
        "loops": loops_in_words(),
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
    libraries = []
    for library in threadpoolctl.threadpool_info():
        if library["user_api"] == "blas":
            kernels = library.get("architecture")
            libraries.append(f"{library['internal_api']} {library['version']}" + (f" ({kernels})" if kernels else ""))
    if libraries:
        return ", ".join(sorted(set(libraries)))
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


def write_environment(folder: Path) -> None:
    """Write env.json."""
    text = json.dumps(environment(), indent=2, ensure_ascii=False)
    durable.write(folder / ENVIRONMENT, text.encode() + b"\n")


def read_environment(folder: Path) -> dict[str, Any]:
    """Return what env.json in a run folder holds; {} if it is not there or damaged."""
    values = bounded.json_object(folder / ENVIRONMENT, bounded.LOG) or {}
    try:
        records.check("", values, Environment)
    except ConfigError:
        return {}
    return values


def began_with(folder: Path) -> str | None:
    """Return how a run on the CPU computed at its start, in the words of `loops_in_words`; None if that is not known."""
    begun = read_environment(folder).get("machine")
    if begun is None or "gpu" in begun:
        return None
    words: str = begun.get("loops", "NumPy alone")  # all that there was in earlier versions
    return words


def environment() -> dict[str, Any]:
    """Return machine, versions, and the variables that change what a run does; no host, user or path is named."""
    return {
        "machine": machine(),
        "versions": versions(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
        "cuda": without_paths(cuda_in_words()),
        "variables": {
            name: "(a path)" if re.search(r"[/\\]", value) else value
            for name, value in sorted(os.environ.items())
            if _VARIABLES.fullmatch(name)
        },
    }


def without_paths(text: str) -> str:
    """Return text with every absolute path in it replaced: paths hold the names of people and machines."""
    return _ABSOLUTE_PATH.sub("(a path)", text)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
