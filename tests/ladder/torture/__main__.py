"""Put gpuconv through thousands of kills, damaged files, full disks, interrupts and random calls, and count what comes out.

    python -m tests.ladder.torture [--only NAME,...] [--scale X] [--seed S] [--save FILE]
    python -m tests.ladder.torture --only NAME --seed S --case NUMBER

Cases run in processes of their own.  One that takes more than its bound of processor time, or from which nothing is heard for
ten minutes, is ended and counts as wrong, as does a crash; the next process goes on behind it.  Exit status 1: something
was wrong.  Every such case is listed with what repeats it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import harness
from bench.load import OtherWork
from gpuconv import tables
from gpuconv.version import gpuconv_version

from .. import ROOT
from ..groups import end, environment
from .kind import FINE, REFUSED, WRONG, Kind, Outcome
from .worker import kinds

MODULES = (
    "saves",
    "damage",
    "full_disk",
    "signals",
    "resumes",
    "interrupts",
    "downloads",
    "hostile",
    "calls",
)
_SILENCE = 600.0  # seconds; a case takes one or two, on a busy machine some more
_TOLD = 20  # wrong cases of a kind whose stories are told, and processes that may die


@dataclass
class Result:
    """The cases of a kind, counted."""

    name: str
    wanted: int
    seconds: float = 0.0
    sorts: dict[str, Counter[str]] = field(
        default_factory=lambda: {FINE: Counter(), REFUSED: Counter(), WRONG: Counter()}
    )
    wrong: list[dict[str, Any]] = field(default_factory=list)

    def add(self, outcome: Outcome, seed: int) -> None:
        self.sorts[outcome.result][outcome.sort] += 1
        if outcome.result == WRONG:
            again = f"python -m tests.ladder.torture --only {self.name!r} --seed {seed} --case {outcome.number}"
            self.wrong.append({**outcome.values(), "repeated by": again.replace("'", '"')})

    def count(self, result: str) -> int:
        return self.sorts[result].total()

    def values(self) -> dict[str, Any]:
        """Return what is kept."""
        return {
            "kind": self.name,
            "cases": sum(map(self.count, self.sorts)),
            "of": self.wanted,
            **{result: dict(sorts.most_common()) for result, sorts in self.sorts.items()},
            "seconds": round(self.seconds, 1),
            "wrong cases": [{**case, "story": _last_line(case["story"])} for case in self.wrong[:_TOLD]],
        }


def _last_line(story: str) -> str:
    """Return a story's end, without the places of this machine: what is kept where figures are."""
    line = story.rstrip().rpartition("\n")[2]
    return re.sub(r"/\S*/torture-\w+(/torture-\w+)*", "FOLDER", line.replace(str(ROOT), "CHECKOUT"))


def all_kinds() -> list[tuple[str, Kind]]:
    """Return every kind with the module it is in."""
    names = [f"{__package__}.{module}" for module in MODULES]
    return [(name, kind) for name in names for kind in kinds(name)]


def outcomes(module: str, name: str, seed: int, first: int, last: int, silence: float = _SILENCE) -> Iterator[Outcome]:
    """Run the cases from first to last in processes; a process that dies or hangs is the outcome of its case.

    After so many of those the rest is left out.
    """
    for _ in range(_TOLD):
        if first >= last:
            return
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryDirectory(prefix="torture-") as place:
            command = [
                sys.executable,
                "-W",
                "error",
                "-m",
                f"{__package__}.worker",
                module,
                name,
                str(seed),
                str(first),
                str(last),
            ]
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(TMPDIR=place, TMP=place, TEMP=place),
                start_new_session=True,
            )
            try:
                for outcome in _answers(process, silence):
                    yield outcome
                    first = outcome.number + 1
                status = process.wait()
            finally:
                end(process.pid)
                process.wait()
                process.stdout.close()  # type: ignore[union-attr]
            if first < last:
                errors.seek(0)
                story = errors.read().decode(errors="replace")[-6000:]
                ended = signal.Signals(-status).name if status < 0 else f"exit status {status}"
                sort = "hang" if status == -signal.SIGPROF else "crash"
                yield Outcome(first, WRONG, sort, f"the process ended by {ended}\n{story}")
                first += 1


