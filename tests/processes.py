"""How tests start several processes that train together, by the mpiexec that belongs to this Python."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpuconv.runs import sealed
from gpuconv.train import PRESETS, Config

_HERE = Path(__file__).parent
PATIENCE = 300  # seconds, after which a test gives up

# Each preset so narrow that its steps take moments, and pictures that no number of processes divides.
TINY: dict[str, dict[str, Any]] = {
    "convnet": {"widths": (4, 8), "lr_start": 1.0},
    "three-layer": {"filters": 3, "hidden": 9},
    "vgg": {"widths": (3, 4), "lr_start": 1.0},
    "resnet9": {"widths": (3, 4, 4, 5), "lr_start": 1.0},
    "resnet18": {"widths": (2, 3, 4, 4), "lr_start": 1.0},
    "speedrun": {"widths": (3, 4, 4), "lr": 0.05, "bias_lr": 4.0},
}
SMALL = {"data": "shapes", "batch_size": 20, "train_images": 100, "validation": 100, "test_images": 60, "device": "cpu"}


def tiny(preset: str, **settings: Any) -> Config:
    """Return a narrow net's recipe: four epochs of five steps of 20 pictures."""
    return dataclasses.replace(PRESETS[preset], **{**SMALL, "epochs": 4, **TINY[preset], **settings})


@dataclasses.dataclass(frozen=True)
class Ended:
    """How processes ended: exit code, what they said, and after how many seconds."""

    code: int
    out: str
    err: str
    seconds: float


def start(
    count: int, script: str, *arguments: str, settings: dict[str, str] | None = None, emulated: bool = False
) -> Ended:
    """Run a script of the folder of tests in so many processes of one thread, and wait for their end.

    settings: of the environment, beside this process's.   emulated: with CuPy on the CPU.
    """
    without_gpu = ["-m", "tests.cupy_emulated"] if emulated else []
    python = [sys.executable, *without_gpu, *(["-m", "mpi4py"] if count > 1 else []), str(_HERE / script), *arguments]
    return run(count, python, settings=settings)


def run(count: int, command: Sequence[str], *, settings: dict[str, str] | None = None) -> Ended:
    """Run a command in so many processes of one thread."""
    path = os.pathsep.join(filter(None, [str(_HERE.parent), str(_HERE), os.environ.get("PYTHONPATH", "")]))
    places = {"PYTHONPATH": path, "GPUCONV_THREADS": "1", "GPUCONV_WAIT": "100"}
    environment = {**os.environ, **places, **(settings or {})}
    together = [mpiexec(), "-n", str(count), *command] if count > 1 else [*command]
    began = time.monotonic()
    ended = subprocess.run(together, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return Ended(ended.returncode, ended.stdout, ended.stderr, time.monotonic() - began)


def mpiexec() -> str:
    """Return the mpiexec of the MPI that is installed beside this Python, else the one on the path."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    assert found, "no mpiexec: install the extra mpi"
    return found


def trainings(
    count: int, work: Path, runs: dict[str, Config], emulated: bool = False, **settings: str
) -> dict[str, Path]:
    """Train by settings, in so many processes, one after the other; return the folders of the runs.

    emulated: with CuPy on the CPU.   settings: of the environment.
    """
    work.mkdir(parents=True, exist_ok=True)
    folders = {name: work / name for name in runs}
    cases = [[vars(config), str(folders[name])] for name, config in runs.items()]
    (work / "runs.json").write_text(json.dumps(cases))
    ended = start(count, "process_trainings.py", str(work / "runs.json"), settings=settings, emulated=emulated)
    assert ended.code == 0, ended.err
    return folders


def distance(folder: Path, other: Path) -> float:
    """Return how far the last weights, statistics and vectors of two runs are apart, relative to the largest of each."""
    (one, _), (two, _) = (sealed.read(each / "last.safetensors") for each in (folder, other))
    assert one.keys() == two.keys()
    apart = [
        np.abs(one[name].astype(np.float64) - two[name]).max() / np.abs(one[name]).max()
        for name in one
        if one[name].any()
    ]
    return float(max(apart))
