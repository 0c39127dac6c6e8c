"""Break the Python code one place at a time, and see that the tests notice.

    python -m tests.ladder.mutate_python [--only AREA|FILE ...] [--sample N] [--seed S] [--minutes M] [--write]

A mutant is one small change of gpuconv/ (python_mutants.py); CUDA is left alone here.  It is made in a copy of the
checkout, and the tests that enter the changed function run there, shortest first, until one fails: in ROUNDS, from the
nearest test file to those far away; in the last one, all that enter the changed file, as many as there are seconds for.
An endless loop is noticed: no end within LIMIT times the seconds that the same tests took without the change, where
they end in that time once more.

Which tests enter which functions, and how long they take, is noted once for each test file, and kept with the verdicts
in build/python-mutants: what was stopped goes on where it was, a larger sample begins with a smaller one of its seed,
and survivors are tried again when a test has changed.  Nothing else is written, and the checkout is not touched.
Survivors are shown with their diff, and the reason where python_survivors.toml gives one: such a mutant changes
nothing that anyone could see, so it does not count against the score, the share noticed of all others.

--write keeps the result as bench/results/python-mutants-DATE.json.  Exit status 1: a score below 90 %.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import difflib
import functools
import hashlib
import itertools
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpuconv.runs.machine import environment

from . import ROOT, TESTS
from .chosen_tests import CHOSEN, NOTED, PACKAGE
from .groups import run_group
from .python_mutants import Mutant, mutants

GOAL = 0.90
RESULTS = ROOT / "bench" / "results"
REASONS = Path(__file__).parent / "python_survivors.toml"
STATE = ROOT / "build" / "python-mutants"

# What is broken, as patterns of files of gpuconv/.
AREAS = {
    "validation": ("checks.py", "shapes.py", "bounded.py", "contents.py", "ops/*.py"),
    "dispatch": ("backend.py",),
    "memory": ("cpu/memory.py", "cpu/copies.py"),
    "threads": ("cpu/parallel.py", "cpu/lock.py", "cpu/runs.py"),
    "checkpoint": ("durable.py", "runs/checkpoint.py", "runs/sealed.py", "runs/folder.py", "runs/journal.py"),
    "data": ("data/*.py", "data/*/*.py"),
    "optimisers": ("nn/optim.py", "nn/muon.py", "nn/schedules.py", "nn/clip.py", "nn/average.py", "nn/finite.py"),
    "trainer": ("train/*.py", "runs/config.py", "runs/dataset.py", "runs/evaluation.py"),
}
# The test file that holds what all of an area have in common, whatever names are in it: it is the second nearest.
IN_COMMON = {"validation": "test_errors.py", "checkpoint": "test_checkpoint.py", "trainer": "test_train_loop.py"}
# Tests of kernels, of the emulator, of other programs: they take long, and tell little about the Python code above.
LEFT_OUT = re.compile(
    r"test_(cuda|cupy|emulate|kernels?|gpu|bench|long_sums_cuda|machine_code|compat|compilers|complete|mutation|notebooks"
    r"|packaging|planted_faults|python_mutants|readme|step_counts|step_profile|tables|places|pairs)(_\w+)?\.py"
)
MARKS = "not emulated and not gpu and not ladder and not cupy and not notebook and not compiling and not large"
# Each round: how many test files, nearest first, and how many seconds of their tests.
FARTHEST = 14
ROUNDS = ((1, 20.0), (4, 40.0), (FARTHEST, 120.0))
LIMIT = 8
START_SECONDS = 60.0  # of Python and pytest, on a busy machine
NEAREST = 2  # test files that run whole where there are no rounds
UNKNOWN_SECONDS = 300.0  # for a test file of which nothing is noted
_MEMORY = 16 << 30

NOTICED, SURVIVED, UNDECIDED = "noticed", "survived", "undecided"
_NOTHING_RUN = 5  # pytest's exit status


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant, and by what; `tests`: the digest of all tests then, and how many rounds of them there were."""

    key: str
    outcome: str
    by: str
    tests: str


# The mutants ----------------------------------------------------------------------------------------------------------


def files(wanted: Iterable[str] = ()) -> list[str]:
    """Return the files of the areas, or those of the areas and files that are wanted by name."""
    wanted = list(wanted)
    chosen = set()
    for area, patterns in AREAS.items():
        for path in (path for pattern in patterns for path in PACKAGE.glob(pattern)):
            name = path.relative_to(PACKAGE).as_posix()
            if path.name != "__init__.py" and (not wanted or area in wanted or name in wanted):
                chosen.add(name)
    return sorted(chosen)


