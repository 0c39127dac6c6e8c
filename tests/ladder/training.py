"""The trainer on a GPU from end to end: seconds an epoch, and whether the nets learn what they learn on a CPU."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from gpuconv.backend import using
from gpuconv.data.dataset import Dataset, channel_statistics
from gpuconv.show.terminal import Progress
from gpuconv.train import PRESETS, start, train

from . import ROOT
from .predictions import predictions, share, step_ms
from .work import Work

_TINY: dict[str, dict[str, Any]] = {  # settings with which a step is small
    "convnet": {"widths": (8, 8, 8)},
    "resnet18": {"widths": (8, 8, 8, 8)},
    "speedrun": {"widths": (8, 16, 16)},
}
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
_LESS = 0.03  # of accuracy, as a seed may make it differ from the CPU's
_DATA = "cifar"


def unpacked(scratch: Path) -> Path:
    """Return the folder into which a packed copy of CIFAR-10 is unpacked."""
    return scratch / _DATA


def drawn(batch: int, steps: int, seed: int = 0) -> Dataset:
    """Return random pictures for so many steps: what a step costs does not depend on what they show."""
    rng = np.random.default_rng(seed)
    count, few = batch * steps, 16
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, count)
    classes = tuple(f"class {i}" for i in range(10))
    mean, std = channel_statistics(images[:1000])
    return Dataset("random", classes, images, labels, images[:few], labels[:few], mean, std, "drawn")


def begun(preset: str, batch: int, precision: str, steps: int, *, tiny: bool, graph: str = "off") -> Any:
    """Return a run of a preset before its first step, on random pictures."""
    settings = {"batch_size": batch, "precision": precision, "validation": 0, "tta": "none", "graph": graph}
    config = dataclasses.replace(PRESETS[preset], **settings, **(_TINY[preset] if tiny else {}))
    return start.begin(config, drawn(batch, steps), Progress())


def one_step(preset: str, precision: str) -> float:
    """Do a small step, so that the kernels of CuPy that training needs are compiled; return the seconds it took."""
    start = time.monotonic()
    with using("cuda"):
        run = begun(preset, 16, precision, 2, tiny=False)
        for batch in run.feed.epoch(0, 0, 2):
            run.rehearse(batch)
    return time.monotonic() - start


def run(work: Work) -> bool | None:
    """Train presets on CIFAR-10, or, where it is not given, on drawn shapes."""
    work.keep(epochs={})
    chosen = predictions()["training"]
    if work.dry:
        chosen = [each for each in chosen if each["preset"] == "convnet"]
        work.leave_out("speedrun", "CIFAR-10", "all but 2 epochs of 4 steps of a small convnet", "seconds")
    return work.each(chosen, lambda each: _train(work, each["preset"], each["precision"]), words)


def words(each: dict[str, Any]) -> str:
    """Return a run as messages show it."""
    return f"{each['preset']}, {each['precision']}"


def _train(work: Work, preset: str, precision: str) -> None:
    settings: dict[str, Any] = {"device": "cuda", "data": "shapes", "precision": precision}
    folder = unpacked(work.scratch) if unpacked(work.scratch).exists() else work.data
    if folder is not None and not work.dry:
        settings |= {"data": "cifar10", "data_dir": str(folder), "download": False}
    if work.dry:
        settings |= {"epochs": 2, "train_images": 96, "test_images": 32, "validation": 32, "batch_size": 16}
        settings |= _TINY[preset]
    config = dataclasses.replace(PRESETS[preset], **settings)
    result = train(config, folder=work.scratch / f"run-{preset}-{precision}", progress="none")
    found = {
        "data": result.data,
        "epochs": len(result.metrics),
        "loss": [row["train_loss"] for row in result.metrics],
        "test accuracy": result.test_accuracy,
        "test accuracy of averaged views": result.test_accuracy_tta,
    }
    name = f"{preset}, {precision}"
    shown = f"{name}, on {result.data}: test accuracy {result.test_accuracy:.2%}"
    if not work.dry:
        steps = result.steps / len(result.metrics)
        each = [row["seconds"] for row in result.metrics]
        ms = step_ms(preset, config.batch_size, precision)
        expected = None if ms is None else round(steps * ms / 1e3, 3)
        ratio = share(sorted(each)[len(each) // 2], expected)
        found |= {
            "seconds of each epoch": each,
            "seconds": result.seconds,
            "images per second": result.images_per_second,
            "predicted seconds of an epoch's steps": expected,
            "measured / predicted": ratio,
        }
        shown += f", {min(each):.2f} to {max(each):.2f} s an epoch (steps predicted: {expected} s, x{ratio})"
    work.keep(**{name: found, "shown": [*work.found.get("shown", []), shown]})
    _hold(work, name, preset, result, found)


def _hold(work: Work, name: str, preset: str, result: Any, found: dict[str, Any]) -> None:
    """Raise where a net learns less than it should: as much as on a CPU, where that is known."""
    if not np.isfinite(found["loss"]).all():
        msg = f"the loss is {found['loss']}"
        raise AssertionError(msg)
    if work.dry:
        return
    cpu = _on_cpu(preset, result.data, len(result.metrics))
    found["test accuracy on a CPU"] = cpu
    work.keep(**{name: found})
    least = 0.5 if cpu is None else cpu - _LESS
    if result.test_accuracy < least:
        msg = f"test accuracy {result.test_accuracy:.4f}, at least {least:.4f} expected"
        raise AssertionError(msg)


def _on_cpu(preset: str, data: str, epochs: int) -> float | None:
    """Return what the newest committed run of this preset on the same data, as long, came to on a CPU."""
    for path in sorted((ROOT / "bench" / "results").glob(f"train-{preset}-*.json"), reverse=True):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if (kept["data"], kept["epochs"]) == (data, epochs):
            return float(kept["test_accuracy"])
    return None
