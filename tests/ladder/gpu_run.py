"""All that only a machine with a GPU can tell, in two commands of 300 and 240 seconds.

    python -m tests.ladder.gpu_run A [--data FOLDER]    compile, every kernel, the tests, times, training steps, training
    python -m tests.ladder.gpu_run B [--after FILE]     what failed in A, Hopper's layouts, sanitizer, memory, counters

Each section runs in a process of its own and writes what it finds as it finds it, so that a failure, a hang, a broken
CUDA context or the end of the time hides nothing else.  Exit status: 0 all well, 1 something failed, 3 no usable GPU.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuconv.cuda.device import gpu_status

from . import ROOT
from .groups import run_section_group
from .predictions import predictions
from .work import LOST, Work, line, read, write

RESULTS = ROOT / "bench" / "results"
_NO_GPU = 3
_MOST_PROCESSES = 8  # for one section whose processes die
_START = 5.0  # seconds that a process needs before it does anything of use
_RESERVE = 3.0  # between the moment a section should end by itself and the moment it is ended
_LOG = 100_000  # characters of a process that the log keeps


@dataclass(frozen=True)
class Section:
    """A part of a command; `work` names the function that does it, as module:function of this folder."""

    name: str
    seconds: int  # its share of the time; what others leave is shared among those that follow
    about: str
    work: str

    def function(self) -> Any:
        module, _, name = self.work.partition(":")
        return getattr(importlib.import_module(f".{module}", __package__), name)


COMMANDS = {
    "A": [
        Section("machine", 10, "GPU, driver, libraries", "machine:machine"),
        Section(
            "compile", 36, "every kernel into CuPy's cache, in parallel; CIFAR-10 is unpacked", "ahead:compile_all"
        ),
        Section("smoke", 24, "every call of every kernel once in each dtype, beside the oracle", "calls:smoke"),
        Section("tests", 70, "pytest -m gpu in 14 processes, new kernels first", "gpu_tests:run"),
        Section(
            "kernels", 60, "layers by graph replay in float32, TF32 and 16 bits, ours and PyTorch's", "kernels:run"
        ),
        Section(
            "steps", 44, "training steps in the same regimes, replayed beside PyTorch's; time on the host", "steps:run"
        ),
        Section("training", 44, "convnet and speedrun from end to end", "training:run"),
    ],
    "B": [
        Section("compile", 25, "what is not in CuPy's cache yet", "ahead:compile_all"),
        Section("failed", 26, "what failed in A, with CUDA_LAUNCH_BLOCKING=1 and GPUCONV_DEBUG=1", "failed:run"),
        Section("hopper", 30, "the emulator's examples of tensor cores and TMA", "hopper:run"),
        Section("warpgroups", 22, "convolution by warpgroups, off by default, beside that by warps", "warpgroups:run"),
        Section("sanitizer", 48, "memcheck and racecheck over quick calls, after planted faults", "sanitizer:run"),
        Section("repeats", 15, "quick calls again and again, bit for bit", "calls:repeats"),
        Section("random", 15, "random calls beside the oracle", "calls:random_calls"),
        Section("memory", 5, "a refused allocation, and the call after it", "memory:refused"),
        Section("large", 27, "2^31 elements, 131,072 images, 100,000 channels", "memory:large"),
        Section("counters", 15, "hardware counters of four kernels in float32 and float16, by ncu", "counters:run"),
    ],
}
# Seconds for all of a command, of 300 and 240: what is left is for Python to start, and for the table at the end.
LIMITS = {"A": 288.0, "B": 228.0}
_DRY_LIMIT = 1800.0  # without a GPU one takes as long as it takes

Results = dict[str, dict[str, Any]]


def run_section(section: Section, arguments: argparse.Namespace, seconds: float, scratch: Path, log: Path) -> Any:
    """Run a section, in another process wherever one ends before it should; return what was found, whatever happens."""
    began, kept = time.monotonic(), scratch / f"{section.name}.kept"
    ended: list[dict[str, Any]] = []
    while True:
        left = seconds - (time.monotonic() - began)
        done = read(kept).get("done", 0)
        command = [sys.executable, "-m", f"{__package__}.gpu_run", arguments.command, *passed_on(arguments)]
        command += ["--section", section.name, "--until", f"{began + seconds - _RESERVE:.3f}"]
        command += ["--kept", str(kept), "--scratch", str(scratch)]
        status, out, errors = run_section_group(command, left, scratch / "groups")
        with log.open("a", encoding="utf-8") as file:
            file.write(f"==== {section.name}: status {status}\n{out[-_LOG:]}{errors[-_LOG:]}\n")
        found = read(kept)
        if status == 0 and "ok" in found:
            break
        reason = "did not end in its time" if status is None else f"its process ended with status {status}"
        ended.append({"why": reason, "at": found.get("at"), "said": " ".join(errors.split())[-500:]})
        left = seconds - (time.monotonic() - began)
        if status is None or len(ended) == _MOST_PROCESSES or found.get("done", 0) == done or left < 2 * _START:
            break
    if ended:
        found = {**found, "ok": False, "ended": ended}
        if any(end["why"] != f"its process ended with status {LOST}" for end in ended):
            found.setdefault("why", ended[-1]["why"] + (f", at {ended[-1]['at']}" if ended[-1]["at"] else ""))
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def passed_on(arguments: argparse.Namespace) -> list[str]:
    """Return the part of the command line that sections need."""
    given = ["--out", str(arguments.out)]
    if arguments.dry_run:
        given += ["--dry-run"]
    if arguments.data_name:
        given += ["--data-name", arguments.data_name]
    for name in ("data", "after"):
        if (value := getattr(arguments, name)) is not None:
            given += [f"--{name}", str(value.resolve())]
    return given


def _child(arguments: argparse.Namespace) -> int:
    """Be the process of one section."""
    section = next(section for section in COMMANDS[arguments.command] if section.name == arguments.section)
    work = Work(
        arguments.kept,
        arguments.until,
        dry=arguments.dry_run,
        data=arguments.data,
        data_name=arguments.data_name,
        after=arguments.after,
        scratch=arguments.scratch,
        results=arguments.out,
    )
    try:
        ok = section.function()(work)
    except Exception as error:  # noqa: BLE001 - the parent goes on with the next section
        work.keep(ok=False, why=f"{type(error).__name__}: {line(error)}", trace=traceback.format_exc()[-5000:])
    else:
        work.keep(ok=ok)
    return 0


_WORDS = {True: "ok", False: "FAILED", None: "not measured"}
_UNSHOWN = (
    "ok",
    "seconds",
    "shown",
    "done",
    "of",
    "at",
    "failed",
    "traces",
    "trace",
    "ended",
    "why",
    "left out",
    "rows",
)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def table(results: Results) -> str:
    """Return a line for each section, then what they want shown, then the failures."""
    lines = ["", f"{'section':10s} {'result':13s} {'seconds':>7s}  found"]
    for name, result in results.items():
        found = [f"{result[key]}" for key in ("why",) if key in result]
        if "of" in result:
            found.append(f"{result.get('done', 0)} of {result['of']}")
        if result.get("failed"):
            found.append(f"{len(result['failed'])} failed")
        found += [
            f"{key}: {value}"
            for key, value in result.items()
            if key not in _UNSHOWN and isinstance(value, (str, int, float))
        ]
        lines.append(f"{name:10s} {_WORDS[result['ok']]:13s} {result.get('seconds', 0):7.1f}  {', '.join(found)[:160]}")
    for name, result in results.items():
        if result.get("shown"):
            lines += ["", f"{name}:", *(f"  {message}"[:170] for message in result["shown"])]
    failed = [f"  {name}: {message}"[:300] for name, result in results.items() for message in result.get("failed", [])]
    if failed:
        lines += ["", f"failed, {len(failed)}:", *failed[:12]]
    left_out = [f"{name}: {'; '.join(r['left out'])}" for name, r in results.items() if r.get("left out")]
    if left_out:
        lines += ["", "left out of this dry run:", *(f"  {message}" for message in left_out)]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="python -m tests.ladder.gpu_run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("command", choices=list(COMMANDS), help="which half")
    made.add_argument(
        "--data", type=Path, help="folder of CIFAR-10, or of a copy with an unpack.py (without: drawn shapes)"
    )
    made.add_argument("--data-name", default="", help="what a copy that is unpacked is called in the results")
    made.add_argument(
        "--after", type=Path, help="B: what A wrote (default: gpu_run_A.json beside B's results, else in bench/results)"
    )
    made.add_argument("--out", type=Path, help="folder of the results (default: $OUT, else bench/results)")
    made.add_argument("--only", default="", help="sections whose name contains this text")
    made.add_argument("--limit", type=float, help="seconds for all of it (default 288 for A, 228 for B)")
    made.add_argument("--dry-run", action="store_true", help="a small share of every section, without times")
    made.add_argument("--list", action="store_true", help="name the sections and end")
    for name in ("--section", "--kept", "--scratch"):
        made.add_argument(name, type=Path if name != "--section" else str, help=argparse.SUPPRESS)
    made.add_argument("--until", type=float, default=0, help=argparse.SUPPRESS)  # by the clock of all processes
    return made


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    arguments = parser().parse_args(argv)
    chosen = [section for section in COMMANDS[arguments.command] if arguments.only in section.name]
    if arguments.list:
        for section in chosen:
            _say(f"{section.name:10s} {section.seconds:3d} s  {section.about}")
        return 0
    usable, reason = gpu_status()
    if not usable:
        sys.stderr.write(f"tests.ladder.gpu_run needs a GPU: {reason}\n")
        return _NO_GPU
    if arguments.section:
        return _child(arguments)
    arguments.out = (arguments.out or Path(os.environ.get("OUT", RESULTS))).resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.command == "B" and arguments.after is None:
        places = [folder / "gpu_run_A.json" for folder in (arguments.out, RESULTS)]
        arguments.after = next((path for path in places if path.exists()), places[-1])
    with tempfile.TemporaryDirectory(prefix="gpu_run") as scratch:
        return _all(arguments, chosen, Path(scratch))


def _all(arguments: argparse.Namespace, chosen: list[Section], scratch: Path) -> int:
    start = time.monotonic()
    limit = arguments.limit or (_DRY_LIMIT if arguments.dry_run else LIMITS[arguments.command])
    out = arguments.out / f"gpu_run_{arguments.command}.json"
    log = out.with_suffix(".log")
    log.write_text("", encoding="utf-8")
    results: Results = {}
    whole: dict[str, Any] = {
        "command": arguments.command,
        "dry run": arguments.dry_run,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "predictions": predictions()["source"],
        "sections": results,
    }
    for place, section in enumerate(chosen):
        left = limit - (time.monotonic() - start)
        seconds = left * section.seconds / sum(later.seconds for later in chosen[place:])
        if seconds < _START:
            results[section.name] = {"ok": None, "why": "not run: time was spent"}
        else:
            results[section.name] = run_section(section, arguments, seconds, scratch, log)
        write(out, whole)
        _say(f"{section.name}: {_WORDS[results[section.name]['ok']]}")
    _say(table(results))
    _say(f"\n{time.monotonic() - start:.0f} s; written to {out}")
    if arguments.dry_run:
        _say("A dry run: what it found of times is left out, and nothing of it was measured on a GPU.")
    else:
        _say(f"Predicted numbers are {predictions()['source']}.")
    return int(any(result["ok"] is False for result in results.values()))


def leave(status: int) -> None:
    """End the process of a section at once: all that it found is on disk, and threads, pools or a driver may hold it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    ended = main()
    if "--section" in sys.argv:
        leave(ended)
    sys.exit(ended)
