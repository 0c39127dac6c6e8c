"""What gpuconv finds on this machine, for people who wonder and for bug reports."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich

from . import data, extras, tables
from .errors import GpuconvError
from .runs.machine import host_versions, machine

# Of each extra that people install by name: the package that shows whether it is there, and what it is for.
EXTRAS = {
    "fast": ("numba", "compiled loops on the CPU"),
    "cuda12x": ("cupy-cuda12x", "device cuda, by a driver of CUDA 12"),
    "cuda13x": ("cupy-cuda13x", "device cuda, by a driver of CUDA 13"),
    "mpi": ("mpi4py", "training in many processes"),
    "pictures": ("pillow", "folders of pictures, and predicting on files"),
    "onnx": ("onnx", "nets as ONNX files"),
    "torch": ("torch", "the check of nets exported for PyTorch, and comparisons with it"),
    "bfloat16": ("ml_dtypes", "that dtype on a GPU"),
    "plots": ("matplotlib", "curves and grids as pictures"),
    "tensorboard": ("tensorboardX", "events for TensorBoard"),
    "notebooks": ("nbclient", "running the notebooks"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `ok` is False for what stands in the way of training on this machine."""

    name: str
    value: str
    ok: bool = True


def examine() -> list[Finding]:
    """Look at everything that a training run depends on; nothing is downloaded or changed."""
    versions = [Finding(name, version) for name, version in host_versions().items()]
    return [*versions, *_machine(), _kernels(), *_cuda(), *_extras(), _mpiexec(), _data(), _terminal()]


def as_text(findings: list[Finding], columns: int | None = None) -> str:
    """Return the report as lines, of at most so many columns where there is such a limit."""
    width = max(len(finding.name) for finding in findings) + 2
    lines = [f"{f.name:<{width}}{f.value}{'' if f.ok else '   <- problem'}" for f in findings]
    if columns is not None:
        lines = [part for line in lines for part in tables.wrapped(line, columns, indent=" " * width)]
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> str:
    """Return the report as JSON: name -> {value, ok}."""
    return json.dumps({f.name: {"value": f.value, "ok": f.ok} for f in findings}, indent=2, ensure_ascii=False)


def _machine() -> list[Finding]:
    try:
        facts = machine()
    except GpuconvError as error:
        return [Finding("loops" if "GPUCONV_COMPILED" in str(error) else "threads", str(error), ok=False)]
    settings = ", ".join(f"{name}={value}" for name, value in facts["thread_settings"].items())
    return [
        Finding("processor", facts["processor"]),
        Finding("cores", f"{facts['usable_cores']} usable of {facts['cores']}"),
        Finding("threads", str(facts["threads"]) + (f" ({settings})" if settings else "")),
        Finding("loops", facts["loops"]),
        Finding("system", facts["system"]),
    ]


def _kernels() -> Finding:
    try:
        source: Any = importlib.import_module("gpuconv.cuda.source")
    except ModuleNotFoundError:
        return Finding("kernels", "not part of this version")
    try:
        return Finding("kernels", str(source.kernel_dir()))
    except (GpuconvError, OSError) as error:
        return Finding("kernels", str(error), ok=False)


def _cuda() -> list[Finding]:
    """Look at CUDA; what is missing is a problem where half of it is there, not on a machine without a GPU or CuPy."""
    installed: Any = importlib.import_module("gpuconv.cuda.installed")
    missing = installed.missing()
    if missing is None:
        findings = [Finding("cuda", f"device cuda can be used: {installed.gpu_status()[1]}")]
        findings += [Finding(f"GPU {index}", words) for index, words in enumerate(installed.gpus())]
    else:
        findings = [Finding("cuda", missing.text, ok=not missing.broken)]
    return findings + [Finding(name, version) for name, version in installed.versions().items()]


def _extras() -> list[Finding]:
    """Look for what some commands need beyond the rest: none of it is a problem to lack."""
    findings = []
    for extra, (package, purpose) in EXTRAS.items():
        try:
            value = f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            value = f"not installed, for {purpose}: {extras.install(extra)}"
        findings.append(Finding(f"extra {extra}", value))
    return [*findings, Finding("extras", f"{extras.OF_CHECKOUT}; {extras.OF_WHEEL}")]


def _mpiexec() -> Finding:
    """Look for what starts many processes: that of the extra mpi lies beside this Python."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    return Finding("mpiexec", found or "not found: training runs in one process")


def _data() -> Finding:
    try:
        source = data.find_cifar10()
    except GpuconvError as error:
        return Finding("CIFAR-10", str(error).splitlines()[0], ok=False)
    if source is None:
        return Finding("CIFAR-10", "not here: gpuconv data get fetches it; without it, drawn shapes are used")
    return Finding("CIFAR-10", str(source))


def _terminal() -> Finding:
    console = rich.get_console()
    if not console.is_terminal:
        return Finding("terminal", "none: progress is shown as plain lines")
    return Finding("terminal", f"{console.width} columns, colours: {console.color_system or 'none'}")
