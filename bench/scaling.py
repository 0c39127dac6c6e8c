"""Training by processes on this machine: images a second of one process of many threads, and of many of one thread.

    gpuconv bench --scaling --save FILE
    python -m bench.scaling FILE        the tables of a run that was kept

Every side trains the same net on the same batches, as `gpuconv train` does it, in processes of its own; a round goes
through all sides, the next one backwards.  Below stands an estimate for 8 GPUs and for 8 machines: arithmetic with
the sizes of messages and published bandwidths, and nothing measured.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuconv.errors import ConfigError
from gpuconv.runs.machine import machine, versions

from . import harness, load

_WORKER = "bench.scaling_worker"
_STEPS = 12  # of a side in a round, after three that warm up


@dataclass(frozen=True)
class Side:
    """So many processes of so many threads."""

    processes: int
    threads: int

    @property
    def name(self) -> str:
        return f"{self.processes} x {self.threads}"


@dataclass(frozen=True)
class Links:
    """GPUs and what connects them: bytes a second that one of them sends, and the seconds before a message begins."""

    name: str
    bandwidth: float
    latency: float
    source: str


LINKS = (
    Links("8 GPUs of one machine", 0.75 * 450e9, 10e-6, "NVLink of H100/H200: 450 GB/s each way, three quarters of it"),
    Links("8 machines of a GPU", 0.75 * 25e9, 30e-6, "200 Gb/s InfiniBand, three quarters of it"),
    Links("8 machines of a GPU", 0.75 * 1.25e9, 60e-6, "10 Gb/s Ethernet, three quarters of it"),
)
# Milliseconds of a step of one H200, images, parameters: what tests/ladder/predictions.json expects, by a model.
STEPS = {
    "resnet18, float32": (54.2, 512, 11_173_962),
    "resnet18, 16 bits": (5.95, 512, 11_173_962),
    "speedrun, float32": (44.9, 2000, 1_971_352),
    "speedrun, 16 bits": (4.55, 2000, 1_971_352),
}
_BACKWARD = 0.6  # share of a step beside which gradients can go: two thirds, less the layers that come last


def scaling(*, rounds: int = 6, save: Path | None = None) -> dict[str, Any]:
    """Measure, print the tables, keep the JSON."""
    cores = harness.usable_cores()
    if mpiexec() is None:
        msg = "gpuconv bench --scaling needs an mpiexec: pip install 'gpuconv[mpi]'"
        raise ConfigError(msg)
    counts = [count for count in (1, 2, 4, 8, 16) if count <= cores]
    sides = [Side(1, cores), *(Side(count, 1) for count in counts)] if cores > 1 else [Side(1, 1)]
    before = load.look()
    work = load.OtherWork()
    found: dict[str, list[float]] = {side.name: [] for side in sides}
    for turn in range(rounds):
        for side in sides if turn % 2 == 0 else sides[::-1]:
            found[side.name].append(measure(side))
    result = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "other_work_before": before,
        "other_work": work.cores(),
        "images_per_second": found,
        "estimate": [vars(row) for row in estimates()],
    }
    sys.stdout.write(shown(result) + "\n")
    if save is not None:
        save.write_text(json.dumps(result, indent=1) + "\n")
    return result


def mpiexec() -> str | None:
    """Return the mpiexec beside this Python, else the one on the path."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec")


def measure(side: Side) -> float:
    """Return images a second of all processes of a side together."""
    launcher = mpiexec()
    assert launcher is not None
    python = [sys.executable, "-m", _WORKER, str(_STEPS)]
    command = [launcher, "-n", str(side.processes), *python] if side.processes > 1 else python
    environment = {**os.environ, "GPUCONV_THREADS": str(side.threads), "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        msg = f"{side.name} processes x threads could not be measured: {ended.stderr.strip()}"
        raise ConfigError(msg)
    return float(json.loads(ended.stdout)["images_per_second"])


@dataclass(frozen=True)
class Estimate:
    """A net on one kind of links: milliseconds of a step and of its exchange, and the share of 8 times one GPU."""

    net: str
    links: str
    megabytes: float
    step_ms: float
    exchange_ms: float
    images_per_second: float
    efficiency: float


def estimates(ranks: int = 8) -> list[Estimate]:
    """Return what 8 processes should give, from sizes and bandwidths alone.

    Each sends and receives 2 (ranks - 1) / ranks of the gradients, in stretches of 4 MiB, and so many messages begin
    one after the other; what does not fit beside the backward is waited for.
    """
    rows = []
    for net, (ms, images, parameters) in STEPS.items():
        seconds, size = ms / 1e3, 4 * parameters
        for links in LINKS:
            stretches = -(-size // (4 * 2**20))
            exchange = 2 * (ranks - 1) / ranks * size / links.bandwidth + 2 * stretches * links.latency
            step = seconds + max(0.0, exchange - _BACKWARD * seconds)
            rate = ranks * images / step
            rows.append(
                Estimate(
                    net, f"{links.name}, {links.source}", size / 1e6, 1e3 * step, 1e3 * exchange, rate, seconds / step
                )
            )
    return rows


def shown(result: dict[str, Any]) -> str:
    """Return the tables of a run as Markdown."""
    found: dict[str, list[float]] = result["images_per_second"]
    base = statistics.median(next(iter(found.values())))
    rows = []
    for name, rates in found.items():
        processes, threads = name.split(" x ")
        median = statistics.median(rates)
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        rows.append([processes, threads, f"{median:,.0f}", spread, f"{median / base:.2f}"])
    measured = _table(["processes", "threads each", "images/s", "least and most", "of the first"], rows)
    estimated = [
        [
            row.net,
            row.links,
            f"{row.megabytes:.0f}",
            f"{row.exchange_ms:.2f}",
            f"{row.step_ms:.2f}",
            f"{row.images_per_second:,.0f}",
            f"{row.efficiency:.0%}",
        ]
        for row in estimates()
    ]
    head = ["net", "8 processes on", "MB", "exchange ms", "step ms", "images/s", "of 8 x one"]
    busy = result["other_work"]
    beside = (
        "" if busy is None or busy < load.NOTEWORTHY else f"  Other processes kept {busy:.1f} cores busy meanwhile."
    )
    here = result["machine"]
    where = f"{here['processor']}, {here['usable_cores']} cores; preset convnet, 128 images a step, {len(next(iter(found.values())))} rounds by turns.{beside}"
    below = "Estimated, not measured; where the exchange fits beside the backward, it costs nothing here:"
    return f"{where}\n\n{measured}\n\n{below}\n\n{_table(head, estimated)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(shown(json.loads(Path(sys.argv[1]).read_text())) + "\n")
