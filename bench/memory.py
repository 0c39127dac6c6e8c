"""Peak extra memory: what a call has allocated at its highest, beyond its inputs and results.

Measured in a fresh process, where no scratch memory is left from earlier calls.  What forward keeps for backward
counts; so do the weights of a training step.
"""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .cases import LOSSES
from .inputs import Inputs


@dataclass(frozen=True)
class Meter:
    """Counts the bytes of one allocator: now, and at the highest since the last reset."""

    now: Callable[[], int]
    peak: Callable[[], int]
    reset: Callable[[], Any]
    copies: bool  # the inputs are copied to a device, and so counted


def numpy_meter() -> Meter:
    """Return the meter of NumPy, whose arrays tracemalloc counts; it is started here."""
    tracemalloc.start()
    return Meter(
        lambda: tracemalloc.get_traced_memory()[0],
        lambda: tracemalloc.get_traced_memory()[1],
        tracemalloc.reset_peak,
        copies=False,
    )


def cupy_meter() -> Meter:
    """Return the meter of CuPy's pool, which only grows between resets."""
    import cupy

    pool = cupy.get_default_memory_pool()
    return Meter(pool.used_bytes, pool.total_bytes, pool.free_all_blocks, copies=True)


def extra(make_calls: Callable[[Inputs], dict[str, Callable[[], Any]]], inputs: Inputs, meter: Meter) -> dict[str, int]:
    """Return the peak extra bytes of each direction.

    Making the calls runs one forward, to have something to go back from: that forward is the one that is measured.
    """
    arrays = [inputs.x, inputs.w, inputs.b, inputs.dy, inputs.labels]
    given = sum(array.nbytes for array in arrays if array is not None) if meter.copies else 0
    meter.reset()
    before = meter.now() + given
    calls = make_calls(inputs)
    if inputs.case.op == "train_step":
        calls["step"]()
        return {"step": max(0, meter.peak() - before)}
    if inputs.case.op in LOSSES:
        results = calls["loss"]()
        return {"loss": max(0, meter.peak() - before - sum(int(result.nbytes) for result in results))}
    y = math.prod(inputs.case.y) * inputs.dtype.itemsize
    found = {"forward": max(0, meter.peak() - before - y)}
    if "backward" in calls:
        meter.reset()
        results = calls["backward"]()
        found["backward"] = max(0, meter.peak() - before - sum(int(result.nbytes) for result in results))
    return found
