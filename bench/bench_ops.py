"""Every case for pytest-benchmark: `pytest bench`, grouped by case and direction, each checked before it is timed.

    pytest bench --bench-set readme --bench-peers torch --benchmark-autosave --benchmark-histogram

Here all sides share one process and are timed one after the other: good for reading and for comparing versions of
gpuconv (`--benchmark-compare`).  For ratios to a peer use `gpuconv bench`.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench import inputs, oracle, peers
from bench.cases import Case


def bench_operator(
    benchmark: Any,
    workers: Any,
    request: pytest.FixtureRequest,
    side: str,
    case: Case,
    layout: str,
    direction: str,
) -> None:
    regime = request.config.getoption("--bench-regime")
    worker = workers(side)
    try:
        samples = worker.prepare(case, layout, regime)
    except peers.NotOffered as said:
        pytest.skip(str(said))
    if direction not in samples:
        pytest.skip(f"has no {direction}")
    expected = oracle.references(inputs.draw(case, regime=regime))[direction]
    for reference, got in zip(expected, samples[direction], strict=True):
        assert reference.agrees(got), f"{reference.name} is off by {reference.error(got):.1e}"
    benchmark.group = f"{case.name} {direction}, {regime}"
    benchmark.extra_info.update({"side": side, "layout": layout, "regime": regime})
    timed = worker.ready[layout][direction]
    if worker.device == "cuda":
        benchmark.pedantic(_synchronised(timed), rounds=30, iterations=10, warmup_rounds=5)
    else:
        benchmark(timed)
    worker.forget()
    if benchmark.stats:
        flop, moved = case.flop(direction), case.bytes(direction)
        name, work = ("GFLOP/s", flop) if flop else ("GB/s", moved)
        benchmark.extra_info[name] = round(work / benchmark.stats["median"] / 1e9, 1)


def _synchronised(call: Any) -> Any:
    """Return the call, ended only when the GPU is done.  Not yet run on a GPU."""
    from gpuconv.cuda import device

    def run() -> None:
        call()
        device.current().synchronize()

    return run
