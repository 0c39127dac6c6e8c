"""A training step: milliseconds as it runs, of the host alone, of the GPU alone, and replayed as one graph.

But for the last the step is launched kernel by kernel (graph "off"): the GPU alone is timed behind work that keeps it
busy.  A replayed step is to take what the GPU alone takes, and stands beside PyTorch's, replayed likewise.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

from gpuconv.backend import using
from gpuconv.cuda.device import CupyDevice

from . import torch_steps, training
from .predictions import predictions, share
from .replay import spread
from .work import Work, line

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
        chosen = [next(each for each in chosen if each["preset"] == preset) for preset in ("convnet", "speedrun")]
        left_out = (
            "all regimes but float32 and bfloat16",
            "PyTorch's steps but convnet's, which runs on the CPU, uncaptured",
        )
        work.leave_out(f"all nets but small ones, batches but {_DRY_BATCH}", "resnet18", *left_out, "times")
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
    if not work.dry or entry["preset"] == "convnet":
        row |= _theirs(work, entry, batch)
        work.keep(rows=[*work.found["rows"][:-1], row])


def _theirs(work: Work, entry: dict[str, Any], batch: int) -> dict[str, Any]:
    """Return what PyTorch's step takes; where it cannot be had, that is named and fails nothing of ours."""
    try:
        ms = torch_steps.ms(entry["preset"], batch, entry["precision"], dry=work.dry)
    except (ImportError, RuntimeError, NotImplementedError, ValueError) as error:
        refused = work.found.get("torch refused", {})
        work.keep(**{"torch refused": refused | {words(entry): f"{type(error).__name__}: {line(error)}"}})
        return {}
    if not ms:
        return {"torch": "did a step"}
    ours, theirs = work.found["rows"][-1]["replayed ms"], round(statistics.median(ms), 3)
    return {"torch replayed ms": theirs, "torch spread": spread(ms), "torch / ours": round(theirs / ours, 3)}


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
    predicted = max((value for value in (entry["gpu_ms"], entry["host_ms"]) if value is not None), default=None)
    found = {
        "ms": round(eager_ms, 3),
        "predicted ms": predicted,
        "measured / predicted": share(eager_ms, predicted),
        "host ms": round(host_ms, 3),
        "host measured / predicted": share(host_ms, entry["host_ms"]),
        "predicted launches": entry["launches"],
        "host us a launch": None if entry["launches"] is None else round(host_ms / entry["launches"] * 1e3, 2),
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
        return f"{row['step']}: {row['launches of ours']} launches of ours{', torch did a step' * ('torch' in row)}"
    gaps = ", with gaps" if "gpu ms has gaps" in row else ""
    beside = (
        f"; torch {row['torch replayed ms']:.2f}, torch / ours {row['torch / ours']}" if "torch / ours" in row else ""
    )
    return (
        f"{row['step']:31s} replayed {row['replayed ms']:6.2f} ms{_of(row['replayed measured / predicted'])}{beside}; "
        f"launched {row['ms']:.2f}; GPU alone {row['gpu ms']:.2f}{gaps}; host {row['host ms']:.2f}"
        f"{_of(row['host measured / predicted'])}"
    )


def _of(ratio: float | None) -> str:
    return "" if ratio is None else f", x{ratio} of predicted"
