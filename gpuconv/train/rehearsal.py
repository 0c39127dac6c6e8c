"""A dry run: everything up to the first step, one step and one batch of evaluation timed, and no folder."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ..data.dataset import Dataset
from ..plural import counted
from ..runs.board import check_tensorboard
from ..runs.config import Config
from ..runs.evaluation import BATCH_SIZE, views
from ..show import terminal, words
from .loop import Training
from .start import begin
from .team import gathered

_STEPS = 2  # that are timed, after those that also warm up


@dataclass(frozen=True, slots=True, repr=False)
class Rehearsal:
    """What a run would be: counts, bytes, and times in seconds.

    >>> config = train.Config(widths=(4,), epochs=2, batch_size=20, validation=20)
    >>> rehearsal = train.rehearse(config, dataset=data.draw_shapes(100, 40), progress="none")
    >>> rehearsal.steps, rehearsal.data_bytes
    (8, 430080)
    """

    steps: int
    step_seconds: float
    evaluation_seconds: float  # of one batch of validation or test images
    seconds: float  # estimated, of the whole run
    weight_bytes: int  # weights, gradients, the optimiser's vectors, averages
    activation_bytes: int  # outputs of the layers for one part of a batch
    data_bytes: int

    def __repr__(self) -> str:
        memory = (self.weight_bytes + self.activation_bytes + self.data_bytes) / 2**20
        return f"Rehearsal({counted(self.steps, 'step')}, about {words.duration(self.seconds)}, {memory:,.1f} MiB)"


def rehearse(config: Config, *, progress: str = "auto", dataset: Dataset | None = None) -> Rehearsal:
    """Show what a run would be and how long it would take; nothing is written, and nothing downloaded.

    The memory is what the run is known to hold; what operators need for a moment comes on top.
    Raises what `train` raises before its first step, NonFiniteLossError if that step or the test would, and DatasetMissingError for
    data that are still to be downloaded.

    >>> config = train.Config(widths=(4,), epochs=2, batch_size=20, validation=20)
    >>> rehearsal = train.rehearse(config, dataset=data.draw_shapes(100, 40), progress="none")
    >>> rehearsal.steps, rehearsal.seconds > 0
    (8, True)
    """
    with gathered(config) as team, team.placed(config.device), terminal.progress(progress, team.rank) as display:
        if config.tensorboard:
            check_tensorboard()
        training = begin(replace(config, download=False), dataset, display, team)
        config = training.config
        with training.feed:
            warm = training.stepper.warm
            for number, batch in enumerate(training.feed.epoch(0, 0, min(warm + _STEPS, training.plan.steps_of(0)))):
                if number <= warm:  # the one after these is the first to be timed, but where there are no more
                    start, timed = time.perf_counter(), 0
                training.rehearse(batch)
                timed += 1
                del batch
        step_seconds = (time.perf_counter() - start) / timed
        split = training.split
        start = time.perf_counter()
        training.evaluate(training.net, split.x_test[:BATCH_SIZE], split.y_test[:BATCH_SIZE])
        seen = min(BATCH_SIZE, len(split.y_test))
        evaluation_seconds = time.perf_counter() - start
        times = sum(1 for _ in views(split.x_test[:1], config.tta))
        tested = len(split.y_test) * (1 if times == 1 else 1 + times) + training.plan.epochs * len(split.y_validation)
        seconds = training.plan.steps * step_seconds + tested / seen * evaluation_seconds
        held_out = split.x_validation[: 0 if config.overfit else None]  # which are the training images otherwise
        rehearsal = Rehearsal(
            steps=training.plan.steps,
            step_seconds=step_seconds,
            evaluation_seconds=evaluation_seconds,
            seconds=seconds,
            weight_bytes=training.stepper.nbytes,
            activation_bytes=_activations(training.net, config),
            data_bytes=split.x_train.nbytes + held_out.nbytes + split.x_test.nbytes,
        )
        display.lines(_lines(training, rehearsal))
        return rehearsal


def _activations(net: Any, config: Config) -> int:
    """Return the bytes of every layer's output for one part of a batch, which the backward needs."""
    images = config.batch_size // config.accumulate
    size = {"float64": 8, "float32": 4}.get(config.computes_in, 2)
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


def _lines(training: Training, rehearsal: Rehearsal) -> list[str]:
    """Return what a dry run says, in 80 columns but for the names of layers."""
    seen = counted(min(BATCH_SIZE, len(training.split.y_test)), "image")
    memory = (
        f"{_bytes(rehearsal.weight_bytes)} weights and what belongs to them, about "
        f"{_bytes(rehearsal.activation_bytes)} activations, {_bytes(rehearsal.data_bytes)} pictures"
    )
    whole = words.duration(rehearsal.seconds)
    costs = [
        ("memory", memory),
        ("a step", words.short_duration(rehearsal.step_seconds)),
        ("a test", f"{words.short_duration(rehearsal.evaluation_seconds)} for {seen}"),
        ("the run", f"about {whole} for {counted(rehearsal.steps, 'step')}, validation and test included"),
    ]
    facts = words.facts(training.config, training.about(), training.team.in_words)
    return [
        *(*words.labelled(facts), "", training.net.summary(), ""),
        *(*words.labelled(costs), "", "dry run: nothing was written"),
    ]


def _bytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
