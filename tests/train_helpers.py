"""What the tests of the trainer share: a small data set, a tiny recipe, and what makes two runs equal."""

from __future__ import annotations

import csv
import dataclasses
import functools
import signal
from pathlib import Path
from typing import Any

import pytest

from gpuconv import data, train
from gpuconv.runs import sealed
from gpuconv.train import Config, Interrupted, Stepper

TINY = Config(
    widths=(4,),
    epochs=2,
    batch_size=20,
    lr=0.02,
    warmup_steps=0,
    data="shapes",
    validation=100,
    train_images=200,
    test_images=60,
    crop=4,
    pad_mode="zero",
    flip_mode="random",
)  # two epochs of ten steps


@functools.cache
def shapes() -> data.Dataset:
    """Return 300 + 100 drawn pictures."""
    return data.draw_shapes(300, 100)


def names(folder: Path) -> list[str]:
    """Return what lies in a folder."""
    return sorted(entry.name for entry in folder.iterdir())


def run_state(path: Path) -> tuple[dict, dict]:
    """Return (arrays as bytes, values) of a checkpoint, without the times, which differ between equal runs."""
    arrays, values = sealed.read(path)
    position = values["position"]
    del position["seconds"], position["training_seconds"]
    for row in position["rows"]:
        del row["seconds"]
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}, values


def write_format_1(path: Path, arrays: dict, values: dict, classes: Any = None) -> None:
    """Write a checkpoint as it was before it held what the net takes; names of classes are a later addition to that."""
    values = {name: value for name, value in values.items() if name != "inputs"}
    if classes is not None:
        values["data"] = {**values["data"], "classes": classes}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealed, "FORMAT", 1)
        sealed.write(path, arrays, values)


def metrics(folder: Path) -> list[dict]:
    """Return the lines of metrics.csv as texts, without the times."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(folder: Path, other: Path) -> None:
    """Check that two runs ended in the same bits: weights, statistics, optimiser, counters, metrics."""
    for name in ("last.safetensors", "best.safetensors"):
        arrays, values = run_state(folder / name)
        other_arrays, other_values = run_state(other / name)
        assert values == other_values
        assert arrays == other_arrays
    assert metrics(folder) == metrics(other)
    assert (folder / "config.toml").read_text() == (other / "config.toml").read_text()


def change(**settings) -> Config:
    """Return TINY with other settings."""
    return dataclasses.replace(TINY, **settings)


def go(config: Config, folder: Path, **keywords) -> train.Result:
    """Run from the first step to the last."""
    return train.train(config, folder=folder, dataset=shapes(), progress="none", **keywords)


def again(folder: Path) -> train.Result:
    """Go on with a run."""
    return train.resume(folder, dataset=shapes(), progress="none")


def watch(monkeypatch, owner, name: str) -> list[tuple]:
    """Return a list to which every call adds (arguments, keywords, what it returned)."""
    real, seen = getattr(owner, name), []

    def watched(*arguments, **keywords):
        result = real(*arguments, **keywords)
        seen.append((arguments, keywords, result))
        return result

    monkeypatch.setattr(owner, name, watched)
    return seen


def interrupt(folder: Path, config: Config, *, step: int, signum: int = signal.SIGINT) -> Interrupted:
    """Start a run in folder that gets a signal within a step."""
    with pytest.MonkeyPatch.context() as patch:
        real, seen = Stepper.step, []

        def watched(self, *arguments):
            seen.append(None)
            if len(seen) == step:
                signal.raise_signal(signum)
            return real(self, *arguments)

        patch.setattr(Stepper, "step", watched)
        with pytest.raises(Interrupted) as caught:
            go(config, folder)
        assert len(seen) == step  # the step was finished, and no other begun
    return caught.value
