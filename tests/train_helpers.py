"""What the tests of the trainer share: a small data set, a tiny recipe, and what makes two runs equal."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

from gpuconv import data
from gpuconv.train import Config, checkpoint

TINY = Config(
    widths=(4,), epochs=2, batch_size=20, lr=0.02, data="shapes", validation=100, train_images=200, test_images=60
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
    arrays, values = checkpoint.load(path)
    position = values["position"]
    del position["seconds"], position["training_seconds"]
    for row in position["rows"]:
        del row["seconds"]
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}, values


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
