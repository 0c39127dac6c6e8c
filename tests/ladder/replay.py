"""Times calls without the host in the way: captured in a CUDA graph and replayed, CuPy's and PyTorch's alike."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

Calls = Sequence[Callable[[], Any]]
_LEAST_MS, _MOST_REPLAYS, _TIMES = 3.0, 50, 5  # of one timing; how many replays it has; how many timings there are


class CupyReplay:
    """Calls captured by CuPy on a stream and in memory of their own, which live as long as this does."""

    def __init__(self, calls: Calls) -> None:
        import cupy

        self._cupy = cupy
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._pool = cupy.cuda.MemoryPool()
        cupy.cuda.runtime.deviceSynchronize()  # inputs were made on another stream
        with cupy.cuda.using_allocator(self._pool.malloc), self._stream:
            for call in calls:
                call()  # compiles, and lets the pool have what the capture will ask for
            self._stream.synchronize()
            self._stream.begin_capture()
            try:
                for call in calls:
                    call()
            finally:
                self._graph = self._stream.end_capture()

    def ms(self, replays: int) -> float:
        """Return the milliseconds of so many replays, by events."""
        first, last = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        first.record(self._stream)
        for _ in range(replays):
            self._graph.launch(self._stream)
        last.record(self._stream)
        last.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(first, last))


class TorchReplay:
    """Calls captured by PyTorch, in the same way."""

    def __init__(self, calls: Calls) -> None:
        import torch

        self._torch = torch
        torch.cuda.synchronize()
        self._stream = torch.cuda.Stream()
        with torch.cuda.stream(self._stream):
            for call in calls:
                call()  # chooses cuDNN's algorithms
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            self._graph.capture_begin(capture_error_mode="relaxed")  # as CuPy's is
            try:
                for call in calls:
                    call()
            except BaseException:
                with contextlib.suppress(RuntimeError):  # says that it was spoiled
                    self._graph.capture_end()
                raise
            self._graph.capture_end()

    def ms(self, replays: int) -> float:
        first, last = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        with self._torch.cuda.stream(self._stream):
            first.record()
            for _ in range(replays):
                self._graph.replay()
            last.record()
        last.synchronize()
        return float(first.elapsed_time(last))


def us(replay: Any, calls: int, *, dry: bool) -> list[float]:
    """Return the microseconds of one of the captured calls, timed several times; of a dry run, none."""
    once = replay.ms(1)
    if dry:
        return []
    replays = min(_MOST_REPLAYS, max(1, round(_LEAST_MS / max(once, 1e-3))))
    return [replay.ms(replays) / replays / calls * 1e3 for _ in range(_TIMES)]


def turns(ours: Any, theirs: Any, calls: int, *, dry: bool) -> tuple[list[float], list[float]]:
    """Return the times of two replays in turns, A B B A; of one alone where the other is None."""
    found: tuple[list[float], list[float]] = ([], [])
    for which in (0, 1, 1, 0):
        replay = (ours, theirs)[which]
        if replay is not None:
            found[which].extend(us(replay, calls, dry=dry))
    return found


def spread(times: Sequence[float]) -> float:
    """Return the largest less the smallest time, as a share of the median."""
    return round((max(times) - min(times)) / statistics.median(times), 3)
