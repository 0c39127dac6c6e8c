"""What one training step of each preset asks of CUDA: launches, copies, allocations, waits; counted by real CuPy's trace.

    python -m tests.ladder.step_counts [--write | --check] [PRESET-PRECISION ...]

Without a flag the counts are shown; --check holds them to step_counts.json beside this file and says what changed;
--write makes that file.  The nets have 16 filters a layer, so that convolutions take the kernels of wide nets, and the
counts do not depend on widths or on the batch size.  A step is counted from the choice of its pictures to the update
of the weights, in the middle of an epoch; two in a row must ask for the same.

Of each step: `own` kernels and those of `CuPy` by name, matrix `products`, `copies` by direction, `memsets`; and
`allocations` from CuPy's pool, most of which reach no CUDA.  `waits` are the times that the host waits for the device:
a copy to the host is one.  That is of a step without a graph.  `replayed` is what the same step asks for as one: `graphs`
that are launched, their `nodes` by kind, and whatever else there is.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_suffix(".json")
_ROOT = Path(__file__).resolve().parents[2]
_NARROW: dict[str, dict[str, Any]] = {
    "convnet": {"widths": (16, 16, 16)},
    "three-layer": {"filters": 16, "hidden": 16},
    "vgg": {"widths": (16,) * 4},
    "resnet9": {"widths": (16,) * 4},
    "resnet18": {"widths": (16,) * 4},
    "speedrun": {"widths": (16,) * 3},
}
_PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
CASES = tuple(f"{preset}-{precision}" for preset in _NARROW for precision in _PRECISIONS)
# Steps: the first compile kernels and make what is kept; a third, where there is a graph, is recorded.
_WARM = {"off": 2, "on": 3}
_COUNTED = 2

Counts = dict[str, Any]


def count(cases: Iterable[str] = CASES, **settings: Any) -> dict[str, Counts]:
    """Return what a step of each case asks for; settings: of the runs, as those of `gpuconv.train.Config`."""
    chosen = list(cases)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.jsonl"
        environment = {name: text for name, text in os.environ.items() if not name.startswith("CUPY_EMULATED_")}
        kept = {name: os.environ[name] for name in ("CUPY_EMULATED_CACHE",) if name in os.environ}
        command = ["-m", "tests.cupy_emulated", "-m", "tests.ladder.step_counts", "--inside", json.dumps(settings)]
        done = subprocess.run(
            [sys.executable, *command, *chosen],
            cwd=_ROOT,
            env={**environment, **kept, "CUPY_EMULATED_TRACE": str(trace)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        steps = _steps(map(json.loads, trace.read_text(encoding="utf-8").splitlines()))
    allocations = json.loads(done.stdout.splitlines()[-1])
    counts: dict[str, Counts] = {}
    for turn, (case, graph) in enumerate(_turns(chosen)):
        of_case = slice(turn * _COUNTED, (turn + 1) * _COUNTED)
        in_a_row = [
            {**_counted(events), "allocations": number}
            for events, number in zip(steps[of_case], allocations[of_case], strict=True)
        ]
        if len(in_a_row) != _COUNTED or any(step != in_a_row[0] for step in in_a_row):
            msg = f"{case}, graph {graph}: steps in a row ask for different things: {in_a_row}"
            raise RuntimeError(msg)
        if graph == "off":
            counts[case] = in_a_row[0]
        else:
            counts[case]["replayed"] = in_a_row[0]
    return counts


def _turns(cases: Iterable[str]) -> list[tuple[str, str]]:
    """Return the runs that are counted, in order: (case, graph)."""
    return [(case, graph) for case in cases for graph in _WARM]


def differences(old: Mapping[str, Counts], new: Mapping[str, Counts], *, by_name: bool = True) -> list[str]:
    """Return what changed, a line each; by_name=False adds CuPy's kernels up, whose names change with its versions."""
    said = []
    for case in sorted({*old, *new}):
        before, after = (_flat(table.get(case, {}), by_name=by_name) for table in (old, new))
        for name in sorted({*before, *after}):
            if before.get(name, 0) != after.get(name, 0):
                said.append(f"{case}: {name}: {after.get(name, 0)}, was {before.get(name, 0)}")
    return said


def read() -> dict[str, Any]:
    """Return the table that is kept: CuPy's version, and the counts by case."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


def cupy_version() -> str:
    """Return the version of CuPy that is installed, "" for none."""
    for name in ("cupy-cuda13x", "cupy-cuda12x"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def check(cases: Iterable[str] = CASES) -> list[str]:
    """Return how the code of now differs from the table."""
    kept, chosen = read(), list(cases)
    old = {case: counts for case, counts in kept["steps"].items() if case in chosen}
    return differences(old, count(chosen), by_name=kept["CuPy"] == cupy_version())


def _flat(counts: Counts, *, by_name: bool) -> dict[str, int]:
    flat: dict[str, int] = {}
    for kind, value in counts.items():
        if not isinstance(value, dict):
            flat[kind] = value
        elif kind == "replayed":
            flat |= {f"replayed {name}": number for name, number in _flat(value, by_name=by_name).items()}
        elif kind == "CuPy" and not by_name:
            flat["CuPy's kernels"] = sum(value.values())
        else:
            flat |= {f"{kind} {name}": number for name, number in value.items()}
    return flat


def _steps(events: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return the events of each step: those between the profiler's start and stop."""
    steps, counting = [], False
    for event in events:
        if event["event"] == "profiler":
            counting = bool(event["on"])
            if counting:
                steps.append([])
        elif counting:
            steps[-1].append(event)
    return steps


