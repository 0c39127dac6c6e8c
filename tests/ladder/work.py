"""One section in its process: the time it has, and what it found, which is on disk after every step of it."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Exit status of a section whose GPU answers every call with an error from now on: another process goes on.
LOST = 75


@dataclass
class Work:
    """What a section is given, and what it has found so far.

    dry: do a small share of everything, without times.   data: a folder with CIFAR-10, or None; data_name: of a copy.
    after: the JSON of command A, for command B.   scratch: a folder that the sections of a command share.
    results: where files of its own go that outlive the run.
    """

    path: Path
    end: float  # of its time, by time.monotonic()
    dry: bool = False
    data: Path | None = None
    data_name: str = ""
    after: Path | None = None
    scratch: Path = field(default_factory=Path)
    results: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        self.found: dict[str, Any] = read(self.path)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()

    def keep(self, **values: Any) -> None:
        """Add to what was found, and write it."""
        self.found.update(values)
        write(self.path, self.found)

    def fail(self, name: str, error: Exception) -> None:
        """Add a failure."""
        failed = [*self.found.get("failed", []), f"{name}: {type(error).__name__}: {line(error)}"]
        traces = self.found.get("traces", {})
        if len(traces) < 20:
            traces |= {name: traceback.format_exc()[-3000:]}
        self.keep(failed=failed, traces=traces)

    def each(self, items: Sequence[Any], one: Callable[[Any], None], name: Callable[[Any], str] = str) -> bool | None:
        """Do one item after the other until the time is spent; return False if one failed, None if some are left.

        A process that ends in between goes on behind the item it ended in.  An item that leaves the GPU unusable ends
        its process with LOST.
        """
        for place in range(self.found.get("done", 0), len(items)):
            if self.left() <= 0:
                break
            self.keep(done=place + 1, of=len(items), at=name(items[place]))
            try:
                one(items[place])
            except Exception as error:  # noqa: BLE001 - one failure must not hide the others
                self.fail(name(items[place]), error)
                if device_lost():
                    os._exit(LOST)
        else:
            self.found.pop("at", None)
        self.keep(of=len(items))
        if self.found.get("failed"):
            return False
        return True if self.found.get("done", 0) == len(items) else None

    def leave_out(self, *names: str) -> None:
        """Say by name what a dry run does not do."""
        self.keep(**{"left out": list(dict.fromkeys([*self.found.get("left out", []), *names]))})


def device_lost() -> bool:
    """Return whether the GPU refuses everything that this process asks of it, as after an illegal access."""
    import cupy

    try:
        cupy.cuda.runtime.deviceSynchronize()
    except cupy.cuda.runtime.CUDARuntimeError:
        return True
    return False


def read(path: Path) -> dict[str, Any]:
    """Return what a section has kept; nothing of one that kept nothing."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def write(path: Path, found: dict[str, Any]) -> None:
    """Write a file that is whole at every moment."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def line(error: Exception) -> str:
    """Return the first words of an error's message."""
    return " ".join(str(error).split())[:300]
