"""A training step: milliseconds as it runs, of the host alone, of the GPU alone, and replayed as one graph.

But for the last the step is launched kernel by kernel (graph "off"): the GPU alone is timed behind work that keeps it
busy.  A replayed step is to take what the GPU alone takes.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from gpuconv.backend import using
from gpuconv.cuda.device import CupyDevice

from . import training
from .predictions import predictions, share
from .work import Work

_COUNTS = Path(__file__).with_name("step_counts.json")
_STEPS = 8  # of an epoch
_HOST_STEPS, _HOST_TIMES = 2, 5  # so few that their launches all fit into the GPU's queue
_TIMES = 3
_DRY_BATCH = 8
_COPIED, _BYTES_A_MS = 2**31, 4.3e9  # bytes of a copy, and about how many an H200 reads or writes in a millisecond
_LEAD = 2.0  # how much longer the copies take than the host


def run(work: Work) -> bool:
    """Measure the steps of predictions.json until the time is spent."""
    chosen = predictions()["steps"]
    if work.dry:
        chosen = [each for each in chosen if (each["preset"], each["precision"]) == ("convnet", "float32")][:1]
        chosen = [*chosen, next(each for each in predictions()["steps"] if each["preset"] == "speedrun")]
        work.leave_out(f"all nets but small ones, batches but {_DRY_BATCH}", "resnet18", "float16", "times")
    work.keep(rows=work.found.get("rows", []))
    ok = work.each(chosen, lambda entry: _measure(work, entry), words)
    work.keep(shown=[_shown(row) for row in work.found["rows"]])
    return ok is not False


def words(entry: dict[str, Any]) -> str:
    """Return a step as messages show it."""
    return f"{entry['preset']}, batch {entry['batch']}, {entry['precision']}"


def _measure(work: Work, entry: dict[str, Any]) -> None:
    import cupy

    batch = _DRY_BATCH if work.dry else entry["batch"]
    with using("cuda"):
        run = training.begun(entry["preset"], batch, entry["precision"], _STEPS, tiny=work.dry)
        steps = _steps(run)
        for _ in range(1 if work.dry else 3):
            next(steps)
        row: dict[str, Any] = {"step": words(entry), "launches of ours": launches(steps)}
        row["measured / predicted launches of ours"] = share(row["launches of ours"], entry["own_launches"])
        host = [_host_ms(cupy, run, steps, dry=work.dry) for _ in range(1 if work.dry else _HOST_TIMES)]
        eager = [_eager_ms(cupy, steps, 2 if work.dry else 10) for _ in range(1 if work.dry else _TIMES)]
        median = statistics.median(host)
        busy = [_busy_ms(cupy, run, steps, median, dry=work.dry) for _ in range(1 if work.dry else _TIMES)]
        run.look()
        row["loss"] = run.last_loss
        replayed = _replayed(cupy, entry, batch, row, dry=work.dry)
    if not work.dry:
        row |= _numbers(entry, batch, host, eager, busy)
        row |= {"replayed ms": round(replayed, 3), "replayed measured / predicted": share(replayed, entry["gpu_ms"])}
    work.keep(rows=[*work.found["rows"], row])


def _replayed(cupy: Any, entry: dict[str, Any], batch: int, row: dict[str, Any], *, dry: bool) -> float:
    """Return the milliseconds of a step that is replayed, and note how many kernels the host launches beside it."""
    run = training.begun(entry["preset"], batch, entry["precision"], _STEPS, tiny=dry, graph="on")
    steps = _steps(run)
    for _ in range(run.stepper.graph.warm):
        next(steps)
    row["launches beside a replay"] = launches(steps)
    ms = [_eager_ms(cupy, steps, 2 if dry else 10) for _ in range(1 if dry else _TIMES)]
    run.look()
    return statistics.median(ms)


def _numbers(
    entry: dict[str, Any], batch: int, host: list[float], eager: list[float], busy: list[tuple[float, bool]]
) -> dict[str, Any]:
    """Return times, each beside what was predicted."""
    host_ms, eager_ms = statistics.median(host), statistics.median(eager)
    gpu_ms = statistics.median(ms for ms, _ in busy)
    predicted = [value for value in (entry["gpu_ms"], entry["host_ms"]) if value is not None]
    found = {
        "ms": round(eager_ms, 3),
        "predicted ms": max(predicted),
        "measured / predicted": share(eager_ms, max(predicted)),
        "host ms": round(host_ms, 3),
        "host measured / predicted": share(host_ms, entry["host_ms"]),
        "launches": queued(entry),
        "host us a launch": round(host_ms / queued(entry) * 1e3, 2),
        "predicted us a launch": predictions()["host_us_per_launch"],
        "images per second": round(batch / eager_ms * 1e3),
        "gpu ms": round(gpu_ms, 3),
        "gpu measured / predicted": share(gpu_ms, entry["gpu_ms"]),
    }
    if not all(ahead for _, ahead in busy):  # float16 waits for the host by itself
        found["gpu ms has gaps"] = True
    return found


def _steps(run: Any) -> Iterator[None]:
    """Do a step at a time, epoch after epoch, looking at none of them."""
    for epoch in itertools.count():
        for batch in run.feed.epoch(epoch, 0, _STEPS):
            run.step(batch)
            run.position.steps += 1
            yield


def queued(entry: dict[str, Any]) -> int:
    """Return how many launches, products and copies a step queues: as counted in step_counts.json, else as predicted."""
    counted = json.loads(_COUNTS.read_text(encoding="utf-8"))["steps"].get(f"{entry['preset']}-{entry['precision']}")
    if counted is None:
        return int(entry["launches"])
    return int(counted["launches"] + counted["products"] + counted["memsets"] + sum(counted["copies"].values()))


def launches(steps: Iterator[None]) -> int:
    """Return how many of our own kernels a step launches."""
    launched = []
    launch = CupyDevice.launch

    def counted(*arguments: Any) -> None:
        launched.append(1)
        launch(*arguments)

    with mock.patch.object(CupyDevice, "launch", counted):
        next(steps)
    return len(launched)


def _host_ms(cupy: Any, run: Any, steps: Iterator[None], *, dry: bool) -> float:
    """Return the milliseconds that the host takes to queue a step, with nothing in its way."""
    run.look()  # else one of these steps might
    cupy.cuda.runtime.deviceSynchronize()
    count = 1 if dry else _HOST_STEPS
    start = time.perf_counter()
    for _ in range(count):
        next(steps)
    return (time.perf_counter() - start) / count * 1e3


def _eager_ms(cupy: Any, steps: Iterator[None], count: int) -> float:
    """Return the milliseconds of a step as it runs, by events."""
    first, last = cupy.cuda.Event(), cupy.cuda.Event()
    first.record()
    for _ in range(count):
        next(steps)
    last.record()
    last.synchronize()
    return float(cupy.cuda.get_elapsed_time(first, last)) / count


def _busy_ms(cupy: Any, run: Any, steps: Iterator[None], host_ms: float, *, dry: bool) -> tuple[float, bool]:
    """Return the milliseconds of a step without gaps, and whether the host was quick enough for that.

    The GPU copies memory until the host has queued the steps behind it; then they run one upon the other.
    """
    count = 1 if dry else _HOST_STEPS
    source = cupy.zeros(2**16 if dry else _COPIED, cupy.uint8)
    target = cupy.empty_like(source)
    copies = 1 if dry else max(2, round(_LEAD * host_ms * count / (2 * _COPIED / _BYTES_A_MS)))
    run.look()
    cupy.cuda.runtime.deviceSynchronize()
    first, last = cupy.cuda.Event(), cupy.cuda.Event()
    for _ in range(copies):
        cupy.copyto(target, source)
    first.record()
    for _ in range(count):
        next(steps)
    last.record()
    ahead = not first.done
    last.synchronize()
    return float(cupy.cuda.get_elapsed_time(first, last)) / count, ahead


def _shown(row: dict[str, Any]) -> str:
    if "ms" not in row:
        return f"{row['step']}: {row['launches of ours']} launches of ours"
    ratio, gaps = row["gpu measured / predicted"], ", with gaps" if "gpu ms has gaps" in row else ""
    return (
        f"{row['step']:30s} {row['ms']:7.2f} ms, x{row['measured / predicted']} of predicted; GPU alone {row['gpu ms']:.2f}"
        f"{f' x{ratio}' if ratio is not None else ''}{gaps}; host {row['host ms']:.2f} "
        f"x{row['host measured / predicted']}, {row['host us a launch']:.1f} us a launch; "
        f"replayed {row['replayed ms']:.2f}"
    )