def _answers(process: subprocess.Popen[bytes], silence: float) -> Iterator[Outcome]:
    """Yield what a process tells, until it ends; one that says nothing for too long is ended."""
    assert process.stdout is not None
    rest = b""
    while True:
        if not select.select([process.stdout], [], [], silence)[0]:
            process.send_signal(signal.SIGPROF)
            process.wait()
            return
        piece = os.read(process.stdout.fileno(), 1 << 16)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield Outcome(**json.loads(line))


def run(module: str, kind: Kind, seed: int, numbers: range) -> Result:
    """Run some cases of a kind."""
    result, begun = Result(kind.name, kind.count), time.monotonic()
    for outcome in outcomes(module, kind.name, seed, numbers.start, numbers.stop):
        result.add(outcome, seed)
        result.seconds = time.monotonic() - begun
    return result


def table(results: list[Result]) -> str:
    """Return the figures as text."""
    rows = [["", "cases", "fine", "refused by name", "wrong", "seconds"]]
    for result in results:
        counts = [result.count(name) for name in (FINE, REFUSED, WRONG)]
        rows.append([result.name, *(f"{n:,}" for n in (sum(counts), *counts)), f"{result.seconds:.1f}"])
    return "\n".join(tables.columns(rows, numbers=5))


def told(results: list[Result]) -> str:
    """Return what was wrong, the first of each kind with all that is known."""
    lines = []
    for result in results:
        for case in result.wrong[:_TOLD]:
            lines += [
                f"WRONG: {result.name} {case['number']}: {case['sort']}",
                case["story"].rstrip(),
                case["repeated by"],
                "",
            ]
        if len(result.wrong) > _TOLD:
            lines.append(f"{result.name}: {len(result.wrong) - _TOLD} more")
    return "\n".join(lines)


def figures(results: list[Result], seed: int, scale: float, other_work: float | None) -> dict[str, Any]:
    """Return what is saved: figures, and what they depend on."""
    return {
        "machine": {
            "processor": harness.processor(),
            "cores": harness.usable_cores(),
            "other work": other_work,
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"gpuconv": gpuconv_version(), "python": platform.python_version(), "numpy": np.__version__},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seed": seed,
        "scale": scale,
        "seconds": round(sum(result.seconds for result in results), 1),
        "kinds": [result.values() for result in results],
    }


def chosen(only: str | None) -> list[tuple[str, Kind]]:
    """Return the kinds of the names given, with commas between, or all."""
    known = all_kinds()
    if only is None:
        return known
    wanted = [name.strip() for name in only.split(",")]
    if unknown := [name for name in wanted if name not in [kind.name for _, kind in known]]:
        names = ", ".join(kind.name for _, kind in known)
        sys.exit(f"there is no kind {', '.join(unknown)}; there are {names}")
    return [(module, kind) for module, kind in known if kind.name in wanted]


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    made = argparse.ArgumentParser(
        prog="python -m tests.ladder.torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--only", metavar="NAME,...", help="these kinds alone")
    made.add_argument("--scale", type=float, default=1.0, help="share of a full run's cases, at least one of a kind")
    made.add_argument("--seed", type=int, default=1, help="of all that is drawn (default 1)")
    made.add_argument("--case", type=int, help="this case alone")
    made.add_argument("--save", type=Path, help="JSON file of the figures")
    arguments = made.parse_args(argv)
    results, work = [], OtherWork()
    for module, kind in chosen(arguments.only):
        numbers = range(max(1, round(kind.count * arguments.scale)))
        if arguments.case is not None:
            numbers = range(arguments.case, arguments.case + 1)
        results.append(run(module, kind, arguments.seed, numbers))
        print(table(results[-1:]).splitlines()[-1], flush=True)
        if arguments.save is not None:  # after each kind: one that is stopped leaves what it has
            values = figures(results, arguments.seed, arguments.scale, work.cores())
            arguments.save.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(f"\n{told(results)}{table(results)}")
    return int(any(result.wrong for result in results))


if __name__ == "__main__":
    sys.exit(main())
