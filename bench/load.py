"""Other work on the machine: how many of this process's cores it keeps busy, which no ratio of times survives unharmed."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE, _COUNTED = (3, 4), 8  # of a core's line: idle and waiting for a disc; what follows is counted twice
_LOOK_SECONDS = 0.5
NOTEWORTHY = 0.2  # cores


class OtherWork:
    """Counts from when it is made."""

    def __init__(self) -> None:
        self._start = _now()

    def cores(self) -> float | None:
        """Return how many cores other processes have kept busy since; None where the system does not tell.

        Time that a virtual machine was not given counts as well.  Processes started here count as other work until they
        have been waited for.
        """
        end = _now()
        if self._start is None or end is None:
            return None
        seconds, busy, own = (b - a for a, b in zip(self._start, end, strict=True))
        return round(max(0.0, (busy - own) / max(seconds, 1e-9)), 2)


def look() -> float | None:
    """Return how many cores other processes keep busy at this moment, which is half a second long."""
    work = OtherWork()
    time.sleep(_LOOK_SECONDS)
    return work.cores()


def _now() -> tuple[float, float, float] | None:
    """Return seconds: of the clock, of work on the cores this process may use, of its own and its children's work."""
    if not (_STAT.exists() and hasattr(os, "sched_getaffinity")):
        return None
    own = sum(os.times()[:4])
    names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    lines = [line.split() for line in _STAT.read_text(encoding="ascii").splitlines() if line.startswith("cpu")]
    ticks = sum(
        int(value)
        for name, *values in lines
        if name in names
        for place, value in enumerate(values[:_COUNTED])
        if place not in _IDLE
    )
    return time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"), own
