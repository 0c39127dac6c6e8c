"""Run what a GPU would run, with real CuPy, on a machine that has none: `make cupy` and `make cupy-core`.

    python -m tests.ladder.cupy_run [--core] [--processes N] [--compile] [--tests PATH ...]

The kernels are compiled first, in all processes; then pytest runs the cases marked `gpu` (with --core those that CI
runs on every change): work is done as late as CUDA allows it, arrays lie between guard pages, memory that is given back
is NaN again, and there are two GPUs.  A case may be left out for a reason in LEFT_OUT only: that what was collected is
what ran and what is listed so is checked.  Exit status: 0 all passed, 1 something did not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from core_calls import CORE

from . import ROOT
from .ahead import compile_one
from .finished import LINES
from .groups import environment
from .kernel_calls import CALLS, launched

SETTINGS = {
    "CUPY_EMULATED_LAZY": "1",
    "CUPY_EMULATED_GUARD": "1",
    "CUPY_EMULATED_DEVICES": "2",
    "GPUCONV_REQUIRE_GPU": "1",
}
# Why a case that a GPU runs may be left out here, as the test itself says it.
LEFT_OUT: tuple[str, ...] = ()


def emulated(*arguments: str) -> list[str]:
    """Return the command of a Python program whose CuPy works without a GPU."""
    return [sys.executable, "-m", "tests.cupy_emulated", *arguments]


def marked(*, core: bool) -> str:
    """Return what pytest's -m chooses."""
    return "gpu and core" if core else "gpu"


def compile_all(processes: int, *, core: bool) -> int:
    """Compile what the calls launch, in this many processes; return how many kernels that are."""
    wanted = CORE if core else [(name, dtype, memory) for name, call in CALLS.items()
                                for dtype in call.dtypes for memory in call.formats]  # fmt: skip
    todo = {
        (one.kernel.file, one.expression)
        for name, dtype, memory in wanted
        for one in launched([CALLS[name]], (dtype,), (memory,)).values()
    }
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(compile_one, *zip(*sorted(todo), strict=True)))
    return len(todo)


def run_tests(processes: int, places: list[str], lines: Path, *, core: bool) -> int:
    """Run the cases; return pytest's exit status."""
    command = emulated("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", f"{__package__}.finished")
    command += ["-m", marked(core=core), "--durations=10", "-r", "fE", *places]
    if processes > 1:
        command += ["-n", str(processes), "--dist", "worksteal"]
    return subprocess.run(command, cwd=ROOT, env=environment(**SETTINGS, **{LINES: str(lines)}), check=False).returncode


def outcomes(lines: Path) -> tuple[int, dict[str, str], dict[str, list[str]]]:
    """Return how many cases were collected, the outcome of each, and those left out by reason."""
    collected, found, skipped = 0, {}, defaultdict(list)
    for entry in map(json.loads, lines.read_text(encoding="utf-8").splitlines()):
        if "collected" in entry:
            collected = entry["collected"]
        if "test" not in entry:  # a file that cannot be collected is pytest's exit status
            continue
        found[entry["test"]] = entry["outcome"]
        if entry["outcome"] == "skipped":
            skipped[entry["said"].removeprefix("Skipped: ")].append(entry["test"])
    return collected, found, skipped


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    made = argparse.ArgumentParser(
        prog="python -m tests.ladder.cupy_run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--core", action="store_true", help="only what CI runs on every change")
    made.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="processes side by side")
    made.add_argument("--compile", action="store_true", help="only compile, in this process's CuPy")
    made.add_argument("--tests", nargs="*", default=["tests"], help="files or tests (default: all)")
    arguments = made.parse_args(argv)
    if arguments.compile:
        print(f"{compile_all(arguments.processes, core=arguments.core)} kernels are compiled")
        return 0
    start = time.monotonic()
    ahead = emulated("-m", f"{__package__}.cupy_run", "--compile", "--processes", str(arguments.processes))
    ahead += ["--core"] if arguments.core else []
    if status := subprocess.run(ahead, cwd=ROOT, env=environment(**SETTINGS), check=False).returncode:
        print(f"the kernels do not compile: exit status {status}", file=sys.stderr)
        return 1
    compiled = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines.jsonl"
        lines.touch()
        status = run_tests(arguments.processes, arguments.tests, lines, core=arguments.core)
        collected, found, skipped = outcomes(lines)
    ran = [outcome for outcome in found.values() if outcome != "skipped"]
    print(f"\nreal CuPy on the CPU: {collected} cases collected, {len(ran)} ran, {ran.count('passed')} passed")
    for reason, cases in skipped.items():
        known = "left out" if reason in LEFT_OUT else "LEFT OUT FOR NO KNOWN REASON"
        print(f"{known}, {len(cases)}: {reason}", *(f"    {case}" for case in cases), sep="\n")
    print(f"{compiled - start:.0f} s of compiling, {time.monotonic() - compiled:.0f} s of tests")
    complete = collected == len(found) > 0 and set(skipped) <= set(LEFT_OUT)
    return 0 if status == 0 and complete and ran.count("passed") == len(ran) else 1


if __name__ == "__main__":
    sys.exit(main())
