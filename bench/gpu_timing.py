"""Times on a GPU for bench/gpu_run.py: the README's cases beside PyTorch, in this one process.  Not yet run on a GPU.

The same sides, checks and turns as `gpuconv bench --device cuda`, which takes minutes; here until the time is spent.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from . import harness, peers, worker
from .cases import SETS
from .results import FAILED, NOT_OFFERED, OURS, Row

_SETTINGS = harness.Settings(device="cuda", rounds=4, row_seconds=1.0, memory=False)


class Here:
    """A side in this process, asked as if it were in one of its own."""

    def __init__(self, name: str, device: str = "cuda") -> None:
        self.name, self._worker = name, worker.Worker(peers.load(name), device, 1)

    def ask(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._worker, method)(*arguments)
        except peers.NotOffered as said:
            raise harness.SideError(NOT_OFFERED, str(said)) from None
        except Exception as error:
            said_ = " ".join(str(error).split())[:300]
            raise harness.SideError(FAILED, f"{type(error).__name__}: {said_}") from error

    def memory(self, case: Any, layout: str, regime: str) -> dict[str, int]:
        return {}


def timings(seconds: float) -> dict[str, Any]:
    """Return a row for each case, dtype, memory format and direction, until the time is spent."""
    end = time.monotonic() + seconds
    ours, beside = Here(OURS), Here("torch")
    ours.ask("start")
    sides, said = [ours], "measured"
    if peers.load("torch").missing():
        said = "not measured: not installed"
    else:
        try:
            beside.ask("start")
            sides.append(beside)
        except harness.SideError as error:
            said = f"not measured: {error}"
    peaks = ours.ask("peaks")
    rows: list[dict[str, Any]] = []
    left_out = []
    for regime in ("float32", "float16"):
        for case in SETS["readme"]:
            if time.monotonic() > end:
                left_out.append(f"{case.name} {regime}")
                continue
            for row in harness.compare(case, regime, sides, _SETTINGS):
                rows += lines(row, peaks["GB/s"])
    return {"peaks": peaks, "torch": said, "rows": rows, "left out, time was spent": left_out}


def lines(row: Row, bandwidth: float) -> list[dict[str, Any]]:
    """Return a plain value for each memory format in which gpuconv was measured; bandwidth in GB/s."""
    found = []
    for entry in row.entries:
        if entry.side != OURS or not entry.measured:
            continue
        line = {"case": row.case, "dtype": row.regime, "memory": entry.layout, "direction": row.direction}
        for name, times in entry.times.items():
            line["gpuconv_ms" if name == "ms" else name] = round(statistics.median(times), 4)
        line["share of copy bandwidth"] = round(row.bytes / entry.ms / 1e6 / bandwidth, 3)
        theirs, ratio = row.entry("torch", entry.layout), row.ratio("torch", entry.layout)
        if theirs is not None and ratio is not None:
            line |= {"torch_ms": round(theirs.ms, 4), "ratio": round(ratio.value, 3)}
        found.append(line)
    return found
