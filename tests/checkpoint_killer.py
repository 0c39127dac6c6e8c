"""Fork processes that save checkpoints without pause, kill them, and report in JSON what is left on the disk.

Run by test_checkpoint.py as `python checkpoint_killer.py random|points|limit FOLDER`.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

from gpuconv import durable
from gpuconv.errors import CheckpointWriteError
from gpuconv.runs import sealed

ENTRIES = 100_000  # 400 kB: several writes, and a save of about a millisecond


def save(path: Path, generation: int) -> None:
    sealed.write(path, {"w": np.full(ENTRIES, generation, np.float32)}, {"generation": generation})


def generation_of(path: Path, problems: list[str]) -> int:
    """Return which save the file is from, after a look at every value."""
    try:
        arrays, values = sealed.read(path)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test is for
        problems.append(f"{type(error).__name__}: {error}")
        return -1
    if not (arrays["w"] == values["generation"]).all():
        problems.append(f"values of another generation in {values}")
    return values["generation"]


def fork(work) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    return child


def kill_at_random(path: Path, problems: list[str]) -> int:
    """Kill 80 writers, each some microseconds after it reported some finished save."""
    draw = random.Random(0)
    for _ in range(80):
        reader, writer = os.pipe()
        first = generation_of(path, problems) + 1

        def work(first: int = first, writer: int = writer) -> None:
            for generation in range(first, first + 10**9):
                save(path, generation)
                os.write(writer, generation.to_bytes(8, "little"))

        child = fork(work)
        os.close(writer)
        done = first - 1
        for _ in range(draw.randrange(1, 4)):
            done = int.from_bytes(os.read(reader, 8), "little")
        until = time.perf_counter_ns() + draw.randrange(2_000_000)
        while time.perf_counter_ns() < until:
            pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while report := os.read(reader, 8):  # saves it finished while we were aiming
            done = int.from_bytes(report, "little")
        os.close(reader)
        if not done <= generation_of(path, problems) <= done + 1:
            problems.append(f"save {done} was finished but is not there")
    return 80


def kill_at_points(path: Path, problems: list[str]) -> int:
    """Kill one writer before and one after each system call of a save."""
    kills = 0
    for after in (False, True):
        for point in range(10**6):
            before = generation_of(path, problems)

            def work(point: int = point, after: bool = after, before: int = before) -> None:
                durable.os = Suicidal(point, after)
                save(path, before + 1)
                os._exit(0)

            _, status = os.waitpid(fork(work), 0)
            if generation_of(path, problems) not in (before, before + 1):
                problems.append(f"point {point}: a wrong generation")
            if not os.WIFSIGNALED(status):
                if os.WEXITSTATUS(status) != 0 or generation_of(path, problems) != before + 1:
                    problems.append(f"point {point}: the save that nobody killed failed")
                break
            kills += 1
    return kills


class Suicidal:
    """The os module, in which one call is the last."""

    def __init__(self, point: int, after: bool) -> None:
        self.left, self.after = point, after

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in ("open", "write", "read", "fchmod", "fsync", "replace", "close"):
            return real

        def call(*arguments):
            self.left -= 1
            if self.left == -1 and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "write":
                arguments = (arguments[0], arguments[1][:40_000])
            result = real(*arguments)
            if self.left == -1:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


def leftovers(path: Path) -> list[str]:
    """Return what lies beside the checkpoint."""
    return sorted(entry.name for entry in path.parent.iterdir() if entry != path)


def main() -> None:
    mode, folder = sys.argv[1], Path(sys.argv[2])
    path, problems, seen = folder / "last.safetensors", [], {}
    save(path, 0)
    if mode == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
        try:
            save(path, 1)
        except CheckpointWriteError as error:
            seen |= {"error": type(error).__name__, "message": str(error)}
        if generation_of(path, problems) != 0:
            problems.append("the old checkpoint is gone")
    else:
        seen["kills"] = (kill_at_random if mode == "random" else kill_at_points)(path, problems)
    seen["problems"] = problems
    seen["leftovers_before_cleaning"] = leftovers(path)
    seen["stale"] = len(durable.remove_stale(folder))
    seen["leftovers_after_cleaning"] = leftovers(path)
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main()
