"""Every case for pytest-benchmark: `pytest bench`, one table a case and direction, each side checked before it is timed.

    pytest bench                                       # small cases, every side that is installed, CPU and GPU
    pytest bench --bench-set readme --bench-peers torch --benchmark-autosave --benchmark-histogram

The sides: gpuconv on the CPU and on the GPU, plain Python loops, CuPy's im2col, PyTorch and others.  Here all share one
process and are timed one after the other: good for reading and for comparing versions of gpuconv
(`--benchmark-compare`).  For ratios to a peer use `gpuconv bench`.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench import peers
from bench.cases import Case
from gpuconv import backend


def bench_operator(
    benchmark: Any,
    workers: Any,
    references: Any,
    request: pytest.FixtureRequest,
    side: str,
    device: str,
    case: Case,
    layout: str,
    direction: str,
) -> None:
    regime = request.config.getoption("--bench-regime")
    worker = workers(side, device)
    with backend.using(device) if side in _OURS else backend.using("cpu"):
        try:
            samples = worker.prepare(case, layout, regime)
        except peers.NotOffered as said:
            pytest.skip(f"{side}: {said}")
        if direction not in samples:
            pytest.skip(f"{side} has no {direction}")
        for reference, got in zip(references(case, regime)[direction], samples[direction], strict=True):
            assert reference.agrees(got), f"{reference.name} is off by {reference.error(got):.1e}"
        benchmark.group = f"{case.name}, {direction}, {regime}"
        benchmark.name = f"{worker.peer.label}, {device}, {layout}"  # as the table shows it
        benchmark.extra_info.update({"side": side, "device": device, "layout": layout, "regime": regime})
        timed = worker.ready[layout][direction]
        if device == "cuda":
            benchmark.pedantic(_synchronised(timed), rounds=30, iterations=10, warmup_rounds=5)
        else:
            benchmark(timed)
    worker.forget()
    if benchmark.stats:
        flop, moved = case.flop(direction), case.bytes(direction)
        name, work = ("GFLOP/s", flop) if flop else ("GB/s", moved)
        benchmark.extra_info[name] = round(work / benchmark.stats["median"] / 1e9, 1)


_OURS = ("gpuconv", "self", "naive")  # whose arrays are made where gpuconv is told to make them


def _synchronised(call: Any) -> Any:
    """Return the call, ended only when the GPU is done."""
    from gpuconv.cuda import device

    def run() -> None:
        call()
        device.current().synchronize()

    return run
