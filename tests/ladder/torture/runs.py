"""Small training runs that are killed, stopped or starved, and held to the bits of the same run left in peace."""

from __future__ import annotations

import functools
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from train_helpers import again, assert_same_run, change, go, shapes

from gpuconv import durable, train
from gpuconv.errors import ConfigError
from gpuconv.runs import sealed
from gpuconv.train import Config, Stepper

# Between them all that a checkpoint keeps: average of weights, scale of the loss, parts of a step, each rule's memory.
RECIPES = {
    "ema": change(ema=0.9, cutout=3, pad_mode="reflect", checkpoint_every=3),
    "float16": change(precision="float16", ema=0.8, accumulate=2, checkpoint_every=4, seed=2**63 + 5),
    "muon": change(optimizer="muon", clip_norm=0.5, label_smoothing=0.1, checkpoint_every=3),
    "adam": change(optimizer="adamw", dtype="float64", lr=1e-3, patience=5, checkpoint_every=7),
    "rmsprop": change(optimizer="rmsprop", lr=1e-3, schedule="cosine", flip_mode="alternate", checkpoint_every=3),
}
STEPS = 20
CPU_SECONDS = 200  # of a child


@functools.cache
def _peace() -> Path:
    """Return the folder of undisturbed runs; it lies among this process's temporary files, which go with it."""
    return Path(tempfile.mkdtemp(prefix="undisturbed-"))


@functools.cache
def undisturbed(recipe: str) -> Path:
    """Return the folder of a recipe's run that nothing happened to."""
    go(RECIPES[recipe], _peace() / recipe)
    return _peace() / recipe


@functools.cache
def calls_of_saves(recipe: str) -> int:
    """Return how many calls of the system the saves of an undisturbed run make."""
    counting = Failing(-1, lambda: None)
    before = durable.os
    durable.os = counting  # type: ignore[assignment]
    try:
        go(RECIPES[recipe], _peace() / f"{recipe}, counted")
    finally:
        durable.os = before
    return -1 - counting.left


class Failing:
    """The os module as durable.py sees it, one of whose calls is preceded, or followed, by something else."""

    def __init__(self, place: int, harm: Callable[[], None], *, after: bool = False) -> None:
        self.left, self.harm, self.after = place, harm, after

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if name not in ("open", "write", "read", "fchmod", "fsync", "replace", "close"):
            return real

        def call(*arguments: object) -> object:
            self.left -= 1
            now = self.left == -1
            if now and not self.after and name != "close":  # of a file that stays open the next call would know nothing
                self.harm()
            result = real(*arguments)
            if now and (self.after or name == "close"):
                self.harm()
            return result

        return call


def kill_itself() -> None:
    """Leave nothing behind but what is on the disk."""
    os.kill(os.getpid(), signal.SIGKILL)


class Child:
    """A forked process, and a pipe by which it tells."""

    def __init__(self, work: Callable[[int], int]) -> None:
        """work: gets the pipe's end, returns the exit status; stderr goes into the pipe as well."""
        self.reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                os.close(self.reader)
                os.dup2(writer, 2)
                resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
                status = work(writer)
                sys.stdout.flush()
            except BaseException:  # noqa: BLE001 - told, and counted as wrong there
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        os.close(writer)

    def read(self, count: int) -> bytes:
        """Return the next bytes it tells; fewer if it ends."""
        told = b""
        while len(told) < count and (piece := os.read(self.reader, count - len(told))):
            told += piece
        return told

    def finish(self) -> tuple[int, bytes]:
        """Return its status, negative for a signal, and all it told."""
        told = b""
        while piece := os.read(self.reader, 1 << 16):
            told += piece
        os.close(self.reader)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), told

    def kill(self, signum: int) -> None:
        os.kill(self.pid, signum)


def telling_steps(pipe: int) -> None:
    """Let every training step of this process tell one byte when it begins."""
    real = Stepper.step

    def step(self: Stepper, *arguments: object) -> object:
        os.write(pipe, b"s")
        return real(self, *arguments)

    Stepper.step = step  # type: ignore[method-assign, assignment]


def start(config: Config, folder: Path) -> int:
    """Run from the first step to the last, in a child."""
    train.train(config, folder=folder, dataset=shapes(), progress="none")
    return 0


def assert_goes_on(folder: Path, recipe: str) -> str:
    """Check that what a disturbed run left is sound, and goes on to the bits of the undisturbed one."""
    left = folder / "last.safetensors"
    if not left.exists():
        with pytest.raises(ConfigError, match="there is no checkpoint"):
            again(folder)
        return "nothing was saved yet"
    sealed.read(left)
    again(folder)
    assert_same_run(folder, undisturbed(recipe))
    litter = [entry.name for entry in folder.iterdir() if entry.name.endswith(".part")]
    assert not litter, f"left behind: {litter}"
    return "went on"
