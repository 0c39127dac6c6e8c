"""A dry run: everything up to the first step, one step and one batch of evaluation timed, and no folder."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ..backend import using
from .config import Config
from .evaluation import BATCH_SIZE, evaluate, views
from .journal import check_tensorboard
from .loop import begin
from .report import duration, labelled, report

_STEPS = 3  # the first, which also warms up, and two that are timed


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a run would be: counts, bytes, and times in seconds."""

    steps: int
    step_seconds: float
    evaluation_seconds: float  # of one batch of validation or test images
    seconds: float  # estimated, of the whole run
    weight_bytes: int  # weights, gradients, the optimiser's vectors, averages
    activation_bytes: int  # outputs of the layers for one part of a batch
    data_bytes: int


def rehearse(config: Config, *, progress: str = "auto", dataset: Any = None) -> Rehearsal:
    """Show what a run would be and how long it would take; nothing is written, and nothing downloaded.

    The memory is what the run is known to hold; what operators need for a moment comes on top.
    Raises what `train` raises before its first step, NonFiniteLossError if that step would, and DatasetMissingError for
    data that are still to be downloaded.
    """
    if config.tensorboard:
        check_tensorboard()
    with using(config.device), report(progress) as says:
        run = begin(replace(config, download=False), dataset, says)
        config = run.config
        with run.feed:
            for number, batch in enumerate(run.feed.epoch(0, 0, min(_STEPS, run.plan.steps_of(0)))):
                if number <= 1:  # the second is the first to be timed, but where there is only one
                    start, timed = time.perf_counter(), 0
                run.rehearse(batch)
                timed += 1
                del batch
        step_seconds = (time.perf_counter() - start) / timed
        split = run.split
        start = time.perf_counter()
        evaluate(
            run.net,
            split.x_test[:BATCH_SIZE],
            split.y_test[:BATCH_SIZE],
            mean=run.dataset.mean,
            std=run.dataset.std,
            classes=len(run.dataset.classes),
        )
        seen = min(BATCH_SIZE, len(split.y_test))
        evaluation_seconds = time.perf_counter() - start
        times = sum(1 for _ in views(split.x_test[:1], config.tta))
        tested = len(split.y_test) * (1 if times == 1 else 1 + times) + run.plan.epochs * len(split.y_validation)
        seconds = run.plan.steps * step_seconds + tested / seen * evaluation_seconds
        held_out = split.x_validation[: 0 if config.overfit else None]  # which are the training images otherwise
        found = Rehearsal(
            steps=run.plan.steps,
            step_seconds=step_seconds,
            evaluation_seconds=evaluation_seconds,
            seconds=seconds,
            weight_bytes=_weights(run),
            activation_bytes=_activations(run.net, config),
            data_bytes=split.x_train.nbytes + held_out.nbytes + split.x_test.nbytes,
        )
        for line in _lines(run, found):
            says.note(line)
        return found


def _weights(run: Any) -> int:
    """Return the bytes of a run's vectors and statistics."""
    arrays = [run.net.flat_params, run.net.flat_grads, *run.net.state.values(), *run.optimiser.state.values()]
    arrays += [] if run.average is None else run.average.state.values()
    return sum(array.nbytes for array in arrays) + run.arithmetic.nbytes


def _activations(net: Any, config: Config) -> int:
    """Return the bytes of every layer's output for one part of a batch, which the backward needs."""
    images = config.batch_size // config.accumulate
    size = 2 if config.precision == "float16" else net.dtype.itemsize
    outputs: list[int] = [prod(net.input_shape)]

    def walk(layer: Any, shape: tuple[int, ...]) -> None:
        children = layer.children()
        if not children:
            outputs.append(prod(layer.output_shape(shape)))
            return
        for child in children.values():
            walk(child, shape)
            if layer.chained:
                shape = child.output_shape(shape)

    walk(net.body, net.input_shape)
    return sum(outputs) * images * size


def _lines(run: Any, found: Rehearsal) -> list[str]:
    """Return what a dry run says, in 80 columns but for the names of layers."""
    seen = min(BATCH_SIZE, len(run.split.y_test))
    memory = (
        f"{_bytes(found.weight_bytes)} weights and what belongs to them, about {_bytes(found.activation_bytes)} "
        f"activations, {_bytes(found.data_bytes)} pictures"
    )
    rows = [
        ("memory", memory),
        ("a step", duration_of(found.step_seconds)),
        ("a test", f"{duration_of(found.evaluation_seconds)} for {seen} images"),
        ("the run", f"about {duration(found.seconds)} for {found.steps:,} steps, validation and test included"),
    ]
    return [*labelled(run.facts()), "", run.net.summary(), "", *labelled(rows), "", "dry run: nothing was written"]


def duration_of(seconds: float) -> str:
    """Return a short time in milliseconds, a longer one as `duration` says it."""
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else duration(seconds)


def _bytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
