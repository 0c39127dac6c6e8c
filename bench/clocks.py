"""How a call is timed: by the host's clock, or by a GPU's events and the host's clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

_GROUPS = 5  # of calls in a round, whose median counts: what disturbs one group does not disturb the round
_COLD_CALLS = 5
FLUSH_BYTES = 2**28  # more than the L2 cache of any GPU


class Clock(Protocol):
    """Times calls without arguments."""

    def round(self, call: Callable[[], Any], count: int) -> dict[str, float]:
        """Call `count` times or a little more; return the milliseconds of one call, by what was measured."""


class HostClock:
    """perf_counter around groups of calls that are done when they return."""

    def now(self) -> float:
        return time.perf_counter()

    def round(self, call: Callable[[], Any], count: int) -> dict[str, float]:
        groups = min(_GROUPS, count)
        each = count // groups
        times = []
        for _ in range(groups):
            start = self.now()
            for _ in range(each):
                call()
            times.append((self.now() - start) / each)
        return {"ms": statistics.median(times) * 1e3}


class ProcessorClock(HostClock):
    """The processor time of the whole process, which other processes disturb less: in one thread as long as the call."""

    def now(self) -> float:
        return time.process_time()


class QueueClock:
    """The host's clock around calls that only queue their work, until the last is done: for a GPU without events."""

    def __init__(self, wait: Callable[[Any], Any]) -> None:
        self._wait = wait

    def round(self, call: Callable[[], Any], count: int) -> dict[str, float]:
        start = time.perf_counter()
        for _ in range(count):
            result = call()
        self._wait(result)
        return {"ms": (time.perf_counter() - start) / count * 1e3}


class EventClock:
    """CUDA events.

    ms: calls one behind the other, by events: the larger of kernel time and launch cost, the caches warm.
    wall_ms: the same by the host's clock, to the end of the last kernel.   launch_ms: until the last launch returned.
    kernel_ms: one call behind a write of the whole L2 cache, which also hides the launches.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        elapsed: Callable[[Any, Any], float],
        flush: Callable[[], Any],
    ) -> None:
        self._make, self._elapsed, self._flush = make, elapsed, flush

    def round(self, call: Callable[[], Any], count: int) -> dict[str, float]:
        first, last = self._make(), self._make()
        start = time.perf_counter()
        first.record()
        for _ in range(count):
            call()
        last.record()
        launched = time.perf_counter()
        last.synchronize()
        done = time.perf_counter()
        return {
            "ms": self._elapsed(first, last) / count,
            "wall_ms": (done - start) / count * 1e3,
            "launch_ms": (launched - start) / count * 1e3,
            "kernel_ms": statistics.median(self._cold(call) for _ in range(min(_COLD_CALLS, count))),
        }

    def _cold(self, call: Callable[[], Any]) -> float:
        first, last = self._make(), self._make()
        self._flush()
        first.record()
        call()
        last.record()
        last.synchronize()
        return self._elapsed(first, last)


def cupy_clock() -> EventClock:
    """Return the clock of CuPy's current stream."""
    import cupy

    waste = cupy.empty(FLUSH_BYTES, cupy.uint8)
    return EventClock(cupy.cuda.Event, cupy.cuda.get_elapsed_time, lambda: waste.fill(0))
