"""The cases of the tests that a GPU runs, in several processes, with results kept as they come."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from . import ROOT
from .finished import LINES
from .groups import run_group
from .work import Work

_PROCESSES, _TIMEOUT = 14, 60  # seconds of one test
# What no GPU has run comes first; last the calls that the section before has held to the same loops.
_FIRST = ("cuda_conv_tensor", "cuda_conv_weight_tensor", "batchnorm_fused", "bfloat16", "precision", "mixed_precision")
_LAST = ("gpu_calls",)
# What a file has in it whose tests take a place that computes: others have no case of a GPU, and take time to collect.
_PLACES = re.compile(r"\bdef \w+\([^)]*\b(?:device|gpu|cuda)\b|\bGPU\b")
_DRY = ("tests/test_relu.py", "tests/test_max_pool_ties.py")  # quick to compile
_BAD = ("failed", "crashed")


def run(work: Work) -> bool | None:
    """Run them, and keep what failed first."""
    lines = work.results / "gpu_run_A_tests.jsonl"
    lines.write_text("", encoding="utf-8")
    places = list(_DRY) if work.dry else in_order()
    if work.dry:
        work.leave_out(f"all tests but those of {', '.join(_DRY)}")
    start = time.monotonic()
    status, out, errors = pytest(places, work.left(), lines, processes=2 if work.dry else _PROCESSES)
    found = summary(lines)
    work.keep(**found, **{"pytest s": round(time.monotonic() - start, 1)})
    passed, bad = found["counts"].get("passed", 0), len(found["failed"])
    shown = f"{found['ran']} of {found['collected']} ran: {passed} passed, {bad} failed, {found['skipped']} skipped"
    work.keep(shown=[shown])
    if status is None:
        work.keep(why=f"not done in {time.monotonic() - start:.0f} s")
    elif status != 0 and not bad and not found["not collected"]:
        work.keep(why=f"pytest ended with status {status}: {' '.join((out + errors).split())[-400:]}")
    well = status == 0 or (status == 1 and _only_packages_are_missing(found))
    return well and not bad and found["ran"] == found["collected"] > 0


def in_order() -> list[str]:
    """Return the files that may have cases of a GPU, those first that tell most where time is spent before all ran."""

    def place(name: str) -> tuple[bool, bool, str]:
        kind = name.removeprefix("test_")
        return kind.startswith(_LAST), not kind.startswith(_FIRST), name

    files = (ROOT / "tests").glob("test_*.py")
    names = sorted((path.stem for path in files if _PLACES.search(path.read_text(encoding="utf-8"))), key=place)
    return [f"tests/{name}.py" for name in names]


def _only_packages_are_missing(found: dict[str, Any]) -> bool:
    """Return whether files could not be collected for want of a package, and for nothing else."""
    missing = found["not collected"]
    return bool(missing) and all("ModuleNotFoundError" in message for message in missing.values())


def pytest(
    places: list[str], seconds: float, lines: Path, *, processes: int = 1, long: bool = False, **variables: str
) -> tuple[int | None, str, str]:
    """Run the GPU's cases of files or tests, in so many processes, each replaced when it dies; lines gets the results."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        f"{__package__}.finished",
    ]
    # A file that lacks a package, for documentation say, has no cases for a GPU and must not stop the others.
    command += ["--continue-on-collection-errors", "-W", "default", f"--tb={'long' if long else 'short'}"]
    several = importlib.util.find_spec("xdist") is not None
    if several:
        command += ["-n", str(processes), "--max-worker-restart", "60"]
    if importlib.util.find_spec("pytest_timeout") is not None:
        # A test that waits for a GPU in C hears no signal: its process must end, and another takes over.
        command += ["--timeout", str(_TIMEOUT), "--timeout-method", "thread" if several else "signal"]
    required = {"GPUCONV_REQUIRE_GPU": "1", "GPUCONV_ALLOW_MISSING_COMPILER": "1", LINES: str(lines)}
    return run_group([*command, *places], seconds, **required, **variables)


def summary(lines: Path) -> dict[str, Any]:
    """Return what a file of results says, the failures first."""
    collected, outcomes, messages, seconds, reasons = 0, {}, {}, Counter[str](), Counter[str]()
    uncollected: dict[str, str] = {}
    for text in lines.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(text)
        except ValueError:  # the last one of a process that was killed
            continue
        if "collected" in entry:
            collected = entry["collected"]
            continue
        if "uncollected" in entry:
            uncollected[entry["uncollected"]] = entry["said"]
            continue
        name = entry["test"]
        seconds[name] += entry["seconds"]
        if outcomes.get(name) not in _BAD:
            outcomes[name] = entry["outcome"]
            messages[name] = entry["said"]
        if entry["outcome"] == "skipped":
            reasons[entry["said"]] += 1
    bad = [name for name, outcome in outcomes.items() if outcome in _BAD]
    counts = Counter(outcomes.values())
    return {
        "failed": bad,
        "messages": {name: messages[name][-1500:] for name in bad[:60]},
        "collected": collected,
        "not collected": uncollected,
        "ran": len(outcomes),
        "skipped": counts["skipped"],
        "counts": dict(counts),
        "reasons": dict(reasons.most_common(20)),
        "slowest": dict(seconds.most_common(10)),
    }
