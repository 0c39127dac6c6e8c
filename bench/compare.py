"""Time every case in gpuconv and in PyTorch on this CPU, in one run, and print and save the table.

    python -m bench.compare [--only TEXT] [--rounds 12] [--save bench/results/NAME.json]

Each side lives in a process of its own, since their thread pools disturb each other in one; both get the same number
of threads.  Rounds alternate A B B A; a row is the median of the rounds, the ratio that of the medians, with the
spread (10th to 90th percentile) of the ratios of neighbouring rounds.  Results are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from .cases import CASES, Arrays

_ROUND_SECONDS = 0.06
_REST_SECONDS = 0.01  # lets the threads of the side that just ran stop spinning
_TOLERANCE = 1e-3  # of the largest value: enough to see that both compute the same thing


def worker(side: str, threads: int, pipe: Connection) -> None:
    """Serve one side: (case, channels_last) prepares, "check" returns results, (direction, n) times n calls."""
    os.environ["GPUCONV_THREADS"] = str(threads)
    if side == "torch":
        import torch

        from .torch_calls import torch_calls as make_calls

        torch.set_num_threads(threads)
    else:
        from .cases import gpuconv_calls as make_calls
    calls: dict[str, Any] = {}
    while (request := pipe.recv()) is not None:
        match request:
            case ("prepare", index, channels_last):
                case_ = CASES[index]
                arrays = Arrays.draw(case_, channels_last=channels_last)
                calls = make_calls(case_, arrays, channels_last=channels_last)
                pipe.send([_sample(calls[d]()) for d in ("forward", "backward")])
            case ("time", direction, count):
                call = calls[direction]
                start = time.perf_counter()
                for _ in range(count):
                    call()
                pipe.send((time.perf_counter() - start) / count)


def _sample(result: Any) -> list[list[float]]:
    """Return some values of every array of a result, enough to compare two sides."""
    items = result if isinstance(result, (tuple, list)) else (result,)
    arrays = [
        np.asarray(item.detach() if hasattr(item, "detach") else item) for item in items if hasattr(item, "shape")
    ]
    return [np.append(a.reshape(-1)[:: max(1, a.size // 997)], np.abs(a).max()).tolist() for a in arrays]


class Side:
    """The parent's end of one worker."""

    def __init__(self, name: str, threads: int) -> None:
        self.pipe, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=worker, args=(name, threads, other), daemon=True)
        self.process.start()

    def ask(self, *request: Any) -> Any:
        self.pipe.send(request)
        return self.pipe.recv()

    def stop(self) -> None:
        self.pipe.send(None)
        self.process.join()


def compare(rounds: int, only: str, threads: int) -> list[dict[str, Any]]:
    """Return one row per case, memory format and direction."""
    ours, peer = Side("gpuconv", threads), Side("torch", threads)
    rows = []
    for index, case in enumerate(CASES):
        if only not in case.name:
            continue
        for channels_last in (False, True):
            samples = [side.ask("prepare", index, channels_last) for side in (ours, peer)]
            for direction, a, b in zip(("forward", "backward"), *samples, strict=True):
                wrong = [i for i, (u, v) in enumerate(zip(a, b, strict=False)) if not _agree(u, v)]
                if wrong:
                    print(f"wrong: {case.name} {direction}: result {wrong[0]} differs from PyTorch's; not timed")
                    continue
                row = _time(ours, peer, direction, rounds)
                rows.append(
                    {"case": case.name, "layout": "NHWC" if channels_last else "NCHW", "direction": direction, **row}
                )
                print(format_row(rows[-1]), flush=True)
    ours.stop()
    peer.stop()
    return rows


def _agree(a: list[float], b: list[float]) -> bool:
    u, v = np.array(a), np.array(b)
    return u.shape == v.shape and bool(np.abs(u - v).max() <= _TOLERANCE * max(1.0, np.abs(v).max()))


def _time(ours: Side, peer: Side, direction: str, rounds: int) -> dict[str, float]:
    counts = []
    for side in (ours, peer):  # warm up, and see how many calls make a round
        side.ask("time", direction, 2)
        time.sleep(_REST_SECONDS)
        counts.append(max(1, round(_ROUND_SECONDS / side.ask("time", direction, 2))))
    a: list[float] = []
    b: list[float] = []
    for index in range(rounds):
        order = ((ours, counts[0], a), (peer, counts[1], b))
        for side, count, times in order if index % 2 == 0 else order[::-1]:
            time.sleep(_REST_SECONDS)
            times.append(side.ask("time", direction, count))
    ratios = sorted(u / v for u, v in zip(a, b, strict=True))
    return {
        "gpuconv_ms": statistics.median(a) * 1e3,
        "torch_ms": statistics.median(b) * 1e3,
        "ratio": statistics.median(a) / statistics.median(b),
        "ratio_low": ratios[len(ratios) // 10],
        "ratio_high": ratios[-1 - len(ratios) // 10],
    }


def format_row(row: dict[str, Any]) -> str:
    """Return one line of the table."""
    return (
        f"{row['case']:40s} {row['layout']} {row['direction']:8s} gpuconv {row['gpuconv_ms']:8.2f} ms   "
        f"torch {row['torch_ms']:8.2f} ms   ratio {row['ratio']:5.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})"
    )


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the geometric mean and the worst of the ratios: format by format, and best format against best format."""
    best: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        best.setdefault((row["case"], row["direction"]), []).append(row)
    best_ratios = [min(r["gpuconv_ms"] for r in rs) / min(r["torch_ms"] for r in rs) for rs in best.values()]
    ratios = [row["ratio"] for row in rows]
    return {
        "same_format_geometric_mean": statistics.geometric_mean(ratios),
        "same_format_worst": max(ratios),
        "best_format_geometric_mean": statistics.geometric_mean(best_ratios),
        "best_format_worst": max(best_ratios),
    }


def machine(threads: int) -> dict[str, Any]:
    """Return what a reader needs to know of this machine and its software."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next(
            (line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line), cpu
        )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "regime": "float32",
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--rounds", type=int, default=12, help="rounds per row (default 12)")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of either side (default: all cores)"
    )
    parser.add_argument("--save", type=Path, help="write the table as JSON")
    arguments = parser.parse_args()
    rows = compare(arguments.rounds, arguments.only, arguments.threads)
    result = {"machine": machine(arguments.threads), "summary": summary(rows), "rows": rows}
    for name, value in result["summary"].items():
        print(f"{name:32s} {value:.2f}")
    if arguments.save:
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        arguments.save.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
