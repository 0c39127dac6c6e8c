"""Programs that run with a time limit, each as a group of processes that ends together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from . import ROOT, TESTS

_GROUPS = "GPUCONV_LADDER_GROUPS"  # names the file in which a section notes the groups that it starts
_LAST_WORDS = 5.0  # seconds for what a program that was ended has left to be read


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a program that imports gpuconv and the tests from this checkout, installed or not.

    What the CPU computes beside a GPU is NumPy's: on a fresh machine compiled loops would be compiled first.
    """
    places = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), str(ROOT), str(TESTS)]
    python_path = os.pathsep.join(dict.fromkeys(places))
    return {"GPUCONV_COMPILED": "0", **os.environ, "PYTHONPATH": python_path, **variables}


def run_group(command: list[str], seconds: float, **variables: str) -> tuple[int | None, str, str]:
    """Run a program in the checkout; return its status, None if it had to be ended with all it started, and output."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    if noted := os.environ.get(_GROUPS):
        with Path(noted).open("a", encoding="utf-8") as file:
            file.write(f"{process.pid}\n")
    status: int | None = None
    try:
        out, errors = process.communicate(timeout=max(seconds, 0.1))
        status = process.returncode
    except subprocess.TimeoutExpired:
        end(process.pid)
        out, errors = _last_words(process)
    finally:
        end(process.pid)  # what the program left behind, and all of it where this one is interrupted
    return status, out, errors


def _last_words(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return the output of a program that was ended; of one that a driver holds, or a child of another group, what is there."""
    try:
        return process.communicate(timeout=_LAST_WORDS)
    except subprocess.TimeoutExpired as late:
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()
        process.poll()
        return _text(late.stdout), _text(late.stderr)


def _text(read: bytes | str | None) -> str:
    return read.decode(errors="replace") if isinstance(read, bytes) else read or ""


def run_section_group(command: list[str], seconds: float, noted: Path, **variables: str) -> tuple[int | None, str, str]:
    """Do the same for a program that starts groups of its own, and end them with it."""
    noted.write_text("", encoding="utf-8")
    result = run_group(command, seconds, **{_GROUPS: str(noted)}, **variables)
    for line in noted.read_text(encoding="utf-8").splitlines():
        end(int(line))
    return result


def end(group: int) -> None:
    """End all processes of a group that are left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
