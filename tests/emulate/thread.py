"""Whether this thread's work is being recorded, which gpuconv says: without it, nothing is."""

from __future__ import annotations

import sys
from typing import Any

_MODULE = "gpuconv.cuda.recording"  # not imported here: the emulator runs without gpuconv


def active() -> Any:
    """Return the recording that this thread's work goes to, None where it is done at once."""
    known = sys.modules.get(_MODULE)
    return None if known is None else known.active()


def forbid(what: str, instead: str) -> None:
    """Raise gpuconv's RecordingError where this thread's work is being recorded."""
    known = sys.modules.get(_MODULE)
    if known is not None:
        known.forbid(what, instead)