def area_of(file: str) -> str:
    return next(area for area, patterns in AREAS.items() if any(Path(file).match(pattern) for pattern in patterns))


def mutants_of(file: str) -> list[Mutant]:
    return mutants(file, (PACKAGE / file).read_text(encoding="utf-8"))


def sample(everything: list[Mutant], count: int | None, seed: int) -> list[Mutant]:
    """Return mutants in an order drawn from the seed: the first of them are a sample of all, however many."""
    drawn = random.Random(seed).sample(everything, len(everything))
    return drawn[:count]


def key(mutant: Mutant) -> str:
    """Return what names a mutant as long as the code of its file is what it was."""
    text = (PACKAGE / mutant.file).read_text(encoding="utf-8")
    return f"{_digest(text)}:{mutant.file}:{mutant.start}:{mutant.end}:{mutant.after}"


@functools.cache
def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def difference(mutant: Mutant) -> str:
    """Return a mutant's diff."""
    text = (PACKAGE / mutant.file).read_text(encoding="utf-8")
    name = f"gpuconv/{mutant.file}"
    before, after = text.splitlines(keepends=True), mutant.applied(text).splitlines(keepends=True)
    return "".join(difflib.unified_diff(before, after, name, name, n=1))


# Which tests belong to a file -----------------------------------------------------------------------------------------


@functools.cache
def _test_files() -> dict[str, str]:
    """Return the test files and their text."""
    return {
        path.name: path.read_text(encoding="utf-8")
        for path in sorted(TESTS.glob("test_*.py"))
        if not LEFT_OUT.fullmatch(path.name)
    }


@functools.cache
def _named_in(test_file: str) -> frozenset[str]:
    """Return all words of a test file: among them what it imports, calls and replaces, also in texts of programs."""
    return frozenset(re.findall(r"\w+", _test_files()[test_file]))


@functools.cache
def _public(file: str) -> frozenset[str]:
    """Return the names that a file defines at its top."""
    body = ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body
    return frozenset(node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef))


def test_files_of(file: str) -> list[str]:
    """Return the test files by how near they are to a file, nearest first: by its name, its area, shared words."""
    stem, folder = Path(file).stem, Path(file).parent.name

    def nearness(test_file: str) -> tuple[int, int]:
        parts = Path(test_file).stem.split("_")[1:]
        words = _named_in(test_file)
        own_name = 2 * (stem in ("_".join(parts), *parts)) + 2 * ("_".join(parts) == f"{folder}_{stem}")
        return own_name + 2 * (stem in words and folder in (*words, "")), len(_public(file) & words)

    near = {test_file: nearness(test_file) for test_file in _test_files()}
    chosen = sorted(near, key=lambda test_file: (*(-n for n in near[test_file]), test_file))
    shared = IN_COMMON.get(area_of(file))
    if shared is not None and shared not in chosen[:2]:
        chosen = [*chosen[:1], shared, *(test_file for test_file in chosen[1:] if test_file != shared)]
    return chosen


# The copy, and what runs in it ----------------------------------------------------------------------------------------


class Copy:
    """A copy of the checkout, in which one file at a time is changed."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self._folder = folder
        self._ticks = int(time.time()) - 10**6
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)

    def put(self, file: str, text: str) -> None:
        """Write a file of gpuconv/: with a time of its own, by which Python knows compiled code of another text."""
        path = self.root / "gpuconv" / file
        path.write_text(text, encoding="utf-8")
        self._ticks += 2
        os.utime(path, (self._ticks, self._ticks))

    def run(self, test_files: list[str], seconds: float, *options: str, **variables: str) -> tuple[int | None, str]:
        """Run tests; return pytest's exit status, None where they had to be ended, and what it wrote."""
        command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider", "-m", MARKS]
        command += ["-p", "tests.ladder.chosen_tests", *options, *(f"tests/{name}" for name in test_files)]
        limited = f"ulimit -v {_MEMORY >> 10}; cd {shlex.quote(str(self.root))} && exec {shlex.join(command)}"
        with tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as temporary:
            status, out, errors = run_group(
                ["/bin/sh", "-c", limited],
                seconds,
                PYTHONPATH=os.pathsep.join((str(self.root), str(self.root / "tests"))),
                TMPDIR=temporary,
                https_proxy="http://127.0.0.1:9",  # nothing answers there: a mutant that downloads fails
                **variables,
            )
        return status, out + errors


