"""Batches for the steps of an epoch: each a pure function of (settings, epoch, step), made where the step will run.

On the CPU a thread prepares the next batch while a step computes; which thread made a batch changes none of its bits.
On a GPU the pictures lie there from the beginning.  An epoch's order and random words go there once, over those of
the epoch before, and one launch of the step gathers and augments its batch from its place in the order.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from .. import data, ops
from ..backend import asarray, on_gpu, threads
from ..errors import StaleBatchError
from ..placed import Count
from ..runs.config import Config
from ..typing import AnyArray
from .team import Alone


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The images of a step in its parts: normalised images and labels, and all the labels on the host.

    >>> x, labels = np.zeros((8, 3, 32, 32), np.float32), np.zeros(8, np.int64)
    >>> batch = train.Batch([(x, labels)], labels)
    >>> len(batch.parts)
    1
    """

    parts: list[tuple[AnyArray, AnyArray]]
    labels: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class PlacedBatch:
    """What a step on a GPU makes its batch of, as long as the epoch lasts.

    number: of the batch in its epoch.   part: returns images and labels of a part, from its place in the epoch's order.
    places: of the parts.   labels: all of them, on the host.   epoch: its epoch.   begun: which one has been begun last.
    """

    number: int
    part: Callable[[int | Count], tuple[Any, Any]]
    places: range
    labels: np.ndarray
    epoch: int
    begun: Callable[[], int]

    @property
    def parts(self) -> list[tuple[Any, Any]]:
        """The parts, made now; raises StaleBatchError."""
        self.check()
        return [self.part(place) for place in self.places]

    def check(self) -> None:
        """Raise StaleBatchError if the feed has begun another epoch, whose order lies where that of this one did."""
        if self.begun() != self.epoch:
            msg = (
                f"batch {self.number} is of epoch {self.epoch}, and the feed has begun epoch {self.begun()}, whose order "
                f"lies on the GPU where its own did: ask for it again, by Feed.epoch({self.epoch}, ...)"
            )
            raise StaleBatchError(msg)


