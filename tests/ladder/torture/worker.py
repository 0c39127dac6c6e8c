"""The process that runs cases: one line of JSON for each, and its end when one of them hangs.

    python -m tests.ladder.torture.worker MODULE NAME SEED FIRST LAST

A case that computes for longer than CPU_SECONDS ends the process, with the stacks of all its threads on stderr; so does
one that waits without an end, by the SIGPROF that whoever started the process sends.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import sys

from .kind import Kind

CPU_SECONDS = 300.0  # of this process alone: other work on the machine does not count


def kinds(module: str) -> tuple[Kind, ...]:
    """Return the kinds of a module."""
    found: tuple[Kind, ...] = importlib.import_module(module).KINDS
    return found


def main(argv: list[str]) -> int:
    """Run cases of one kind."""
    module, name, seed, first, last = argv
    answers = os.dup(1)
    os.dup2(2, 1)  # what cases print is no answer
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored in a job of a script's background
    faulthandler.enable()
    (kind,) = (kind for kind in kinds(module) if kind.name == name)
    faulthandler.register(signal.SIGPROF, chain=True)
    for number in range(int(first), int(last)):
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        outcome = kind.outcome(number, int(seed))
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(answers, json.dumps(outcome.values()).encode() + b"\n")
    os.close(answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
