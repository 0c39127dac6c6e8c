"""compute-sanitizer over quick calls, each of its tools after a fault that it must see: one that does not is blind."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np

from .groups import run_group
from .work import Work

# A fault for each tool, and in the order of their use.
FAULTS = {
    "memcheck": """extern "C" __global__ void fault(float* out, int n) { out[n + (1 << 20) + threadIdx.x] = 1; }""",
    "racecheck": """extern "C" __global__ void fault(float* out, int n) {
  __shared__ float cell[1];
  cell[0] = threadIdx.x;
  out[threadIdx.x % n] = cell[0];
}""",
}
_FOUND = 86  # exit status of compute-sanitizer when its tool found something
_CONTROL = 15.0  # seconds


def run(work: Work) -> bool | None:
    """Watch the quick calls with each tool; a tool that is not there, or refuses this machine, is named and no failure."""
    program = installed()
    if work.dry:
        work.leave_out("the tools themselves: the calls they would watch run without them")
        status, out, errors = run_group(_child("calls", dry=True), work.left())
        work.keep(calls="ran" if status == 0 else f"status {status}: {(out + errors)[-300:]}")
        return status == 0
    if program is None:
        work.keep(why="compute-sanitizer is not installed")
        return None
    tools: dict[str, str] = {}
    for place, tool in enumerate(FAULTS):
        share = work.left() / (len(FAULTS) - place)
        tools[tool] = _watch(program, tool, share)
        work.keep(tools=tools, shown=[f"{name}: {verdict}" for name, verdict in tools.items()])
    faults = [verdict for verdict in tools.values() if verdict.startswith("found")]
    if faults:
        return False
    return True if all(verdict == "clean" for verdict in tools.values()) else None


def _watch(program: str, tool: str, seconds: float) -> str:
    """Return "clean", "found: ..." or why nothing was measured."""
    status, verdict = _watched(program, tool, f"fault-{tool}", min(seconds / 2, _CONTROL))
    if status != _FOUND:
        return f"not measured: the planted fault was not noticed ({verdict})"
    status, verdict = _watched(program, tool, "calls", seconds - _CONTROL)
    if status is None:
        return f"not measured: time was spent ({verdict})"
    if status == 0:
        return "clean"
    return f"found: {verdict}" if status == _FOUND else f"not measured: status {status} ({verdict})"


def _watched(program: str, tool: str, child: str, seconds: float) -> tuple[int | None, str]:
    command = [program, "--tool", tool, "--error-exitcode", str(_FOUND), *_child(child)]
    status, out, errors = run_group(command, seconds)
    lines = [line for line in out.splitlines() if line.startswith("=========")]
    return status, " | ".join(lines[:6])[:600] or (errors.splitlines() or ["no output"])[-1][:300]


def _child(name: str, *, dry: bool = False) -> list[str]:
    return [sys.executable, "-m", f"{__package__}.sanitizer", name, *(["dry"] if dry else [])]


def installed() -> str | None:
    """Return the path of compute-sanitizer, if it is installed."""
    path = shutil.which("compute-sanitizer")
    places = [os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]
    paths = [Path(place) / "bin" / "compute-sanitizer" for place in places if place]
    return path or next((str(path) for path in paths if path.exists()), None)


def run_fault(tool: str) -> None:
    """Run the planted fault of a tool; the tool, not this, is to notice."""
    import cupy

    cupy.cuda.set_allocator(None)
    out = cupy.empty(256, cupy.float32)
    cupy.RawKernel(FAULTS[tool], "fault")((1,), (64,), (out, np.int32(256)))
    cupy.cuda.runtime.deviceSynchronize()


def main(name: str, dry: str = "") -> None:
    """Be the program that a tool watches."""
    from .calls import run_quick

    if name == "calls":
        run_quick(dry=bool(dry))
    else:
        run_fault(name.removeprefix("fault-"))


if __name__ == "__main__":
    main(*sys.argv[1:])
