"""What the machine can do, measured in the same run: a large matrix product, and copying memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from .clocks import Clock, HostClock, cupy_clock

_ROUNDS = 5
_CPU_SIZE, _GPU_SIZE = 2048, 8192  # of the matrices
_FIRST_WITH_TF32 = 80  # compute capability
_CPU_BYTES, _GPU_BYTES = 2**28, 2**30  # copied


def cpu_peaks(threads: int) -> dict[str, float]:
    """Return the GFLOP/s of a float32 product on all BLAS threads, and the GB/s of a copy, read and written."""
    clock, n = HostClock(), _CPU_SIZE
    a, b = np.ones((n, n), np.float32), np.ones((n, n), np.float32)
    out = np.empty_like(a)
    parts = [
        (np.ones(_CPU_BYTES // threads, np.uint8), np.ones(_CPU_BYTES // threads, np.uint8)) for _ in range(threads)
    ]
    with ThreadPoolExecutor(threads) as pool:
        moved = 2 * sum(part.nbytes for part, _ in parts)
        copy = _best(clock, lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))
    return {
        "GFLOP/s float32": 2 * n**3 / _best(clock, lambda: np.matmul(a, b, out=out)) / 1e6,
        "GB/s": moved / copy / 1e6,
    }


def cuda_peaks() -> dict[str, float]:
    """Return the same of the GPU, in each regime."""
    import cupy

    clock, n = cupy_clock(), _GPU_SIZE
    free, _ = cupy.cuda.runtime.memGetInfo()
    source = cupy.zeros(min(_GPU_BYTES, free // 4), cupy.uint8)
    target = cupy.empty_like(source)
    found = {"GB/s": 2 * source.nbytes / _best(clock, lambda: cupy.copyto(target, source)) / 1e6}
    for regime, dtype in (("float32", "float32"), ("tf32", "float32"), ("float16", "float16")):
        if regime == "tf32" and int(cupy.cuda.Device().compute_capability) < _FIRST_WITH_TF32:
            continue
        a = cupy.ones((n, n), dtype)
        out = cupy.empty_like(a)
        with _computing(dtype, "COMPUTE_TYPE_TF32" if regime == "tf32" else "COMPUTE_TYPE_DEFAULT"):
            found[f"GFLOP/s {regime}"] = 2 * n**3 / _best(clock, lambda a=a, out=out: cupy.matmul(a, a, out=out)) / 1e6
    return found


@contextmanager
def _computing(dtype: str, name: str) -> Iterator[None]:
    """Let CuPy's products of a dtype compute in a way that its own source names; then as before.

    CUPY_TF32 is no way to change it: CuPy reads that once, at the first product of a dtype.
    """
    from cupy import _core

    before = _core.get_compute_type(dtype)
    _core.set_compute_type(dtype, getattr(_core._routines_linalg, name))
    try:
        yield
    finally:
        _core.set_compute_type(dtype, before)


def _best(clock: Clock, call: Any) -> float:
    """Return the milliseconds of the fastest round: a peak is what is possible, not what is usual."""
    call()
    return min(clock.round(call, 2)["ms"] for _ in range(_ROUNDS))
