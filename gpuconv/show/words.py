"""Times, settings and outcomes in words, as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .. import tables
from ..data.pictures import NAMED
from ..folders import quoted
from ..plural import counted
from ..runs.config import OF_WEIGHTS, SIXTEEN_BITS, Config
from ..runs.machine import machine
from ..runs.result import Result
from ..version import gpuconv_version

_OVERFITTED = 0.99
_COMING_DOWN = ("cosine", "one-cycle")  # schedules that end with the lowest rate


_as_flags: ContextVar[bool] = ContextVar("as_flags", default=False)


@contextmanager
def as_flags() -> Iterator[None]:
    """Say settings as flags inside a with block, to people who set them on the command line."""
    token = _as_flags.set(True)
    try:
        yield
    finally:
        _as_flags.reset(token)


def setting(name: str, value: float | None = None) -> str:
    """Return a setting, with a value or without, as whoever began the run wrote it: "lr=0.1", or "--lr 0.1"."""
    flag = _as_flags.get()
    said = f"--{name.replace('_', '-')}" if flag else name
    return said if value is None else f"{said}{' ' if flag else '='}{value:g}"


def too_high_a_rate(config: Config, classes: int, step: int, loss: float, steps: int) -> str:
    """Return a warning of a loss far above that of guessing, and a rate to try."""
    try_next = setting("lr", float(f"{config.lr / 5:.2g}"))
    return (
        f"the loss of step {step:,} is {loss:.3g}, where guessing among {classes:,} classes would be at "
        f"{math.log(classes):.1f}: the rate is high for a run of {counted(steps, 'step')}, "
        f"try {try_next}, or what {_search()} suggests"
    )


def not_finite(config: Config, rate: float, what: str, where: str, kept: str) -> str:
    """Return what went bad and where, what is kept of the run, and the way out."""
    clip = "" if config.clip_norm else f", or {setting('clip_norm', 1)}"
    return (
        f"{what} in {where}, at a learning rate of {rate:.3g}.  {kept or 'Nothing was saved'}; "
        f"lower {setting('lr')} ({config.lr:g} now){clip}; {_search()} looks for a rate"
    )


def _search() -> str:
    return "gpuconv find-lr" if _as_flags.get() else "find_rate"


def facts(config: Config, about: Mapping[str, Any], processes: str = "") -> list[tuple[str, str]]:
    """Return what a run is about to do, as (label, text).   about: what its first event says.

    processes: "2 processes", where it is one of many.
    """
    place = machine()
    where = place.get("gpu") or f"the CPU with {counted(place['threads'], 'thread')}"
    if processes:
        where = f"{processes}, each on {where}"
        norms = "batch norm synchronised" if config.batch_norm == "synchronised" else "batch norm in each"
    images = (
        f"{about['data']}: {about['training_images']:,} train, {about['validation_images']:,} validation, "
        f"{about['test_images']:,} test"
    )
    computes = f"{config.precision} with float32 weights"
    if config.precision not in SIXTEEN_BITS:
        computes = config.dtype + (", factors in TF32," if config.precision == "tf32" else "")
    flips = ["flips in turns" if config.flip_mode == "alternate" else "flips"] if config.flip else []
    moves = [*flips, *([f"shifts up to {counted(config.crop, 'pixel')}"] if config.crop else [])]
    moves += [f"squares of {counted(config.cutout, 'pixel')} cut out"] if config.cutout else []
    steps = min(about["training_images"] // config.batch_size, about["steps"])  # of the first epoch
    recipe = (
        f"{counted(about['epochs'], 'epoch')} of {counted(steps, 'step')} of {counted(config.batch_size, 'image')}; "
        f"{config.optimizer}, {config.schedule} lr {config.lr:g}"
    )
    if config.accumulate > 1:
        recipe += f", {config.accumulate} parts a step"
    if config.clip_norm:
        recipe += f", gradients clipped to {config.clip_norm:g}"
    if config.ema:
        recipe += f", average of weights {config.ema:g}"
    if processes:
        recipe += f"; {norms}"
    net = "that of the weights" if config.net == OF_WEIGHTS else config.net
    return [
        ("gpuconv", f"{gpuconv_version()}, {computes} on {where}, seed {config.seed}"),
        ("net", f"{net}, {counted(about['parameters'], 'parameter')}"),
        ("data", images),
        ("recipe", recipe + (f"; {' and '.join(moves)}" if moves else "")),
    ]


def summary(config: Config, about: Mapping[str, Any], result: Result, skipped: int) -> list[str]:
    """Return the outcome of a run as lines.   skipped: steps that made no update, in float16."""
    chosen = "" if result.validation_accuracy is None else f"validation {result.validation_accuracy:.2%}, "
    tested = f"test {result.test_accuracy:.2%} of {counted(about['test_images'], 'image')}"
    lines = [f"best epoch {result.best_epoch}: {chosen}{tested}"]
    if result.test_accuracy_tta is not None:
        lines.append(f"with the views of tta {config.tta}: test {result.test_accuracy_tta:.2%}")
    if result.ended_by in ("max-minutes", "patience"):
        lines.append(f"ended by {result.ended_by} in epoch {len(result.metrics)} of {about['epochs']}")
    if result.ended_by == "max-minutes" and config.schedule in _COMING_DOWN:
        steps = 60 * config.max_minutes / max(result.seconds, 1e-9) * result.steps
        epochs = int(steps / (about["steps"] / about["epochs"]))
        fits = setting("epochs", epochs) if epochs else setting("max_steps", result.steps)
        lines.append(f"before the rate had come down: {fits} is a schedule that ends in this time")
    if config.precision == "float16":
        lines.append(f"{skipped} of {counted(result.steps, 'step')} skipped for gradients beyond float16")
    if config.overfit and (accuracy := result.validation_accuracy) is not None:
        verdict = "it can learn" if accuracy >= _OVERFITTED else "expected about 100 %"
        lines.append(f"overfit: {accuracy:.2%} of the {counted(config.overfit, 'image')} it was trained on: {verdict}")
    own = about["data"].startswith(NAMED)
    return [
        *lines,
        f"{duration(result.seconds)}, {result.images_per_second:,.0f} images/s in training",
        f"everything is in {result.folder}",
        f"accuracy by class: gpuconv eval {quoted(result.folder)}",
        *([f"try it: gpuconv predict {quoted(result.folder)} PICTURE"] if own else []),
    ]


def labelled(facts: Sequence[tuple[str, str]]) -> list[str]:
    """Return (label, text) as lines of at most 80 columns, the text from the tenth on."""
    return [
        tables.padded("" if number else label, 9) + line
        for label, text in facts
        for number, line in enumerate(tables.wrapped(text, 71))
    ]


def duration(seconds: float) -> str:
    """Return a time as people read it: "8.3 s", "4 min 10 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def short_duration(seconds: float) -> str:
    """Return a time below a second in milliseconds, a longer one as `duration` says it."""
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else duration(seconds)