class State:
    """What is known already: the notes of test files, and the verdicts."""

    def __init__(self, folder: Path, how_many_rounds: int = len(ROUNDS)) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._notes, self._verdicts = folder / "notes", folder / "verdicts.jsonl"
        self._notes.mkdir(exist_ok=True)
        self.tests = f"{_digest(''.join(_test_files().values()))}, {how_many_rounds} rounds"
        self.sound: set[str] = set()  # tests that pass alone

    def verdicts(self) -> dict[str, Verdict]:
        """Return the verdicts that still hold: a survivor's do not when a test has changed."""
        lines = self._verdicts.read_text(encoding="utf-8").splitlines() if self._verdicts.exists() else []
        every = [Verdict(**json.loads(line)) for line in lines if line.endswith("}")]
        return {
            one.key: one
            for one in every
            if one.outcome == NOTICED or (one.outcome == SURVIVED and one.tests == self.tests)
        }

    def add(self, verdict: Verdict) -> None:
        with self._verdicts.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(verdict)) + "\n")

    def knows(self, test_file: str) -> bool:
        """Tell whether a test file has its notes."""
        return self._kept(test_file).exists()

    def _kept(self, test_file: str) -> Path:
        return self._notes / f"{Path(test_file).stem}-{_digest(_test_files()[test_file])}.json"

    def notes(self, test_file: str, copy: Copy) -> dict[str, dict[str, Any]]:
        """Return what is noted of a test file's tests that pass; run it first if it is not known."""
        kept = self._kept(test_file)
        if not kept.exists():
            new = kept.with_suffix(".new")
            started = time.monotonic()
            status, out = copy.run([test_file], 1800, **{NOTED: str(new)})
            if status not in (0, 1, 5):
                msg = f"{test_file} does not run in a copy of the checkout: {out[-2000:]}"
                raise RuntimeError(msg)
            failed = "\n".join(line for line in out.splitlines() if line.startswith(("FAILED", "ERROR")))
            print(f"     {test_file} noted in {time.monotonic() - started:.0f} s {failed}", flush=True)
            new.replace(kept)
        tests = json.loads(kept.read_text(encoding="utf-8"))
        return {name: note for name, note in tests.items() if note["passes"]}


# One mutant -----------------------------------------------------------------------------------------------------------


def enters(note: dict[str, Any], mutant: Mutant, exactly: bool) -> bool:
    """Tell whether a test enters the changed function, or, where not exactly, its file.

    What stands in no function is run by whoever imports the file, which no note tells: any test may see it.
    """
    if not mutant.scope:
        return True
    of_file = f"{mutant.file}:"
    if exactly:
        inside = of_file + mutant.scope
        return any(name == inside or name.startswith(f"{inside}.") for name in note["enters"])
    return any(name.startswith(of_file) for name in note["enters"])


def rounds(mutant: Mutant, state: State, copy: Copy) -> Iterable[dict[str, float]]:
    """Yield the tests of each round, with their seconds, shortest first: none in two of them.

    All but the last one hold those that enter the changed function, the last those that enter its file.  Where none of
    the nearest test files enters the function, the next one that does is looked for.
    """
    test_files = iter(test_files_of(mutant.file))
    entering: dict[str, float] = {}
    others: dict[str, float] = {}
    begin, entered = 0, False
    for end, seconds in ROUNDS:
        while begin < end or (end == FARTHEST and not entered):
            test_file = next(test_files, None)
            if test_file is None:
                break
            for test, note in state.notes(test_file, copy).items():
                if enters(note, mutant, exactly=False):
                    (entering if enters(note, mutant, exactly=True) else others)[test] = note["seconds"]
            begin, entered = begin + 1, entered or bool(entering)
        chosen = _shortest(entering, seconds)
        if end == FARTHEST:
            chosen |= _shortest(others, seconds - sum(chosen.values()))
            chosen = dict(sorted(chosen.items(), key=lambda item: item[1]))
        entering = {test: its_seconds for test, its_seconds in entering.items() if test not in chosen}
        yield chosen


def _shortest(tests: dict[str, float], seconds: float) -> dict[str, float]:
    """Return the shortest of the tests, as many as there are seconds for, but one at least."""
    chosen: dict[str, float] = {}
    for test, its_seconds in sorted(tests.items(), key=lambda item: item[1]):
        seconds -= its_seconds
        if chosen and seconds < 0:
            break
        chosen[test] = its_seconds
    return chosen


