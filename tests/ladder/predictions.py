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
    rows = json.loads(_STEPS.read_text(encoding="utf-8"))["steps"] if _STEPS.exists() else {}
    for step in found["steps"]:
        row = rows.get(f"{step['preset']}-{step['batch']}-{step['precision']}")
        step |= dict.fromkeys(("gpu_ms", "host_ms", "launches"))
        if row is not None:
            launches = row["H200"]["launches"]
            host_ms = launches * found["host_us_per_launch"] / 1e3
            step |= {"gpu_ms": row["H200"]["graph"], "host_ms": round(host_ms, 3), "launches": launches}
    return found


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
