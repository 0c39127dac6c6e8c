"""Hardware counters of four kernels, in float32 and float16, by Nsight Compute where the machine lets it."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

import gpuconv
from gpuconv import backend

from .groups import run_group
from .work import Work

KERNELS = (  # and of float32 conv_backward_weight_tensor_float
    *("conv_forward_tensor", "conv_backward_data_tensor", "conv_backward_weight_tensor"),
    "batchnorm_forward_normalise",
)
METRICS = {
    "gpu__time_duration.sum": "time",
    "sm__cycles_elapsed.avg.per_second": "clock",
    "launch__registers_per_thread": "registers",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps active %",
    "smsp__issue_active.avg.pct_of_peak_sustained_active": "issue slots used %",
    "smsp__inst_executed.sum": "instructions",
    "sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_active": "FMA pipe %",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum": "shared load wavefronts",
    "smsp__inst_executed_op_shared_ld.sum": "shared loads",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum": "shared load conflicts",
    "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum": "global load sectors",
    "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum": "global load requests",
    "lts__t_sectors.sum": "L2 sectors",
    "dram__bytes_read.sum": "bytes read",
    "dram__bytes_write.sum": "bytes written",
}
# 64 -> 64 channels, 3x3, a batch of 128 at 32x32: a layer of resnet18; of a dry run a small one of the same kernels.
_SIZE = {False: (128, 64, 32), True: (2, 16, 6)}


def run(work: Work) -> bool | None:
    """Count; a refusal is kept in its words, and is no failure."""
    program = installed()
    if work.dry or program is None:
        status, out, errors = run_group(_child(dry=True), work.left())
        work.keep(kernels="ran uncounted" if status == 0 else f"status {status}: {(out + errors)[-400:]}")
        if work.dry:
            work.leave_out("ncu: the kernels that it would count run without it")
            return status == 0
        work.keep(why="ncu is not installed")
        return None
    command = [program, "--csv", "--page", "raw", "--clock-control", "none", "--target-processes", "all"]
    command += ["--metrics", ",".join(METRICS), "--kernel-name", f"regex:{'|'.join(KERNELS)}", "--launch-count", "8"]
    status, out, errors = run_group([*command, *_child()], work.left())
    rows = counted(out)
    work.keep(rows=rows, shown=[shown(row) for row in rows])
    if not rows:
        work.keep(why=f"ncu counted nothing, status {status}: {' '.join((out[-600:] + errors[-600:]).split())[-500:]}")
        return None
    return True


def shown(row: dict[str, Any]) -> str:
    """Return a line for the table."""
    return f"{row['kernel'][:30]}: " + ", ".join(f"{name} {value}" for name, value in row.items() if name != "kernel")


def counted(output: str) -> list[dict[str, Any]]:
    """Return the rows of ncu's table, whose second line names units."""
    lines = output.splitlines()
    first = next((place for place, text in enumerate(lines) if text.startswith('"ID"')), None)
    if first is None:
        return []
    rows = list(csv.DictReader(lines[first:]))
    units, kernels = rows[0] if rows else {}, []
    for row in rows[1:]:
        values: dict[str, Any] = {"kernel": row.get("Kernel Name", "")}
        for metric, name in METRICS.items():
            if value := row.get(metric):
                values[name] = f"{value} {units.get(metric, '')}".strip()
        kernels.append(values)
    return kernels


def installed() -> str | None:
    """Return the path of ncu, if it is installed."""
    if path := shutil.which("ncu"):
        return path
    places = [Path(os.environ.get("CUDA_PATH") or "/usr/local/cuda") / "bin" / "ncu"]
    places += sorted(Path("/opt/nvidia/nsight-compute").glob("*/ncu"), reverse=True)
    return next((str(path) for path in places if path.exists()), None)


def _child(*, dry: bool = False) -> list[str]:
    return [sys.executable, "-m", f"{__package__}.counters", *(["dry"] if dry else [])]


def main(dry: str = "") -> None:
    """Run a layer forward and backward: what ncu watches."""
    import cupy

    N, C, H = _SIZE[bool(dry)]
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    with backend.using("cuda"):
        vectors = [backend.asarray(np.ones(C, np.float32)) for _ in range(4)]
        for dtype in ("float32", "float16"):
            x, dy = (backend.asarray(drawn(N, H, H, C).astype(dtype)).transpose(0, 3, 1, 2) for _ in range(2))
            y, cache = gpuconv.conv_forward(x, backend.asarray(drawn(C, C, 3, 3).astype(dtype)), pad=1)
            gpuconv.conv_backward(dy, cache)
            gpuconv.spatial_batchnorm_forward(y, *vectors)
    cupy.cuda.runtime.deviceSynchronize()


if __name__ == "__main__":
    main(*sys.argv[1:])
