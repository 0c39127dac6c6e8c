"""Signals to a training run, at any moment: it ends after the step, saves, says how to go on, and does to the same bits."""

from __future__ import annotations

import os
import signal
import time

from gpuconv import cli, data
from gpuconv.runs import settings

from .kind import Case, Kind
from .runs import RECIPES, STEPS, Child, assert_goes_on, shapes, telling_steps, undisturbed

_MORE_STEPS = 2  # that may begin once a signal has come


def _run(case: Case) -> str:
    """Signal some microseconds after a step began; the pipe then holds steps and signals in their order."""
    recipe, steps = case.draw.choice(list(RECIPES)), case.draw.randint(1, STEPS)
    signum = case.draw.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    folder, config = case.folder / "run", case.folder / "config.toml"
    config.write_text(settings.to_toml(RECIPES[recipe]), encoding="utf-8")
    undisturbed(recipe)

    def work(pipe: int) -> int:
        data.load = lambda name, **_: shapes()
        signal.signal(signum, signal.SIG_DFL if signum != signal.SIGINT else signal.default_int_handler)
        os.set_blocking(pipe, False)
        signal.set_wakeup_fd(pipe)
        telling_steps(pipe)
        return cli.main(["train", "--config", str(config), "--run-dir", str(folder), "--progress", "none"])

    child = Child(work)
    told = child.read(steps)
    assert told == b"s" * steps, told.decode()
    until = time.perf_counter_ns() + case.draw.randrange(20_000_000)
    while time.perf_counter_ns() < until:
        os.sched_yield()
    child.kill(signum)
    status, told = child.finish()
    after = told.partition(bytes([signum]))[2]
    text = after.lstrip(b"s").decode(errors="replace")
    if status == 0 or (status == -signum and (folder / "result.json").exists()):  # the run was over
        return "had finished"
    assert status == 128 + signum, f"status {status}: {text}"
    begun = len(after) - len(after.lstrip(b"s"))
    assert begun <= _MORE_STEPS, f"{begun} steps began after the signal"
    assert text == f"gpuconv: stopped by {signum.name}; to go on: gpuconv train --resume {folder}\n", text
    return assert_goes_on(folder, recipe)


KINDS = (Kind("signals", 100, _run),)
