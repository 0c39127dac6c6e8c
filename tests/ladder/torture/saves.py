"""kill -9 of a training run: inside its saves, before or after any call of the system, and at any moment."""

from __future__ import annotations

import os
import signal
import time

from gpuconv import durable

from .kind import Case, Kind
from .runs import (
    RECIPES,
    STEPS,
    Child,
    Failing,
    assert_goes_on,
    calls_of_saves,
    kill_itself,
    start,
    telling_steps,
    undisturbed,
)


def _inside_a_save(case: Case) -> str:
    recipe, after = case.draw.choice(list(RECIPES)), case.draw.random() < 0.5
    place = case.draw.randrange(calls_of_saves(recipe))
    folder = case.folder / "run"

    def work(_: int) -> int:
        durable.os = Failing(place, kill_itself, after=after)  # type: ignore[assignment]
        return start(RECIPES[recipe], folder)

    undisturbed(recipe)
    status, told = Child(work).finish()
    assert status == -signal.SIGKILL, f"status {status}: {told.decode()}"
    return assert_goes_on(folder, recipe)


def _at_any_moment(case: Case) -> str:
    """Kill some microseconds after a step began: nearly the same moment each time, as other work allows."""
    recipe, steps = case.draw.choice(list(RECIPES)), case.draw.randint(1, STEPS)
    folder = case.folder / "run"

    def work(pipe: int) -> int:
        telling_steps(pipe)
        return start(RECIPES[recipe], folder)

    undisturbed(recipe)
    child = Child(work)
    child.read(steps)
    until = time.perf_counter_ns() + case.draw.randrange(20_000_000)
    while time.perf_counter_ns() < until:
        os.sched_yield()
    child.kill(signal.SIGKILL)
    status, told = child.finish()
    assert status in (-signal.SIGKILL, 0), f"status {status}: {told.decode()}"
    return "had finished" if status == 0 else assert_goes_on(folder, recipe)


KINDS = (Kind("kills inside a save", 250, _inside_a_save), Kind("kills at any moment", 250, _at_any_moment))