class Trial:
    """One mutant, held to tests; its file is as it was before and after each call."""

    def __init__(self, mutant: Mutant, state: State, copy: Copy, folder: Path) -> None:
        self.mutant, self.state, self.copy = mutant, state, copy
        self._chosen = folder / "chosen.json"
        self._original = (PACKAGE / mutant.file).read_text(encoding="utf-8")

    def verdict(self, how_many_rounds: int) -> tuple[str, str]:
        """Return (NOTICED, by what), (SURVIVED, what passed) or (UNDECIDED, why)."""
        test_files = test_files_of(self.mutant.file)
        if not how_many_rounds:
            return self._verdict_of_whole(test_files[:NEAREST])
        if not self.state.knows(test_files[0]):
            # Many a mutant is noticed by nearly any test: that is found out sooner than what each of them enters.
            outcome, by = self._verdict_of_whole(test_files[:1])
            if outcome == NOTICED:
                return outcome, by
        passed = 0
        for tests in itertools.islice(rounds(self.mutant, self.state, self.copy), how_many_rounds):
            noticed = self._noticed_by(tests) if tests else None
            if noticed is not None:
                return noticed
            passed += len(tests)
        return SURVIVED, f"{passed} passed"

    def _verdict_of_whole(self, test_files: list[str]) -> tuple[str, str]:
        """Return the verdict of test files that run whole, one after the other."""
        for test_file in test_files:
            status, out = self._changed([test_file], UNKNOWN_SECONDS)
            test = _failed(out) if status else None
            if test is not None and self._passes_unchanged(test):
                return NOTICED, test
            if status != 0:
                return UNDECIDED, f"{test_file} ends with {status}, {test or out.strip()[-150:]}"
        return SURVIVED, f"{' and '.join(test_files)} pass, nothing else was run"

    def _noticed_by(self, tests: dict[str, float]) -> tuple[str, str] | None:
        """Return the verdict that tests with their seconds come to; None if all pass."""
        by_file: dict[str, list[str]] = {}  # so that fixtures of a file are made once
        for test in tests:
            by_file.setdefault(Path(test.partition("::")[0]).name, []).append(test)
        ordered = [test for of_file in by_file.values() for test in of_file]
        expected = sum(tests.values())
        limit = START_SECONDS + LIMIT * expected
        status, out = self._changed(list(by_file), limit, ordered)
        if status == 0:
            return None
        if status is None:
            if self._unchanged(list(by_file), limit, ordered) is None:
                return (
                    UNDECIDED,
                    f"the machine is too busy: without the change the tests do not end within {limit:.0f} s",
                )
            return NOTICED, f"no end within {limit:.0f} s of tests that take {expected:.1f} s"
        if status == _NOTHING_RUN:
            return UNDECIDED, "pytest finds none of the tests that were noted"
        test = _failed(out)
        if test is not None and not self._passes_unchanged(test):
            return UNDECIDED, f"{test} fails without the change, too, when it is run alone"
        return NOTICED, test or f"pytest ends with {status}: {out.strip()[-150:]}"

    def _changed(
        self, test_files: list[str], seconds: float, chosen: list[str] | None = None
    ) -> tuple[int | None, str]:
        self.copy.put(self.mutant.file, self.mutant.applied(self._original))
        try:
            return self._run(test_files, seconds, chosen)
        finally:
            self.copy.put(self.mutant.file, self._original)

    def _unchanged(self, test_files: list[str], seconds: float, chosen: list[str]) -> int | None:
        return self._run(test_files, seconds, chosen)[0]

    def _run(self, test_files: list[str], seconds: float, chosen: list[str] | None) -> tuple[int | None, str]:
        if chosen is None:
            return self.copy.run(test_files, seconds, "-x")
        self._chosen.write_text(json.dumps(chosen), encoding="utf-8")
        return self.copy.run(test_files, seconds, "-x", **{CHOSEN: str(self._chosen)})

    def _passes_unchanged(self, test: str) -> bool:
        """Tell whether a test passes, run alone, without any change: a mutant is noticed by no other."""
        if test not in self.state.sound:
            test_file = Path(test.partition("::")[0]).name
            chosen = [test] if "::" in test else None
            if self._run([test_file], UNKNOWN_SECONDS, chosen)[0] != 0:
                return False
            self.state.sound.add(test)
        return True


def _failed(out: str) -> str | None:
    """Return the first test, or test file, that pytest names as failed."""
    named = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", out, re.MULTILINE)
    return named[1] if named else None


