"""Build kernels ahead of time, in several processes: they fill CuPy's cache of PTX and the emulator's of libraries.

python -m tests.cupy_emulated -m cupy_emulated.build FILE [--processes N]

FILE has a line of JSON for each module: what CUPY_EMULATED_RECORD wrote, or {"text": ..., "options": [...],
"names": [...]} for what a program gives to cupy.RawModule.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence

from .errors import CupyEmulatedError


def line(text: str, options: Sequence[str], names: Sequence[str]) -> str:
    """Return the line of a module of one's own: kernel text, options, name expressions."""
    return json.dumps({"text": text, "options": list(options), "names": list(names)})


def build(lines: Iterable[str], processes: int | None = None) -> list[str]:
    """Build what the lines describe; return a message for each that could not be built."""
    work = iter(list(dict.fromkeys(lines)))
    failed: list[str] = []
    lock = threading.Lock()

    def feed() -> None:
        worker = subprocess.Popen(
            [sys.executable, "-m", "cupy_emulated.build", "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdin is not None and worker.stdout is not None  # noqa: PT018
        with worker:
            while True:
                with lock:
                    one = next(work, None)
                if one is None:
                    worker.stdin.close()
                    return
                worker.stdin.write(one.rstrip("\n") + "\n")
                worker.stdin.flush()
                answer = worker.stdout.readline()
                message = json.loads(answer) if answer else "the process that built it ended"
                if message:
                    with lock:
                        failed.append(message)
                if not answer:
                    return

    threads = [threading.Thread(target=feed) for _ in range(processes or os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed + ["not built: every process ended early" for _ in work]


def _work() -> None:
    """Build line after line of standard input; answer each with a message, or an empty one."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what compilers print is no answer
    for one in sys.stdin:
        message = ""
        try:
            _build_one(one)
        except Exception as error:  # noqa: BLE001 - of any kernel, whatever it is
            message = f"{type(error).__name__}: {error}"
        answers.write(json.dumps(message) + "\n")
        answers.flush()


def _build_one(one: str) -> None:
    import cupy

    from . import record

    made = json.loads(one)
    if "source" in made:
        return record.build(one)
    cupy.RawModule(
        code=made["text"], options=tuple(made["options"]), name_expressions=tuple(made["names"]) or None
    ).compile()
    return None


def main() -> None:
    """Build what a file describes."""
    parser = argparse.ArgumentParser(prog="cupy_emulated.build", description=__doc__)
    parser.add_argument("file", nargs="?", help="lines of JSON; - for standard input")
    parser.add_argument("--processes", type=int, default=None, help="as many as there are processors, unless given")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return _work()
    if arguments.file is None:
        parser.error("FILE is missing")
    if "cupy_emulated.activate" not in sys.modules:
        msg = "run this as python -m tests.cupy_emulated -m cupy_emulated.build FILE"
        raise CupyEmulatedError(msg)
    with sys.stdin if arguments.file == "-" else open(arguments.file, encoding="utf-8") as file:  # noqa: PTH123
        failed = build(file, arguments.processes)
    sys.stderr.write("".join(f"cupy-emulated: {message}\n" for message in failed))
    return sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
