"""Everything that only a machine with a GPU can tell, in under 8 minutes: one script, one table, one JSON file.

    python -m bench.gpu_run [--data-dir FOLDER] [--out FILE] [--only TEXT] [--dry-run]

Each section runs in a process of its own, with a time limit, so that a failure, a hang or a broken CUDA context hides
nothing else.  Exit status: 0 all well, 1 something failed, 3 no usable GPU.  Not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpuconv.cuda.device import gpu_status

ROOT = Path(__file__).resolve().parents[1]
_NO_GPU = 3


class Gpu:
    """conftest's face of the GPU, for the calls of tests/kernel_calls.py."""

    @staticmethod
    def array(a: np.ndarray) -> Any:
        from conftest import Cuda

        return Cuda.array(a)

    @staticmethod
    def numpy(a: Any) -> np.ndarray:
        import cupy

        return cupy.asnumpy(a, order="K")


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the run: `work` gets the command line and its seconds, and returns what to keep, `ok` among it."""

    name: str
    seconds: int  # its share of the time; together less than 8 minutes
    says: str
    work: Callable[[argparse.Namespace, float], dict[str, Any]]


def _machine(arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    import cupy

    runtime = cupy.cuda.runtime
    found = runtime.getDeviceProperties(0)
    return {
        "ok": True,
        "gpu": found["name"].decode(),
        "compute capability": f"{found['major']}.{found['minor']}",
        "multiprocessors": found["multiProcessorCount"],
        "memory GB": round(found["totalGlobalMem"] / 1e9, 1),
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
        "status": gpu_status()[1],
        "cupy": cupy.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "gpuconv": importlib.metadata.version("gpuconv"),
    }


def _tests(arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Run the tests whose device is the GPU."""
    from .gpu_checks import run_group

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "cuda and not emulated", "tests"]
    status, out, _ = run_group(command, seconds - 2, GPUCONV_REQUIRE_GPU="1")
    if status is None:
        return {"ok": False, "why": f"not done in {seconds:.0f} s", **counts_of(out)}
    return {"ok": status == 0, **counts_of(out)}


def counts_of(output: str) -> dict[str, Any]:
    """Return what pytest's last line counts, and the tests that failed."""
    lines = output.splitlines() or [""]
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", lines[-1])}
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {**counts, "failures": failed[:40]}