def run_all(
    chosen: list[Mutant], state: State, minutes: float | None, how_many_rounds: int
) -> list[tuple[Mutant, Verdict]]:
    """Run the mutants that have no verdict, as long as time allows; return those that have one, in their order."""
    end = None if minutes is None else time.monotonic() + 60 * minutes
    known = state.verdicts()
    results = []
    with tempfile.TemporaryDirectory(prefix="gpuconv-mutants-", ignore_cleanup_errors=True) as name:
        copy = Copy(Path(name))
        for i, mutant in enumerate(chosen, 1):
            verdict = known.get(key(mutant))
            if verdict is None:
                if end is not None and time.monotonic() > end:
                    break
                started = time.monotonic()
                verdict = Verdict(
                    key(mutant), *Trial(mutant, state, copy, Path(name)).verdict(how_many_rounds), state.tests
                )
                state.add(verdict)
                seconds = time.monotonic() - started
                print(
                    f"{i:4d}/{len(chosen)} {verdict.outcome:8s} {seconds:5.1f} s  {mutant}  [{verdict.by}]", flush=True
                )
            results.append((mutant, verdict))
    return results


# The report -----------------------------------------------------------------------------------------------------------


def reasons() -> list[dict[str, str]]:
    """Return the known survivors: file, text (the line before and after), reason."""
    return list(tomllib.loads(REASONS.read_text(encoding="utf-8")).get("survivor", []))


def report(results: list[tuple[Mutant, Verdict]], places: int) -> dict[str, Any]:
    """Return what is kept of a run.  places: how many mutants there are to draw from."""
    because = {(entry["file"], entry["text"]): entry["reason"] for entry in reasons()}
    counted = [(mutant, verdict) for mutant, verdict in results if verdict.outcome != UNDECIDED]
    survivors = [mutant for mutant, verdict in counted if verdict.outcome == SURVIVED]
    by_area: dict[str, dict[str, int]] = {}
    for mutant, verdict in counted:
        of_area = by_area.setdefault(area_of(mutant.file), {"mutants": 0, "noticed": 0})
        of_area["mutants"] += 1
        of_area["noticed"] += verdict.outcome == NOTICED
    equal = sum((mutant.file, mutant.text) in because for mutant in survivors)
    noticed = len(counted) - len(survivors)
    return {
        "places": places,
        "mutants": len(counted),
        "noticed": noticed,
        "change nothing": equal,
        "score": round(noticed / max(1, len(counted) - equal), 4),
        "areas": dict(sorted(by_area.items())),
        "survivors": [
            {
                "file": mutant.file,
                "line": mutant.line,
                "text": mutant.text,
                "reason": because.get((mutant.file, mutant.text), "not explained"),
            }
            for mutant in sorted(survivors, key=lambda mutant: (mutant.file, mutant.start))
        ],
    }


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"{', '.join(AREAS)}, or cpu/memory.py")
    parser.add_argument("--sample", type=int, metavar="N", help="how many mutants (default: all)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the sample")
    parser.add_argument("--minutes", type=float, metavar="M", help="begin no mutant after so many")
    parser.add_argument(
        "--rounds",
        type=int,
        default=len(ROUNDS),
        metavar="R",
        help="of tests (default: all; 0: the two nearest files whole)",
    )
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results")
    parser.add_argument("--list", action="store_true", help="show the mutants, run nothing")
    arguments = parser.parse_args()
    chosen_files = files(arguments.only)
    if not chosen_files:
        parser.error(f"--only names neither an area nor a file of one; areas are {', '.join(AREAS)}")
    everything = [mutant for file in chosen_files for mutant in mutants_of(file)]
    chosen = sample(everything, arguments.sample, arguments.seed)
    if arguments.list:
        print("\n".join(map(str, chosen)))
        return 0
    results = run_all(chosen, State(STATE, arguments.rounds), arguments.minutes, arguments.rounds)
    record = report(results, len(everything))
    for mutant, verdict in results:
        if verdict.outcome == UNDECIDED:
            print(f"undecided: {mutant}: {verdict.by}")
        if verdict.outcome == SURVIVED:
            print(f"\n{verdict.by}:\n{difference(mutant)}")
    print(json.dumps(record, indent=1))
    if arguments.write:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        options = {"only": arguments.only, "seed": arguments.seed, "rounds": arguments.rounds}
        kept = {"date": today, **environment(), "settings": options, **record}
        kept.pop("variables")
        text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
        (RESULTS / f"python-mutants-{today}.json").write_text(text, encoding="utf-8")
    undecided = any(verdict.outcome == UNDECIDED for _, verdict in results)
    return int(record["score"] < GOAL or undecided)


if __name__ == "__main__":
    sys.exit(main())
