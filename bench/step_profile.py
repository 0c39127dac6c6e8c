"""Where a training step of a preset spends its time: milliseconds of each layer, forward and backward.

python -m bench.step_profile --preset convnet --batch-size 128 --save bench/results/step-convnet-cpu-DATE.json
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

from gpuconv import ops
from gpuconv.nn.layer import Layer
from gpuconv.runs.machine import machine, versions
from gpuconv.runs.settings import PRESETS, preset
from gpuconv.train import recipe


def profile(name: str, batch_size: int, rounds: int) -> dict[str, Any]:
    """Return the median milliseconds of a step, and of its parts in it, for random images of CIFAR's size."""
    config = preset(name)
    net, rng = recipe.net(config, (3, 32, 32), 10), np.random.default_rng(0)
    optimiser = recipe.optimiser(config, net)
    pixels = rng.standard_normal((batch_size, 32, 32, 3), dtype=np.float32)
    x, labels = pixels.transpose(0, 3, 1, 2), rng.integers(0, 10, batch_size)
    net.prepare(x)
    spent: dict[str, float] = {}
    for layer_name, layer in net.body.leaves():
        _watch(layer, layer_name, spent)

    def step() -> None:
        scores = net.forward(x, training=True)
        _, dscores = ops.softmax_cross_entropy(scores, labels)
        net.backward(dscores)
        start = time.perf_counter()
        optimiser.step(1e-3)
        spent["optimiser"] = time.perf_counter() - start

    steps, parts = [], []
    for number in range(rounds + 2):
        spent.clear()
        start = time.perf_counter()
        step()
        if number >= 2:  # the first two fetch memory and start threads
            steps.append(time.perf_counter() - start)
            parts.append(dict(spent))
    return {
        "preset": name,
        "batch_size": batch_size,
        "rounds": rounds,
        "step_ms": _median_ms(steps),
        "parts_ms": {part: _median_ms([each[part] for each in parts]) for part in parts[0]},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Return a profile as text, the longest parts first."""
    total = found["step_ms"]
    rows = sorted(found["parts_ms"].items(), key=lambda part: -part[1])
    rows.append(("all else", total - sum(found["parts_ms"].values())))
    width = max(len(name) for name, _ in rows)
    head = f"{found['preset']}, batch {found['batch_size']}: {total:.1f} ms a step (median of {found['rounds']})"
    return [head, *(f"{name:<{width}}  {ms:>8.2f} ms  {ms / total:>5.1%}" for name, ms in rows)]


def _watch(layer: Layer, name: str, spent: dict[str, float]) -> None:
    """Let a layer's forward and backward add what they take to `spent`."""

    def timed(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            result = method(*args)
            spent[part] = spent.get(part, 0.0) + time.perf_counter() - start
            return result

        return call

    for direction in ("forward", "backward"):
        setattr(layer, f"_{direction}", timed(f"{name} {direction}", getattr(layer, f"_{direction}")))


def _median_ms(seconds: list[float]) -> float:
    return round(statistics.median(seconds) * 1e3, 3)


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="convnet", help="[convnet]")
    parser.add_argument("--batch-size", metavar="N", type=int, default=128, help="images of a step [128]")
    parser.add_argument("--rounds", metavar="N", type=int, default=30, help="steps measured [30]")
    parser.add_argument("--save", metavar="FILE", type=Path, help="keep it as JSON")
    arguments = parser.parse_args(argv)
    found = profile(arguments.preset, arguments.batch_size, arguments.rounds)
    sys.stdout.write("\n".join(lines(found)) + "\n")
    if arguments.save is not None:
        arguments.save.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