def _random(arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    from . import gpu_checks

    return gpu_checks.random_cases(Gpu, arguments.cases, seconds)


def _sanitizer(arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    from . import gpu_checks

    return gpu_checks.sanitize(seconds)


def _repeats(arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    from . import gpu_checks

    return gpu_checks.repeats(Gpu, arguments.repeats, seconds)


def _memory(arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    from . import gpu_checks

    return gpu_checks.out_of_memory(Gpu)


def _large(arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    from . import gpu_checks

    return gpu_checks.large(seconds)


def _timings(arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    from . import gpu_timing

    return {"ok": True, **gpu_timing.timings(seconds)}


def _losses(arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Train the same few steps on the CPU and on the GPU; return both courses of the loss."""
    short = {"epochs": 3, "train_images": 2560, "test_images": 512, "validation": 512}
    courses = {device: _trained(arguments, device=device, **short) for device in ("cpu", "cuda")}
    losses = {device: [row["train_loss"] for row in run.metrics] for device, run in courses.items()}
    apart = [abs(a - b) / abs(a) for a, b in zip(*losses.values(), strict=True)]
    # Roundings grow from step to step: the first epoch agrees closely, the later ones in their course.
    return {"ok": apart[0] < 1e-3 and max(apart) < 0.1, "data": courses["cpu"].data, "losses": losses, "apart": apart}


def _training(arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Train the default preset on the GPU: seconds an epoch, and accuracy."""
    run = _trained(arguments, device="cuda")
    each = [row["seconds"] for row in run.metrics]
    return {
        "ok": run.test_accuracy > 0.5,
        "data": run.data,
        "seconds per epoch": each,
        "images per second": run.images_per_second,
        "test accuracy": run.test_accuracy,
    }


def _trained(arguments: argparse.Namespace, **settings: Any) -> Any:
    from gpuconv.train import PRESETS, train

    if arguments.data_dir is None:
        settings |= {"data": "shapes"}
    else:
        settings |= {"data": "cifar10", "data_dir": str(arguments.data_dir), "download": False}
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(PRESETS[arguments.preset], **settings)
        return train(config, folder=Path(folder) / "run", progress="none")


SECTIONS = [
    Section("machine", 15, "GPU, driver and libraries", _machine),
    Section("tests", 110, "all tests on the GPU, GPUCONV_REQUIRE_GPU=1", _tests),
    Section("random cases", 60, "random calls beside the float64 oracle", _random),
    Section("sanitizer", 75, "compute-sanitizer's four tools over every kernel, with planted faults", _sanitizer),
    Section("repeats", 40, "every call again and again, bit for bit", _repeats),
    Section("out of memory", 10, "a refused allocation, and the call after it", _memory),
    Section("large", 40, "2^31 elements, 131,072 images, 100,000 channels", _large),
    Section("timings", 70, "each operator beside PyTorch and the copy bandwidth", _timings),
    Section("losses", 20, "the same steps on the CPU and the GPU", _losses),
    Section("training", 35, "the trainer: seconds per epoch, accuracy", _training),
]


def run_section(section: Section, command_line: list[str], start: float, limit: float) -> dict[str, Any]:
    """Run a section in a process of its own; return its result, whatever happens."""
    left = min(section.seconds, limit - (time.monotonic() - start))
    if left < 2:
        return {"ok": None, "why": "not run: time was spent"}
    from .gpu_checks import run_group

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "result.json"
        command = [sys.executable, "-m", "bench.gpu_run", *command_line]
        command += ["--child", section.name, "--seconds", f"{left:.0f}", "--out", str(kept)]
        status, _, errors = run_group(command, left + 10)
        said = f"ended with status {status}" if status is not None else f"did not end in {left + 10:.0f} s"
        ended = f"{said}: {' '.join(errors.split())[-500:]}"
        result = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {"ok": False, "why": ended}
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def _child(arguments: argparse.Namespace) -> int:
    """Be the process of one section, or the program that compute-sanitizer watches."""
    if arguments.child.startswith("fault-") or arguments.child == "every-kernel":
        import cupy

        from . import gpu_checks

        if arguments.child == "every-kernel":
            cupy.cuda.set_allocator(None)  # each array its own allocation, so that the tool sees where it ends
            gpu_checks.every_kernel(Gpu)
        else:
            gpu_checks.run_fault(arguments.child.removeprefix("fault-"))
        return 0
    section = next(section for section in SECTIONS if section.name == arguments.child)
    try:
        result = section.work(arguments, arguments.seconds)
    except Exception as error:  # noqa: BLE001 - the parent goes on with the next section
        said = " ".join(str(error).split())[:500]
        result = {"ok": False, "why": f"{type(error).__name__}: {said}", "trace": traceback.format_exc()}
    arguments.out.write_text(json.dumps(result), encoding="utf-8")
    return 0


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return one line a section, and of the timings the shares that matter."""
    words = {True: "ok", False: "FAILED", None: "not measured"}
    lines = ["", f"{'section':16s} {'result':13s} {'seconds':>7s}  found"]
    for name, result in results.items():
        found = {key: value for key, value in result.items() if key not in ("ok", "seconds", "trace", "rows")}
        shown = "  ".join(f"{key}: {value}" for key, value in found.items())
        lines.append(f"{name:16s} {words[result['ok']]:13s} {result.get('seconds', 0):7.1f}  {shown[:150]}")
    for row in results.get("timings", {}).get("rows", []):
        beside = f"torch {row['torch_ms']:9.4f} ms  ratio {row['ratio']:6.2f}" if "torch_ms" in row else ""
        lines.append(
            f"{row['case']:38s} {row['dtype']} {row['memory']} {row['direction']:8s} {row['gpuconv_ms']:9.4f} ms  "
            f"{row['share of copy bandwidth']:5.0%} of copying  {beside}"
        )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench.gpu_run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data-dir", type=Path, help="folder of CIFAR-10 (without: the built-in shapes)")
    made.add_argument("--preset", default="convnet", help="recipe that the trainer runs (default convnet)")
    made.add_argument("--out", type=Path, help="JSON file (default: gpu_run.json in $OUT, else in bench/results)")
    made.add_argument("--only", default="", help="sections whose name contains this text")
    made.add_argument("--cases", type=int, default=2000, help="random cases (default 2000)")
    made.add_argument("--repeats", type=int, default=100, help="runs of each call (default 100)")
    made.add_argument("--limit", type=float, default=470, help="seconds for all of it (default 470)")
    made.add_argument("--dry-run", action="store_true", help="list the sections and end")
    made.add_argument("--child", help=argparse.SUPPRESS)
    made.add_argument("--seconds", type=float, default=0, help=argparse.SUPPRESS)
    return made


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    arguments = parser().parse_args(argv)
    chosen = [section for section in SECTIONS if arguments.only in section.name]
    if arguments.dry_run:
        for section in chosen:
            print(f"{section.name:16s} up to {section.seconds:3d} s  {section.says}")
        return 0
    usable, reason = gpu_status()
    if not usable:
        print(f"bench.gpu_run needs a GPU: {reason}", file=sys.stderr)
        return _NO_GPU
    if arguments.child:
        return _child(arguments)
    passed_on = ["--preset", arguments.preset, "--cases", str(arguments.cases), "--repeats", str(arguments.repeats)]
    if arguments.data_dir is not None:
        passed_on += ["--data-dir", str(arguments.data_dir.resolve())]
    out = arguments.out or Path(os.environ.get("OUT", ROOT / "bench" / "results")) / "gpu_run.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    start, results = time.monotonic(), {}
    for section in chosen:
        results[section.name] = run_section(section, passed_on, start, arguments.limit)
        print(f"{section.name}: {results[section.name]['ok']}", flush=True)
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        out.write_text(json.dumps({"date": date, "sections": results}, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    print(f"\n{time.monotonic() - start:.0f} s; written to {out}")
    return int(any(result["ok"] is False for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
