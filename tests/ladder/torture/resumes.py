"""Runs that are stopped up to three times, mid-epoch too, and go on with other numbers of threads: the same bits."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from unittest import mock

import pytest
from train_helpers import again, assert_same_run, go

from gpuconv.train import Interrupted, Stepper

from .kind import Case, Kind
from .runs import RECIPES, STEPS, undisturbed


def _run(case: Case) -> str:
    recipe = case.draw.choice(list(RECIPES))
    undisturbed(recipe)
    folder = case.folder / "run"
    stops = sorted(case.draw.sample(range(1, STEPS), case.draw.randint(1, 3)))
    done = 0
    for stop in stops:
        threads = case.draw.choice(("1", "2", "3"))
        how = case.draw.choice((signal.SIGINT, signal.SIGTERM))
        with mock.patch.dict(os.environ, GPUCONV_THREADS=threads):
            _stopped(folder, recipe, stop - done, how)
        done = stop
    with mock.patch.dict(os.environ, GPUCONV_THREADS=case.draw.choice(("1", "2", "3"))):
        again(folder)
    assert_same_run(folder, undisturbed(recipe))
    return recipe


def _stopped(folder: Path, recipe: str, steps: int, how: signal.Signals) -> None:
    """Go on with a run, or begin it, for so many steps."""
    real, seen = Stepper.step, []

    def step(self: Stepper, *arguments: object) -> object:
        seen.append(None)
        if len(seen) == steps:
            signal.raise_signal(how)
        return real(self, *arguments)

    with mock.patch.object(Stepper, "step", step), pytest.raises(Interrupted):
        again(folder) if (folder / "last.safetensors").exists() else go(RECIPES[recipe], folder)
    assert len(seen) == steps


KINDS = (Kind("exact resumes", 50, _run),)