class Feed:
    """Makes the batches of a run.  Use it in a `with` block: leaving it ends its thread, however the run ended."""

    def __init__(
        self, images: Any, labels: np.ndarray, config: Config, *, mean: Any, std: Any, team: Alone | None = None
    ) -> None:
        """Keep what batches are made of.   images: (N, C, H, W) uint8   labels: (N,).

        team: the processes that share batches; those made here hold the share of this one.
        """
        self._share = (Alone() if team is None else team).share(config.batch_size // config.accumulate)
        self._images = asarray(images)
        self._labels = labels
        self._placed_labels = asarray(labels.astype(np.int64, copy=False))
        self._config = config
        self._statistics = {"mean": mean, "std": std}
        self._worker: _Worker | None = None
        self._order: Any = None  # of an epoch on a GPU, and its random words: they stay where they are
        self._draws: Any = None
        self._begun = -1  # which epoch they are of

    def __enter__(self) -> Self:
        if not on_gpu(self._images) and threads() > 1:
            worker = _Worker()
            try:
                worker.start()
            except (
                RuntimeError,
                MemoryError,
            ):  # no more threads, or the main one has ended: batches are made as asked for
                return self
            self._worker = worker
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def first(self, count: int) -> Any:
        """Return up to so many training images, normalised and not augmented: what `Net.prepare` looks at."""
        return ops.augment(self._images[:count], None, **self._statistics, dtype=self._config.dtype, channels_last=True)

    def epoch(self, epoch: int, first: int, last: int) -> Iterator[Batch | PlacedBatch]:
        """Yield the batches of steps first to last - 1 of an epoch, in order; an error in making one is raised here.

        On a GPU they hold until another epoch is begun: from then on they raise StaleBatchError.
        """
        if on_gpu(self._images):
            yield from self._placed(epoch, first, last)
            return
        make = self._maker(epoch)
        if self._worker is None:
            yield from map(make, range(first, last))
            return
        ahead = self._worker.ask(make, first) if first < last else None
        for step in range(first, last):
            assert ahead is not None
            batch = ahead.result()
            ahead = self._worker.ask(make, step + 1) if step + 1 < last else None
            yield batch

    def _maker(self, epoch: int) -> Callable[[int], Batch]:
        """Return the function that makes an epoch's batch by its number."""
        order, draws = self._drawn(epoch)

        def make(step: int) -> Batch:
            places = self._places(step)
            parts = [self._part(order, draws, place) for place in places]
            return Batch(parts, self._labels_of(order, places))

        return make

    def _placed(self, epoch: int, first: int, last: int) -> Iterator[PlacedBatch]:
        """Yield what steps on a GPU make their batches of, and put the epoch there before."""
        order, draws = self._drawn(epoch)
        self._begun = epoch
        if self._order is None:
            self._order, self._draws = asarray(order), None if draws is None else asarray(draws)
        else:
            self._order[...] = asarray(order)
            if draws is not None:
                self._draws[...] = asarray(draws)
        for step in range(first, last):
            places = self._places(step)
            labels = self._labels_of(order, places)
            yield PlacedBatch(step, self._placed_part, places, labels, epoch, self._last_begun)

    def _last_begun(self) -> int:
        return self._begun

    def _places(self, step: int) -> range:
        """Return where the parts of a batch begin in the order of the epoch."""
        config = self._config
        start = step * config.batch_size
        return range(start, start + config.batch_size, config.batch_size // config.accumulate)

    def _labels_of(self, order: np.ndarray, places: range) -> np.ndarray:
        share = self._share
        return self._labels[np.concatenate([order[place + share.start : place + share.stop] for place in places])]

    def _drawn(self, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the order of an epoch, all its batches, and the random word of each picture, None for none."""
        config, count = self._config, len(self._labels)
        order = np.concatenate(data.epoch_batches(count, config.batch_size, seed=config.seed, epoch=epoch))
        if not (config.flip or config.crop or config.cutout):
            return order, None
        alternate = config.flip_mode == "alternate"
        return order, data.epoch_draws(count, seed=config.seed, epoch=epoch, alternate_flip=alternate)

    def _placed_part(self, place: int | Count) -> tuple[Any, Any]:
        return self._part(self._order, self._draws, place)

    def _part(self, order: Any, draws: Any, place: int | Count) -> tuple[Any, Any]:
        """Return images and labels of a part of a batch, or of this process's share of it."""
        config = self._config
        return ops.augmentation.augment_batch(
            self._images,
            self._placed_labels,
            order,
            draws,
            place=place + self._share.start,
            count=len(self._share),
            **self._statistics,
            pad=config.crop,
            pad_mode=config.pad_mode,
            flip=config.flip,
            cutout=config.cutout,
            dtype=config.computes_in,
            channels_last=True,
        )


class _Worker(threading.Thread):
    """Makes batches one after the other.

    An executor would not do: it closes as soon as the main thread has ended, even if others go on training.
    """

    def __init__(self) -> None:
        super().__init__(name="gpuconv-feed", daemon=True)
        self._asked: queue.SimpleQueue[tuple[Future[Batch], Callable[[int], Batch], int] | None] = queue.SimpleQueue()

    def ask(self, make: Callable[[int], Batch], step: int) -> Future[Batch]:
        """Return what will hold the batch of a step, or the error in making it."""
        future: Future[Batch] = Future()
        self._asked.put((future, make, step))
        return future

    def end(self) -> None:
        """Make no more than what was asked for, and wait until that is done."""
        self._asked.put(None)
        self.join()

    def run(self) -> None:
        while (asked := self._asked.get()) is not None:
            future, make, step = asked
            try:
                future.set_result(make(step))
            except BaseException as error:  # noqa: BLE001 - raised where the batch is asked for
                future.set_exception(error)
            del asked, future, make  # and the arrays they know