def _counted(events: list[Mapping[str, Any]]) -> Counts:
    from gpuconv import cuda
    from gpuconv.cuda.kernel import Kernel

    del cuda  # imported for its kernels
    own, of_cupy, copies, number, nodes = Counter(), Counter(), Counter(), Counter(), Counter()
    before: Mapping[str, Any] = {"event": ""}
    for event in events:
        kind = event["event"]
        if kind == "launch":
            name = event["kernel"].partition("<")[0]
            (own if name in Kernel.all else of_cupy)[name] += 1
        elif kind == "copy":
            copies[event["kind"]] += 1
            number["waits"] += event["waits"]
        elif kind == "wait" and not (before["event"] == "copy" and before["waits"]):  # CuPy waits once more for a copy
            number["waits"] += 1
        elif kind in ("product", "memset"):
            number[f"{kind}s"] += 1
        elif kind == "graph":
            number["graphs"] += 1
            nodes.update({name.removesuffix(" nodes"): of for name, of in event.items() if name.endswith(" nodes")})
        before = event
    return {
        "launches": sum(own.values()) + sum(of_cupy.values()) + number["products"],
        "own": dict(sorted(own.items())),
        "CuPy": dict(sorted(of_cupy.items())),
        "copies": dict(sorted(copies.items())),
        **{name: number[name] for name in ("products", "memsets", "waits")},
        **({"graphs": number["graphs"], "nodes": dict(sorted(nodes.items()))} if number["graphs"] else {}),
    }


def _inside(cases: list[str], settings: dict[str, Any]) -> None:
    """Run the steps in a process whose CuPy is traced; write how many allocations each made."""
    import cupy

    from gpuconv import backend, data
    from gpuconv.show.terminal import Progress
    from gpuconv.train import PRESETS, start

    pool, asked = cupy.get_default_memory_pool(), Counter()

    def counted(size: int) -> Any:
        asked["allocations"] += 1
        return pool.malloc(size)

    cupy.cuda.set_allocator(counted)
    small: dict[str, Any] = {"data": "shapes", "device": "cuda", "batch_size": 2, "validation": 0}
    allocations = []
    for case, graph in _turns(cases):
        preset, _, precision = case.rpartition("-")
        config = dataclasses.replace(
            PRESETS[preset], **{**small, **_NARROW[preset], **settings}, precision=precision, graph=graph, epochs=1
        )
        warm = _WARM[graph]
        with backend.using("cuda"):
            run = start.begin(config, data.draw_shapes((warm + _COUNTED + 1) * config.batch_size, 10), Progress())
            if run.stepper.arithmetic.scale is not None:
                run.stepper.arithmetic.scale.value = (
                    64.0  # no gradient is beyond float16: a step that is skipped asks for less
                )
            with run.feed:
                batches = run.feed.epoch(0, 0, warm + _COUNTED)
                for number in range(warm + _COUNTED):
                    before = asked["allocations"]
                    if number >= warm:
                        gc.collect()  # what is left of the run before: to free a recording's memory is to wait
                        cupy.cuda.runtime.profilerStart()
                    run.step(next(batches))
                    cupy.cuda.runtime.profilerStop()
                    run.position.step += 1
                    run.position.steps += 1
                    if number >= warm:
                        allocations.append(asked["allocations"] - before)
    sys.stdout.write(json.dumps(allocations) + "\n")


def main() -> int:
    """Show, write or check the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", metavar="PRESET-PRECISION", nargs="*", default=list(CASES), help="of these steps only")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--write", action="store_true", help=f"make {TABLE.name}")
    how.add_argument("--check", action="store_true", help=f"compare with {TABLE.name}; exit status 1 if it differs")
    how.add_argument("--inside", metavar="SETTINGS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := [case for case in arguments.cases if case not in CASES]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(CASES)}")
    if arguments.inside is not None:
        _inside(arguments.cases, json.loads(arguments.inside))
        return 0
    if arguments.check:
        said = check(arguments.cases)
        sys.stdout.write("".join(f"{line}\n" for line in said) or "as they were\n")
        return 1 if said else 0
    counts = count(arguments.cases)
    if arguments.write:
        steps = {**(read()["steps"] if TABLE.exists() else {}), **counts}
        steps = {name: steps[name] for name in CASES if name in steps}
        text = json.dumps({"CuPy": cupy_version(), "steps": steps}, indent=1)
        TABLE.write_text(text + "\n", encoding="utf-8")
    else:
        sys.stdout.write(json.dumps(counts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
