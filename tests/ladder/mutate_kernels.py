"""Break kernels one place at a time, and see that the checks notice.

    python -m tests.ladder.mutate_kernels [--only FILE ...] [--sample N] [--seed S] [--write]

A mutant is one small change of one line of kernels/: a bound, a sign, an operator, a start value, a barrier.  It runs
kernel_calls.py's calls of the kernel it is in, in the emulator's check mode, float32 first, until one fails.
Survivors are shown, with the reason where mutation_survivors.toml gives one: such a mutant changes no result, so
it does not count against the score, the share noticed of all others.  Exit status 1: a score below 95 %.

--write keeps the result of each file in mutation_score.json, with a digest of the code that was measured: with --only
beside the results of the other files, without it in the place of them all.  Totals are computed from the files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

from emulate import BuildError, build

from gpuconv.cuda import kernel
from gpuconv.cuda.source import kernel_dir, source
from gpuconv.errors import GpuconvError

from . import hopper_calls, kernel_calls, kernel_files
from .kernel_calls import DTYPES, FORMATS, GroupedDevice, assert_as_expected, emulated_on, launched

CALLS = kernel_calls.CALLS | hopper_calls.CALLS
SCORE = Path(__file__).parent / "mutation_score.json"
REASONS = Path(__file__).parent / "mutation_survivors.toml"
GOAL = 0.95

# What is changed into what.  Spaces tell operators from template brackets and pointers.
CHANGES = (
    (" < ", " <= "),
    (" <= ", " < "),
    (" > ", " >= "),
    (" >= ", " > "),
    (" == ", " != "),
    (" != ", " == "),
    (" && ", " || "),
    (" || ", " && "),
    (" + ", " - "),
    (" - ", " + "),
    (" * ", " + "),
    (" / ", " * "),
    (" % ", " / "),
    (" += ", " -= "),
    (" -= ", " += "),
    (" = 0;", " = 1;"),
    (" = {};", " = {1};"),
    ("++", "--"),
    ("min(", "max("),
    ("max(", "min("),
    ("__syncthreads();", ";"),
    ("continue;", ";"),
    ("return;", ";"),
    ("true", "false"),
    ("false", "true"),
)
_SIGNATURE = re.compile(r"template\s*<[^{;]*\{|^__(?:global|device)__[^{;]*\{", re.MULTILINE)
_NOT_CODE = re.compile(r"//[^\n]*|^[ \t]*#[^\n]*|\bstatic_assert\s*\([^;]*;|\"[^\"\n]*\"", re.MULTILINE)
_WAYS = (("forward", None), ("depth-reverse", 1))
_LAUNCH_SECONDS, _MUTANT_SECONDS = 5, 400


@dataclass(frozen=True)
class Mutant:
    """A change of kernels/<file>: `before` at a place of its text becomes `after`."""

    file: str
    start: int
    before: str
    after: str
    line: int
    text: str  # the changed line

    def applied(self, text: str) -> str:
        return text[: self.start] + self.after + text[self.start + len(self.before) :]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.before.strip()} -> {self.after.strip()}: {self.text}"


def mutants(file: str) -> list[Mutant]:
    """Return every change that CHANGES makes in the code of a kernel file; signatures stay."""
    text = kernel_dir().joinpath(file).read_text(encoding="utf-8")
    code = list(text)
    for pattern in (_NOT_CODE, _SIGNATURE):
        for match in pattern.finditer("".join(code)):
            for i in range(match.start(), match.end()):
                code[i] = code[i] if code[i] == "\n" else "\0"
    masked = "".join(code)
    of_file = []
    for before, after in CHANGES:
        word = rf"\b{before}\b" if before.isalpha() else re.escape(before)
        for match in re.finditer(word, masked):
            changed = text[: match.start()] + after + text[match.end() :]
            line = text.count("\n", 0, match.start()) + 1
            of_file.append(Mutant(file, match.start(), before, after, line, changed.splitlines()[line - 1].strip()))
    return sorted(of_file, key=lambda mutant: (mutant.start, mutant.after))


def files() -> list[str]:
    """Return the kernel files that have mutants: all but ptx.cuh, in whose place the emulator has its own."""
    names = sorted(path.name for path in kernel_dir().iterdir() if path.name.endswith((".cu", ".cuh")))
    return [name for name in names if not name.startswith("ptx") and mutants(name)]


def all_mutants() -> list[Mutant]:
    return [mutant for name in files() for mutant in mutants(name)]


def code_digest(text: str) -> str:
    """Return a digest of a kernel file's code: comments and blank lines do not count."""
    lines = [line.rstrip() for line in re.sub(r"//[^\n]*", "", text).splitlines()]
    return hashlib.sha256("\n".join(line for line in lines if line).encode()).hexdigest()[:16]


