"""What is expected of a GPU, beside what it does: predictions.json and, of our own layers and steps, the tables of a model.

None of these numbers was measured.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("predictions.json")
_STEPS = Path(__file__).with_name("step_times.json")
_LAYERS = Path(__file__).with_name("layer_times.json")


@functools.cache
def predictions() -> dict[str, Any]:
    """Return the file, and of an H200: of layers `us`, by regime and pass; of steps `gpu_ms`, `host_ms`, `launches`.

    A layer that is in no table has no `us`, a step None.
    """
    found: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    of_layers = json.loads(_LAYERS.read_text(encoding="utf-8"))["layers"] if _LAYERS.exists() else {}
    for layer in (*found["layers"], *found["passes"]):
        layer["us"] = of_layers.get(layer["name"], {})
    for step in found["steps"]:
        row = _of_step(step["preset"], step["batch"], step["precision"])
        launches = None if row is None else row["launches"]
        host_ms = None if launches is None else round(launches * found["host_us_per_launch"] / 1e3, 3)
        step |= {"gpu_ms": None if row is None else row["graph"], "host_ms": host_ms, "launches": launches}
    return found


def step_ms(preset: str, batch: int, precision: str) -> float | None:
    """Return the milliseconds of a step as one graph, None where step_times.json has no such step."""
    row = _of_step(preset, batch, precision)
    return None if row is None else float(row["graph"])


def _of_step(preset: str, batch: int, precision: str) -> dict[str, Any] | None:
    rows = json.loads(_STEPS.read_text(encoding="utf-8"))["steps"] if _STEPS.exists() else {}
    row: dict[str, Any] | None = rows.get(f"{preset}-{batch}-{precision}", {}).get("H200")
    return row


def floor_us(flop: float, bytes_: float, regime: str) -> float:
    """Return the microseconds below which an H200 cannot do so much arithmetic of a regime, and move so many bytes."""
    rates = predictions()["rates"]
    return max(flop / rates[f"GFLOP/s {regime}"], bytes_ / rates["GB/s"]) / 1e3


def share(measured: float | None, predicted: float | list[float] | None) -> float | None:
    """Return measured / predicted; of a range, within which is 1, the ratio to its nearer end."""
    if measured is None or predicted is None:
        return None
    low, high = predicted if isinstance(predicted, list) else (predicted, predicted)
    if isinstance(predicted, list) and low <= measured <= high:
        return 1.0
    return round(measured / (low if measured < low else high), 2)
