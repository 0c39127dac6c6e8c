"""How the cases end that others test their operators with, and the records of that in bench/results."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpuconv.errors import GpuconvError
from gpuconv.version import gpuconv_version

from . import ROOT

RESULTS = ROOT / "bench" / "results"

INTEGERS = "integer dtype"


class Refused(Exception):
    """Raised where gpuconv has no words for what a case asks; the message is a reason that is counted."""


class Outcome(NamedTuple):
    """How a case ends: "right", "adapted" (right, with a batch axis of one made for it), "refused" or "wrong"; and why."""

    how: str
    why: str = ""


def is_of_integers(error: GpuconvError, x: Any) -> bool:
    """Return whether an error says no more than that gpuconv computes no integers."""
    return x.dtype.kind in "iu" and isinstance(error, TypeError)


def total(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Return how many cases end each way; of those refused, by the reason, the most frequent first."""
    every = list(outcomes)
    counts = Counter(outcome.how for outcome in every)
    refused = Counter(outcome.why for outcome in every if outcome.how == "refused")
    return {"right": counts["right"], "refused": dict(refused.most_common()), "wrong": counts["wrong"]}


def stamp(**versions: str) -> dict[str, str]:
    """Return what a record begins with: the day, and the versions of what was counted."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": today, "gpuconv": gpuconv_version(), **versions, "numpy": np.__version__}


def newest(kind: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """Return the newest record of a kind ("onnx-cases"), or None."""
    paths = sorted(folder.glob(f"{kind}-*.json"))
    return json.loads(paths[-1].read_text(encoding="utf-8")) if paths else None


def save(found: dict[str, Any], kind: str, file: str) -> Path:
    """Write a record to a file, or, where that is "", to bench/results under its kind and day; return where."""
    path = Path(file or RESULTS / f"{kind}-{found['date']}.json")
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return path
