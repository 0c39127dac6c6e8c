"""The speed cells of the courses' ConvNet notebook, beside what students' notebooks print for them.

    python -m bench.course_speed [--device cpu|cuda] [--rounds 20] [--naive] [--save bench/results/NAME.json]

Inputs, seed and checks are the cells'; a wrong result is not timed.  The cells time with time() and wait for no GPU:
here nothing needs waiting for, since results are back on the host when a call returns.  Published times are medians and
ranges of 41 public notebooks of UCLA's course, run on their authors' machines with the course's compiled layers.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpuconv import compat
from gpuconv.compat.conv_layers import (
    conv_backward_naive,
    conv_forward_naive,
    max_pool_backward_naive,
    max_pool_forward_naive,
)
from gpuconv.compat.fast_layers import (
    conv_backward_fast,
    conv_forward_fast,
    max_pool_backward_fast,
    max_pool_forward_fast,
)
from gpuconv.runs.machine import machine, versions

# Milliseconds.  Speed-ups: what the notebook says for "our machine", and the highest that any of the 41 prints.
PUBLISHED = {
    "conv forward": {"fast": {"median": 14.4, "range": [3.3, 151]}, "naive": {"median": 4060, "range": [120, 18400]}},
    "conv backward": {"fast": {"median": 9.5, "range": [4.4, 3400]}, "naive": {"median": 6700, "range": [220, 17600]}},
    "pool forward": {"fast": {"median": 3.0}},
    "speed-ups": {"conv forward": {"stated": 17, "highest": 790}, "conv backward": {"stated": 840, "highest": 1328}},
}
CONV, POOL = {"stride": 2, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}

# Sums of absolute values of the results, computed once with float64 code that is not this one.
SUMS = {"conv forward": 2621193.12166, "conv backward": 1664528.26428, "pool backward": 61113.1214807}


def cells() -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return the fast and the naive call of every timed line of the cells."""
    draw = np.random.RandomState(231)
    x, w, b = draw.randn(100, 3, 31, 31), draw.randn(25, 3, 3, 3), draw.randn(25)
    dout = draw.randn(100, 25, 16, 16)
    cache = conv_forward_fast(x, w, b, CONV)[1]
    draw = np.random.RandomState(231)
    pool_x, pool_dout = draw.randn(100, 3, 32, 32), draw.randn(100, 3, 16, 16)
    pool_cache = max_pool_forward_fast(pool_x, POOL)[1]
    return {
        "conv forward": (lambda: conv_forward_fast(x, w, b, CONV)[0], lambda: conv_forward_naive(x, w, b, CONV)[0]),
        "conv backward": (
            lambda: conv_backward_fast(dout, cache)[0],
            lambda: conv_backward_naive(dout, (x, w, b, CONV))[0],
        ),
        "pool forward": (
            lambda: max_pool_forward_fast(pool_x, POOL)[0],
            lambda: max_pool_forward_naive(pool_x, POOL)[0],
        ),
        "pool backward": (
            lambda: max_pool_backward_fast(pool_dout, pool_cache),
            lambda: max_pool_backward_naive(pool_dout, (pool_x, POOL)),
        ),
    }


def measure(rounds: int, *, naive: bool) -> dict[str, Any]:
    """Time every cell: medians and quartiles of `rounds` fast calls and, if asked for, one naive call."""
    found: dict[str, Any] = {}
    for name, (fast, slow) in cells().items():
        result = fast()
        if name in SUMS and abs(np.abs(result).sum() / SUMS[name] - 1) > 1e-9:
            msg = f"{name} is wrong: sum of absolute values {np.abs(result).sum()!r}, expected {SUMS[name]!r}"
            raise SystemExit(msg)
        times = [_milliseconds(fast)[0] for _ in range(rounds)]
        low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
        found[name] = {"fast_ms": middle, "quartiles_ms": [low, high], "first_ms": times[0]}
        if naive:
            took, expected = _milliseconds(slow)
            apart = np.abs(result - expected) / np.maximum(1e-8, np.abs(result) + np.abs(expected))
            found[name] |= {"naive_ms": took, "speed_up": took / middle, "difference": float(apart.max())}
    return found


def _milliseconds(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return 1e3 * (time.perf_counter() - start), result


def report(found: dict[str, Any], save: Path | None) -> None:
    """Print what was found, with date, machine and versions, as JSON; keep it in a file where one is named."""
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    text = json.dumps({**found, "date": when, "machine": machine(), "versions": versions()}, indent=1) + "\n"
    sys.stdout.write(text)
    if save:
        save.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "auto"))
    parser.add_argument("--rounds", type=int, default=20, help="timed calls of each fast function, at least 2")
    parser.add_argument("--naive", action="store_true", help="time the naive functions too: about half a minute")
    parser.add_argument("--save", type=Path, help="write the result to this JSON file")
    arguments = parser.parse_args()
    compat.use(arguments.device)
    report({"cells": measure(max(2, arguments.rounds), naive=arguments.naive), "published": PUBLISHED}, arguments.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
