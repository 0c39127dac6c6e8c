"""What a training run does together with others: each takes a share of every batch, and all end each step alike.

The order of an epoch and the random words of its pictures are functions of seed and epoch, so every process draws them
whole, and takes the pictures that are its own.  Losses, gradients and running statistics are added up in the order of
the processes: the same number of them gives the same bits.  All processes go through the same steps with the same
weights, and come to the same decisions; the first alone writes and shows.
"""

from __future__ import annotations

import hashlib
import itertools
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..backend import (
    asnumpy,
    choose_gpu,
    default_device,
    loops_in_words,
    nccl_missing,
    on_gpu,
    resolve_device,
    scale,
    share_cores,
    using,
    zeros,
)
from ..errors import ConfigError, DriftError
from ..plural import counted
from ..runs.config import Config
from ..runs.folder import RunFolder
from ..runs.machine import host_versions
from . import messages
from .messages import Across, Buckets, Messages, NcclMessages
from .outcomes import Outcome
from .processes import Processes, ending_together, start


class Alone:
    """A run of one process: nothing is shared."""

    rank, size = 0, 1
    processes: Processes | None = None

    def share(self, count: int) -> range:
        """Return which of so many pictures are this process's."""
        return range(count)

    def first(self, make: Callable[[], Any]) -> Any:
        """Return what the first process makes, on all."""
        return make()

    def together(self, what: str, value: Any) -> None:
        """Raise ConfigError unless all processes have the same value of something."""

    def in_order(self, values: Sequence[Any]) -> list[Any]:
        """Return the values of all processes, those of the first before those of the second."""
        return list(values)

    def any_signal(self, signum: int | None) -> int | None:
        """Return the signal that came to this process or to another."""
        return signum

    def as_first(self, decision: bool) -> bool:
        """Return what the first process decides."""
        return decision

    def each(self, make: Callable[[], Any]) -> Any:
        """Return what each process makes for itself, the first before the others."""
        return make()

    @contextmanager
    def folder(self, make: Callable[[], RunFolder]) -> Iterator[Any]:
        """Let the first process make or open the folder of the run, for a with block; the others have none."""
        with make() as folder:
            yield folder

    @contextmanager
    def placed(self, device: str) -> Iterator[None]:
        """Create nets and data on a device inside a with block, on a GPU of this process's own."""
        self._take_gpu(device)
        with using(device):
            yield

    def _take_gpu(self, device: str) -> None:
        """Let new arrays be on a GPU that no other process takes."""

    def wait(self) -> None:
        """Wait for what was queued on a GPU, with an eye on the other processes."""

    def train(self, net: nn.Net, config: Config) -> None:
        """Get ready to train a net."""

    def weigh(self, dscores: Any) -> None:
        """Let the gradient of a mean loss here be this process's part of that of all."""

    def losses(self, losses: Sequence[float], correct: int) -> tuple[list[float], int]:
        """Return the mean losses of the parts of a step, and its hits, over all processes."""
        return list(losses), correct

    def outcomes(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Return the outcomes of steps over all processes."""
        return list(outcomes)

    def reduce(self) -> None:
        """Add up the gradients of all processes, and take the mean of running statistics."""

    def compare(self, step: int) -> None:
        """Raise DriftError unless all processes have the same weights."""

    def not_recorded(self, setting: str) -> str:
        """Return why steps on a GPU are launched one by one, whatever the setting; empty where they need not be."""
        return ""

    @property
    def in_words(self) -> str:
        """How many processes there are; empty for one."""
        return ""


class Team(Alone):
    """A run of several processes."""

    def __init__(self, processes: Processes) -> None:
        self.processes: Processes = processes
        self.rank, self.size = processes.rank, processes.size
        self._images: list[int] = []  # of a part of a batch, by process
        self._net: nn.Net | None = None
        self._buckets: Buckets | None = None
        self._statistics: Any = None  # the running ones of a net, one vector
        self._messages = Messages(processes)

    def share(self, count: int) -> range:
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def first(self, make: Callable[[], Any]) -> Any:
        return self.processes.first(make)

    def together(self, what: str, value: Any) -> None:
        values = self.processes.gather_objects(value, long=True)
        for rank, other in enumerate(values):
            if other != values[0]:
                msg = f"process {rank} of {self.size} has {what} {other}, the first has {values[0]}: they must be the same"
                raise ConfigError(msg)

    def in_order(self, values: Sequence[Any]) -> list[Any]:
        return [value for part in self.processes.gather_objects(list(values)) for value in part]

    def any_signal(self, signum: int | None) -> int | None:
        return int(self.processes.gather(np.array([signum or 0])).max()) or None

    def as_first(self, decision: bool) -> bool:
        return bool(self.processes.gather(np.array([decision]))[0, 0])

    def each(self, make: Callable[[], Any]) -> Any:
        made: list[Any] = []
        self.first(lambda: made.append(make()))
        if self.rank:
            made.append(make())
        return made[0]

    @contextmanager
    def folder(self, make: Callable[[], RunFolder]) -> Iterator[Any]:
        with ExitStack() as stack:
            opened: list[RunFolder] = []

            def open_it() -> Path:
                opened.append(stack.enter_context(make()))
                return opened[0].path

            path = self.first(open_it)
            yield FolderElsewhere(path) if self.rank else opened[0]

    def _take_gpu(self, device: str) -> None:
        if (default_device() if device == "auto" else resolve_device(device)) == "cpu":
            return
        address, count = choose_gpu(self.processes.local_rank)
        places = self.processes.gather_objects((platform.node(), address), long=True)
        if len(set(places)) < len(places):
            msg = (
                f"{counted(self.processes.local_size, 'process', 'processes')} on this machine find {counted(count, 'GPU')}: "
                "start one process for each GPU"
            )
            raise ConfigError(msg)

    def wait(self) -> None:
        self._messages.wait()

    def train(self, net: nn.Net, config: Config) -> None:
        self._messages = self._way(net.flat_params)
        part = config.batch_size // config.accumulate
        if part < self.size:
            msg = f"{counted(part, 'image')} of a step cannot be shared among {self.size} processes: raise batch_size"
            raise ConfigError(msg)
        cuts = [rank * part // self.size for rank in range(self.size + 1)]
        if not on_gpu(net.flat_params):
            self.together("CPU loops", loops_in_words())
        self._images = [last - first for first, last in itertools.pairwise(cuts)]
        self._net = net
        # Those of one part are the step's as soon as a layer has them, but in float16, whose scale is still on them.
        at_once = config.accumulate == 1 and config.precision != "float16"
        self._buckets = Buckets(net, self._messages, messages.BUCKET_BYTES if at_once and self._messages.beside else 0)
        self._statistics = None
        if config.batch_norm == "synchronised":
            net.normalise_across(Across(self._messages, self._images))
        else:
            self._statistics = _one_vector(net)
        for _, leaf in net.body.leaves():
            leaf.samples_before = cuts[self.rank]

    def weigh(self, dscores: Any) -> None:
        scale(dscores.reshape(-1), self._images[self.rank] / sum(self._images))

    def losses(self, losses: Sequence[float], correct: int) -> tuple[list[float], int]:
        found = self.processes.gather(np.array([*losses, correct], np.float64))
        total = sum(self._images)
        mean = [
            sum(images / total * float(loss) for images, loss in zip(self._images, column, strict=True))
            for column in found[:, :-1].T
        ]
        return mean, int(found[:, -1].sum())

    def outcomes(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        if not outcomes:
            return []
        own = np.array([[outcome.loss, outcome.correct] for outcome in outcomes])
        found = self.processes.gather(own)
        losses = np.einsum("r,rs->s", np.array(self._images) / sum(self._images), found[:, :, 0])
        correct = found[:, :, 1].sum(axis=0)
        both = zip(outcomes, losses.tolist(), correct.tolist(), strict=True)
        return [replace(outcome, loss=loss, correct=int(hits)) for outcome, loss, hits in both]

    def reduce(self) -> None:
        assert self._buckets is not None
        self._buckets.add_up()
        if self._statistics is not None and self._statistics.size:
            self._messages.add_up(self._statistics)
            scale(self._statistics, 1 / self.size)

    def compare(self, step: int) -> None:
        assert self._net is not None
        hashed = hashlib.blake2b(digest_size=8)
        for array in (self._net.flat_params, *self._net.state.values()):
            hashed.update(asnumpy(array).tobytes())
        found = self.processes.gather(np.frombuffer(hashed.digest(), np.uint64), long=True)[:, 0]
        if (found != found[0]).any():
            rank = int((found != found[0]).argmax())
            msg = (
                f"after step {step} the weights of process {rank} of {self.size} are not those of the first: the processes "
                "do not compute alike, as on processors or GPUs of several kinds"
            )
            raise DriftError(msg)

    def _way(self, beside: Any) -> Messages:
        """Return how arrays go from process to process: from GPU to GPU where NCCL is there, else by way of the host."""
        if not on_gpu(beside):
            return Messages(self.processes)
        why = next(filter(None, self.processes.gather_objects(nccl_missing(), long=True)), "")
        if why:
            return Messages(self.processes, why)
        return NcclMessages(self.processes, beside)

    def not_recorded(self, setting: str) -> str:
        if not self._messages.by_host:
            return ""
        why = f"gradients go by way of the host, which cannot be recorded: {self._messages.by_host}"
        if setting == "on":
            msg = f'graph "on" cannot be: {why}; leave graph at "auto"'
            raise ConfigError(msg)
        return why

    @property
    def in_words(self) -> str:
        return counted(self.size, "process", "processes")


class FolderElsewhere:
    """The folder of a run that another process writes: what this one would write there, it leaves to that."""

    def __init__(self, path: Path) -> None:
        self.path, self.last, self.best = path, path / "last.safetensors", path / "best.safetensors"

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None: ...

    def append_metrics(self, row: Mapping[str, Any]) -> None: ...

    def write_config(self, config: Config) -> None: ...

    def reopen(self) -> None: ...


def _one_vector(net: nn.Net) -> Any:
    """Return a net's running statistics as one vector, of which its arrays are views from now on."""
    owners = [
        (leaf, f"{prefix}.{name}" if prefix else name, name)
        for prefix, leaf in net.body.leaves()
        for name in leaf.state
        if name.startswith("running_")
    ]
    vector = zeros((sum(leaf.state[name].size for leaf, _, name in owners),), net.dtype, beside=net.flat_params)
    start = 0
    for leaf, full, name in owners:
        old = leaf.state[name]
        view = vector[start : start + old.size]
        view[...] = old
        leaf.state[name] = net.state[full] = view
        start += old.size
    return vector


@contextmanager
def gathered(config: Config | None = None) -> Iterator[Alone]:
    """Find the other processes of this run, if there are any, for a with block; an error in it ends all of them.

    config: the settings, where each process was given them.
    """
    processes = start()
    if processes is None:
        yield Alone()
        return
    with ending_together():
        team = Team(processes)
        share_cores(processes.sharing_cores())
        for name, version in host_versions().items():
            team.together(name, version)
        team.together("settings", str(config))
        yield team