def sample(everything: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """Return `count` mutants, drawn from each file in proportion, at least two of each."""
    rng = random.Random(seed)
    by_file: dict[str, list[Mutant]] = {}
    for mutant in everything:
        by_file.setdefault(mutant.file, []).append(mutant)
    chosen = []
    for of_file in by_file.values():
        share = min(len(of_file), max(2, round(count * len(of_file) / len(everything))))
        chosen += rng.sample(of_file, share)
    return chosen


# Which calls a change concerns ---------------------------------------------------------------------------------------


def _files_with(file: str) -> set[str]:
    """Return the .cu files whose text has a file's in it."""
    return {known.file for known in kernel.Kernel.all.values() if f'"kernels/{file}"' in source(known.file)}


def _kernel_at(file: str, start: int) -> str | None:
    """Return the kernel whose body a place lies in; None outside all kernels."""
    text = kernel_dir().joinpath(file).read_text(encoding="utf-8")
    head = r"__global__\s+void\s+(?:__launch_bounds__\s*\([^()]*\)\s*)?(\w+)"
    bodies = re.finditer(head + r"\s*\([^{}]*\)\s*\{.*?^\}", text, re.MULTILINE | re.DOTALL)
    return next((body[1] for body in bodies if body.start() <= start < body.end()), None)


class Plan:
    """What every call launches and must return: found once, and inherited by the process of each mutant."""

    def __init__(self) -> None:
        self.launched: dict[tuple[str, str], dict[str, Any]] = {}
        self.expected: dict[tuple[str, str, str], Any] = {}
        for name, call in CALLS.items():
            for dtype in DTYPES:
                self.launched[name, dtype] = launched([call], (dtype,))
                for memory in FORMATS:
                    self.expected[name, dtype, memory] = call.expected(dtype, memory)

    def calls(self, mutant: Mutant) -> list[str]:
        """Return the calls that launch the changed kernel, or with a shared function one from each file of it first."""
        inside = _kernel_at(mutant.file, mutant.start)
        files_with = _files_with(mutant.file)
        calls_of: dict[str, list[str]] = {}
        for name in CALLS:
            kernels = {one.kernel for dtype in DTYPES for one in self.launched[name, dtype].values()}
            if inside is not None:
                kernels = {one for one in kernels if one.name == inside}
            for file in sorted({one.file for one in kernels} & files_with)[:1]:
                calls_of.setdefault(file, []).append(name)
        in_turn = [names[i] for i in range(len(CALLS)) for names in calls_of.values() if i < len(names)]
        return list(dict.fromkeys(in_turn))


# One mutant, in a process of its own ---------------------------------------------------------------------------------


def run(plan: Plan, mutant: Mutant, folder: Path) -> tuple[str, str]:
    """Return ("noticed", by what), ("survived", "") or ("refused", why) for a mutant that does not compile."""
    os.environ["GPUCONV_EMULATE_CACHE"] = str(folder)
    original = kernel_dir().joinpath(mutant.file).read_text(encoding="utf-8")
    changed = mutant.applied(original)
    names = plan.calls(mutant)
    if not names:
        return "broken", "no call launches it"
    quick, rest = ([name for name in names if CALLS[name].quick is is_quick] for is_quick in (True, False))
    stages = [(quick, "float32"), (rest, "float32"), (names, "float16"), (names, "float64")]

    def broken(file: str) -> str:
        """Return a kernel's spliced text with the changed file in its place."""
        (folder / "kernels").mkdir(exist_ok=True)
        for path in kernel_dir().iterdir():
            if path.name.endswith((".cu", ".cuh")):
                text = changed if path.name == mutant.file else path.read_text(encoding="utf-8")
                (folder / "kernels" / path.name).write_text(text, encoding="utf-8")
        with mock.patch("gpuconv.cuda.source.kernel_dir", return_value=folder / "kernels"):
            return source(file)

    files_with = _files_with(mutant.file)

    def launches_it(name: str, dtype: str) -> bool:
        return any(one.kernel.file in files_with for one in plan.launched[name, dtype].values())

    with mock.patch.object(kernel, "source", broken):
        for of_stage, dtype in stages:
            calls = [name for name in of_stage if launches_it(name, dtype)]
            group = [one for name in calls for one in plan.launched[name, dtype].values()]
            unique = list({one.expression: one for one in group}.values())
            if mutant.file.endswith(".cu"):
                unique = [one for one in unique if one.kernel.file == mutant.file]
            for order, blocks in _WAYS:
                how = {"order": order, "timeout": _LAUNCH_SECONDS}
                devices = {
                    arch: GroupedDevice("emulated-check", unique, arch=arch, **how)
                    for arch in {CALLS[name].arch for name in calls}
                }
                for name, memory in product(calls, FORMATS):
                    if memory not in CALLS[name].formats:
                        continue
                    with emulated_on(devices[CALLS[name].arch], blocks=blocks) as place:
                        try:
                            got = CALLS[name].on(place, dtype, memory)
                            assert_as_expected(got, plan.expected[name, dtype, memory])
                        except (AssertionError, GpuconvError) as error:
                            if isinstance(error.__cause__, BuildError):
                                return "refused", str(error.__cause__)[-300:]
                            cause = type(error.__cause__ or error).__name__
                            return "noticed", f"{name}, {dtype}, {memory}, {order}: {cause}"
    return "survived", ""


def _child(plan: Plan, mutant: Mutant, pipe: Any, folder: str) -> None:
    os.setsid()  # its launch servers and compilers end with it
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    pipe.send(run(plan, mutant, Path(folder)))


def run_all(plan: Plan, chosen: list[Mutant], jobs: int) -> list[tuple[Mutant, str, str, float]]:
    """Run mutants side by side; return (mutant, verdict, detail, seconds) of each."""
    context = multiprocessing.get_context("fork")
    waiting, results = list(reversed(chosen)), []
    running: dict[Any, tuple[Any, Mutant, float, str]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            receive, send = context.Pipe(duplex=False)
            folder = tempfile.mkdtemp(prefix="gpuconv-mutant-")
            process = context.Process(target=_child, args=(plan, mutant, send, folder))
            process.start()
            send.close()
            running[receive] = process, mutant, time.monotonic(), folder
        ready = multiprocessing.connection.wait(list(running), timeout=1.0)
        for receive in list(running):
            process, mutant, started, folder = running[receive]
            seconds = time.monotonic() - started
            if receive in ready:
                try:
                    verdict, detail = receive.recv()
                except EOFError:
                    verdict, detail = "broken", "the process of the mutant died: a fault of this script"
            elif seconds > _MUTANT_SECONDS:
                verdict, detail = "survived", f"not noticed in {_MUTANT_SECONDS} s"  # an endless launch ends sooner
                os.killpg(process.pid, signal.SIGKILL)
            else:
                continue
            process.join()
            receive.close()
            del running[receive]
            shutil.rmtree(folder, ignore_errors=True)
            results.append((mutant, verdict, detail, seconds))
            print(f"{len(results):4d}/{len(chosen)} {verdict:8s} {seconds:5.1f} s  {mutant}", flush=True)
    return results


# The report -----------------------------------------------------------------------------------------------------------


def reasons() -> list[dict[str, str]]:
    """Return the known survivors: file, text (the changed line), reason."""
    return list(tomllib.loads(REASONS.read_text(encoding="utf-8")).get("survivor", []))


def reason_of(file: str, text: str, known: list[dict[str, str]]) -> str | None:
    """Return why the mutant whose changed line is `text` survives, if that is known."""
    return next((entry["reason"] for entry in known if (entry["file"], entry["text"]) == (file, text)), None)


def of_files(results: list[tuple[Mutant, str, str, float]], seed: int | None) -> dict[str, dict[str, Any]]:
    """Return what is kept of a run, by file.  A mutant that does not compile does not count.

    seed: what the mutants were drawn with; None where all were run.
    """
    by_file: dict[str, list[tuple[Mutant, str]]] = {}
    for mutant, verdict, _, _ in results:
        by_file.setdefault(mutant.file, []).append((mutant, verdict))
    record = {}
    for file, verdicts in sorted(by_file.items()):
        counted = [verdict for _, verdict in verdicts if verdict in ("noticed", "survived")]
        survivors = sorted((m for m, verdict in verdicts if verdict == "survived"), key=lambda m: m.start)
        record[file] = {
            "code": code_digest(kernel_dir().joinpath(file).read_text(encoding="utf-8")),
            "places": len(mutants(file)),
            "seed": seed,
            "mutants": len(counted),
            "noticed": counted.count("noticed"),
            "refused by the compiler": sum(verdict == "refused" for _, verdict in verdicts),
            "survivors": [mutant.text for mutant in survivors],
        }
    return record


def totals(record: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what the results of all files come to, with the reasons of survivors that are known today."""
    known = reasons()
    tried, noticed = (sum(result[key] for result in record.values()) for key in ("mutants", "noticed"))
    survivors = [
        {"file": file, "text": text, "reason": reason_of(file, text, known) or "not explained"}
        for file, result in record.items()
        for text in result["survivors"]
    ]
    equal = sum(survivor["reason"] != "not explained" for survivor in survivors)
    return {
        "mutants": tried,
        "noticed": noticed,
        "change no result": equal,
        "score": round(noticed / max(1, tried - equal), 4),
        "survivors": survivors,
    }


def recorded() -> dict[str, dict[str, Any]]:
    """Return the results that are kept, by file."""
    return dict(json.loads(SCORE.read_text(encoding="utf-8")))


def merged(before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the results of before with those of now in their places; files that are no more have none."""
    return {file: result for file, result in sorted((before | now).items()) if file in files()}


def to_be_measured(record: dict[str, dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the kernel files without a result, and those whose code has changed since."""
    missing = [file for file in files() if file not in record]
    texts = {file: kernel_dir().joinpath(file).read_text(encoding="utf-8") for file in files() if file in record}
    return missing, [file for file, text in texts.items() if record[file]["code"] != code_digest(text)]


def command(names: list[str]) -> str:
    """Return the command that measures files."""
    return f"python -m tests.ladder.mutate_kernels --only {' '.join(names)} --write"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="FILE", help="kernel files: relu pack.cuh")
    parser.add_argument("--sample", type=int, help="about how many mutants (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants side by side (default: the cores)")
    parser.add_argument("--write", action="store_true", help=f"keep the result in {SCORE.name}")
    parser.add_argument("--list", action="store_true", help="show the mutants, run nothing")
    arguments = parser.parse_args()
    everything = [mutant for name in kernel_files.chosen(parser, arguments.only, files()) for mutant in mutants(name)]
    chosen = sample(everything, arguments.sample, arguments.seed) if arguments.sample else everything
    if arguments.list:
        print("\n".join(map(str, chosen)))
        return 0
    build.compiler(), build._runtime_object()
    results = run_all(Plan(), chosen, arguments.jobs)
    record = of_files(results, None if len(chosen) == len(everything) else arguments.seed)
    of_run = totals(record)
    print(json.dumps({"files": record, **of_run}, indent=1))
    broken = [f"broken: {mutant}: {detail}" for mutant, verdict, detail, _ in results if verdict == "broken"]
    if broken:
        print("\n".join(broken))
    elif arguments.write:
        kept = merged(recorded(), record) if arguments.only else record
        SCORE.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return int(of_run["score"] < GOAL or bool(broken))


if __name__ == "__main__":
    sys.exit(main())
