"""Fills CuPy's cache of compiled kernels before anything is run, in as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from gpuconv.cuda import device as cuda_device
from gpuconv.cuda.kernel import OPTIONS
from gpuconv.cuda.source import source
from gpuconv.data.cifar import NAME_FILE

from . import training
from .calls import ALL_DTYPES, DRY
from .groups import environment
from .kernel_calls import CALLS, launched
from .work import Work, line

_WARMED = ("convnet", "resnet18", "speedrun")  # nets whose steps need kernels of CuPy's own
# Files whose kernels take longest, so that no process is left with one of them when the others are done.
_SLOW = ("conv_tensor", "conv_tiled", "conv_volume_tiled", "conv_weight_tensor")
_SHOWN = 8


def compile_all(work: Work) -> bool:
    """Compile what the calls launch, and what CuPy itself launches in training; unpack the data beside it.

    A second run, from the cache, is quick.
    """
    began = time.monotonic()
    unpacking = _unpack(work)
    processes = max(2, (os.cpu_count() or 2) - 2)
    seconds: dict[str, float] = {}
    failed: list[str] = []
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    todo = _instances(dry=work.dry)
    futures = {pool.submit(compile_one, file, expression): expression for file, expression in todo}
    if work.dry:
        work.leave_out(f"all kernels but the {len(todo)} of a dry run's calls")
    else:  # last: a step compiles its kernels one after the other, those that are not there yet
        futures |= {pool.submit(training.one_step, name, precision): f"a step of {name}, {precision}"
                    for precision in training.PRECISIONS for name in _WARMED}  # fmt: skip
    try:
        for future in as_completed(futures, timeout=max(work.left(), 0.1)):
            name = futures[future]
            try:
                seconds[name] = round(future.result(), 2)
            except Exception as error:  # noqa: BLE001 - what does not compile must not hide the rest
                failed.append(f"{name}: {type(error).__name__}: {line(error)}")
            if len(seconds) % 20 == 0 or failed:
                work.keep(done=len(seconds), of=len(futures), failed=failed)
    except TimeoutError:
        work.keep(why=f"not compiled when time was spent: {len(futures) - len(seconds) - len(failed)}")
    work.keep(
        **{
            "done": len(seconds),
            "of": len(futures),
            "failed": failed,
            "processes": processes,
            "compile s": round(time.monotonic() - began, 1),
            "seconds of compiling": round(sum(seconds.values()), 1),
            "slowest": dict(sorted(seconds.items(), key=lambda found: -found[1])[:_SHOWN]),
        }
    )
    pool.shutdown(wait=False, cancel_futures=True)
    data = _unpacked(work, unpacking)
    return data and not failed and len(seconds) == len(futures)


def _instances(*, dry: bool) -> list[tuple[str, str]]:
    """Return file and C++ name of each kernel that this GPU can have, those that take longest first."""
    found = launched([CALLS[name] for name in DRY], dtypes=("float32",)) if dry else launched(dtypes=ALL_DTYPES)
    arch = cuda_device.current().arch
    todo = [(one.kernel.file, one.expression) for one in found.values() if one.kernel.least_arch <= arch]
    return sorted(todo, key=lambda one: (not one[0].startswith(_SLOW), one))


def compile_one(file: str, expression: str, options: tuple[str, ...] = OPTIONS) -> float:
    """Compile a kernel as its launcher would, into CuPy's cache or from it; return the seconds that took."""
    start = time.monotonic()
    cuda_device.current().compile(source(file), file, (expression,), options)
    return time.monotonic() - start


def _unpack(work: Work) -> subprocess.Popen[str] | None:
    """Start to unpack a copy of CIFAR-10 that lies packed in the folder of the data."""
    if work.data is None or not (work.data / "unpack.py").is_file():
        return None
    command = [sys.executable, str(work.data / "unpack.py"), str(training.unpacked(work.scratch))]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=work.data
    )


def _unpacked(work: Work, process: Any) -> bool:
    """Wait for the data; return whether they are there."""
    if process is None:
        return True
    try:
        _, errors = process.communicate(timeout=max(work.left(), 0.1))
    except subprocess.TimeoutExpired:
        process.kill()
        errors = "not unpacked in time"
    good = process.returncode == 0
    for folder in training.unpacked(work.scratch).iterdir() if good and work.data_name else ():
        (folder / NAME_FILE).write_text(f"{work.data_name}\n", encoding="utf-8")
    work.keep(data="unpacked" if good else f"not unpacked: {' '.join(errors.split())[-300:]}")
    return good
