"""What is expected of a GPU, beside what it does: predictions.json, whose numbers a model made before any was run."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("predictions.json")
_STEPS = Path(__file__).with_name("step_times.json")


@functools.cache
def predictions() -> dict[str, Any]:
    """Return the file; of steps also `gpu_ms`, as step_times.json has it for an H200, where it is there."""
    found: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    rows = json.loads(_STEPS.read_text(encoding="utf-8"))["steps"] if _STEPS.exists() else {}
    for step in found["steps"]:
        row = rows.get(f"{step['preset']}-{step['batch']}-{step['precision']}")
        step["gpu_ms"] = None if row is None else row["H200"]["graph"]
    return found


def share(measured: float | None, predicted: float | list[float] | None) -> float | None:
    """Return measured / predicted; of a range, within which is 1, the ratio to its nearer end."""
    if measured is None or predicted is None:
        return None
    low, high = predicted if isinstance(predicted, list) else (predicted, predicted)
    if isinstance(predicted, list) and low <= measured <= high:
        return 1.0
    return round(measured / (low if measured < low else high), 2)
