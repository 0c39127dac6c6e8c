"""What failed in command A, again: with launches that wait, and with gpuconv's own checks."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from .groups import run_group
from .kernel_calls import CALLS, assert_as_expected
from .work import Work, read

DEBUG = {"CUDA_LAUNCH_BLOCKING": "1", "GPUCONV_DEBUG": "1"}
_MOST_TESTS = 40
_AGAIN = ("kernels", "steps", "training")  # sections of A that go through their dry run when they failed


def run(work: Work) -> bool | None:
    """Run the tests and calls that failed, and a small share of the sections that did; keep what each says."""
    if work.dry:
        work.leave_out("what failed in A: of a dry run, a call and a test that are right")
    before = _before(work)
    if before is None:
        work.keep(why=f"nothing to repeat: there is no result of A at {work.after}")
        return None
    sections = before["sections"]
    failed = {name: found.get("failed", []) for name, found in sections.items() if found.get("ok") is False}
    if not failed:
        work.keep(why="nothing failed in A")
        return True
    work.keep(**{"failed in A": {name: len(messages) for name, messages in failed.items()}})
    still: list[str] = []
    still += _tests(work, failed.get("tests", []))
    still += _calls(work, failed.get("smoke", []))
    for name in _AGAIN:
        if name in failed:
            still += _section(work, name)
    work.keep(shown=[f"failed again: {message}"[:160] for message in still[:8]], failed=still)
    return not still


def _before(work: Work) -> dict[str, Any] | None:
    """Return what A found; of a dry run, one call and one test as if they had failed."""
    if work.dry:
        sections = {
            "smoke": {"ok": False, "failed": ["relu_rows, float32, NCHW: as if"]},
            "tests": {"ok": False, "failed": ["tests/test_relu.py"]},
        }
        return {"sections": sections}
    return read(work.after) or None if work.after is not None else None


def _tests(work: Work, names: list[str]) -> list[str]:
    """Run tests again, one after the other in one process."""
    from . import gpu_tests

    if not names:
        return []
    lines = work.scratch / "again.jsonl"
    lines.write_text("", encoding="utf-8")
    start = time.monotonic()
    gpu_tests.pytest(names[:_MOST_TESTS], 0.6 * work.left(), lines, long=True, **DEBUG)
    found = gpu_tests.summary(lines)
    found["left out"] = len(names[_MOST_TESTS:])
    work.keep(**{"tests again": found, "tests s": round(time.monotonic() - start, 1)})
    return found["failed"]


def _calls(work: Work, failures: list[str]) -> list[str]:
    """Run calls again, each in a process of its own."""
    still = []
    for name in dict.fromkeys(failure.partition(":")[0] for failure in failures):
        if work.left() < 5:
            still.append(f"{name}: not repeated, time was spent")
            continue
        command = [sys.executable, "-m", f"{__package__}.failed", *name.split(", ")]
        status, out, errors = run_group(command, min(20, work.left()), **DEBUG)
        if status != 0:
            still.append(f"{name}: status {status}: {' '.join((out + errors).split())[-600:]}")
    work.keep(**{"calls again": still})
    return still


def _section(work: Work, name: str) -> list[str]:
    """Go through a section's dry run."""
    kept = work.scratch / f"{name}.again"
    command = [sys.executable, "-m", f"{__package__}.gpu_run", "A", "--dry-run", "--section", name]
    command += [
        "--until",
        f"{time.monotonic() + min(20, work.left()):.3f}",
        "--kept",
        str(kept),
        "--scratch",
        str(work.scratch),
    ]
    status, _, errors = run_group([*command, "--out", str(work.scratch)], min(25, work.left()), **DEBUG)
    found = read(kept)
    work.keep(**{f"{name} again": found})
    if status == 0 and found.get("ok") is not False:
        return []
    reason = found.get("why") or json.dumps(found.get("failed", "")) or " ".join(errors.split())[-300:]
    return [f"{name}: status {status}: {reason}"]


def main(name: str, dtype: str, memory: str) -> None:
    """Run one call beside the CPU backend."""
    from places import Cuda

    call = CALLS[name]
    assert_as_expected(call.on(Cuda, dtype, memory), call.expected(dtype, memory))


if __name__ == "__main__":
    main(*sys.argv[1:])
