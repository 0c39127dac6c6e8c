"""Measure what the README shows, on a quiet machine: its cases in three runs, whole steps, and gpuconv beside itself.

    python -m bench.readme                     all three parts, into bench/results/
    python -m bench.readme operators           the table's three runs alone

Then `python -m bench.report` writes the tables.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable
from pathlib import Path

from gpuconv.errors import GpuconvError

from . import run
from .report import RESULTS

_RUNS, _ROUNDS = 3, 3  # what about eight minutes suffice for; other processes, other rounds


def operators(folder: Path, date: str, threads: int | None) -> None:
    """Measure the README's cases beside PyTorch and NumPy alone; one thread in the first run, for it needs one only."""
    for number in range(1, _RUNS + 1):
        run.bench(
            peer_names=("torch", "gpuconv-numpy"),
            threads=threads,
            rounds=_ROUNDS,
            memory=False,
            one_thread=number == 1,
            save=folder / f"operators-cpu-{date}-{number}.json",
        )


def steps(folder: Path, date: str, threads: int | None) -> None:
    """Measure whole training steps beside PyTorch."""
    run.bench(
        set_name="steps",
        peer_names=("torch",),
        threads=threads,
        rounds=_ROUNDS,
        memory=False,
        save=folder / f"steps-cpu-{date}.json",
    )


def noise(folder: Path, date: str, threads: int | None) -> None:
    """Measure gpuconv beside itself."""
    run.bench(peer_names=("self",), threads=threads, rounds=8, memory=False, save=folder / f"aa-cpu-{date}.json")


PARTS: dict[str, Callable[[Path, str, int | None], None]] = {"operators": operators, "steps": steps, "noise": noise}


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} [all]")
    parser.add_argument("--threads", metavar="N", type=int, help="threads of every side [the usable cores]")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the files go [bench/results]")
    arguments = parser.parse_args(argv)
    for part in arguments.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}: choose from {', '.join(PARTS)}")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        for part in arguments.parts or PARTS:
            PARTS[part](arguments.folder, date, arguments.threads)
    except GpuconvError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
