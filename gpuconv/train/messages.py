"""How arrays of a training run go from process to process: gradients and statistics, by way of the host or from GPU to GPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from .. import nn
from ..backend import asarray, asnumpy, nccl, nccl_name, on_gpu
from .processes import Processes

BUCKET_BYTES = 4 * 2**20  # of gradients that go from GPU to GPU at once, while the backward goes on


class Messages:
    """Arrays to and from the other processes, by way of the host."""

    beside = False  # sums go on beside what is computed

    def __init__(self, processes: Processes, by_host: str = "") -> None:
        """Pass arrays between processes.   by_host: why those of a GPU go by way of the host."""
        self._processes, self.rank, self.by_host = processes, processes.rank, by_host
        self._pieces: dict[tuple[int, str], np.ndarray] = {}  # room for what others send, by size and dtype

    def wait(self) -> None:
        """Wait for what was queued on a GPU, with an eye on the other processes."""

    def gather(self, array: Any) -> Any:
        """Return the arrays of all processes, in their order: (size, *shape)."""
        return asarray(self._processes.gather(asnumpy(array)), beside=array)

    def add_up(self, vector: Any) -> None:
        """Put the sum of the vectors of all processes into each, added up in the order of the processes."""
        self.begin(vector)
        self.join()

    def begin(self, vector: Any) -> None:
        """Begin add_up, which may go on beside what is computed until `join`."""
        host = asnumpy(vector)
        self._add_up(host)
        if on_gpu(vector):
            vector[...] = asarray(host, beside=vector)

    def join(self) -> None:
        """Let what comes next find all sums that were begun."""

    def _add_up(self, vector: np.ndarray) -> None:
        """Each process adds up a stretch of the vector, and sends the sums to the others."""
        processes = self._processes
        size, rank = processes.size, processes.rank
        cuts = [each * len(vector) // size for each in range(size + 1)]
        stretches = [vector[first:last] for first, last in pairwise(cuts)]
        own = stretches[rank]
        pieces = self._room(size, own)
        receives = {each: pieces[each] for each in processes.others}
        processes.exchange({each: stretches[each] for each in processes.others}, receives)
        if rank:
            pieces[rank] = own
            np.copyto(own, pieces[0])
        for each in range(1, size):
            np.add(own, pieces[each], out=own)
        receives = {each: stretches[each] for each in processes.others}
        processes.exchange(dict.fromkeys(processes.others, own), receives)

    def _room(self, size: int, own: np.ndarray) -> np.ndarray:
        key = own.size, own.dtype.str
        if key not in self._pieces:
            self._pieces[key] = np.empty((size, own.size), own.dtype)
        return self._pieces[key]


class NcclMessages(Messages):
    """Arrays from GPU to GPU."""

    beside = True

    def __init__(self, processes: Processes, beside: Any) -> None:
        super().__init__(processes)
        self._nccl = nccl(processes.rank, processes.size, processes.first(nccl_name), beside)
        processes.on_failure.append(self._nccl.abort)

    def wait(self) -> None:
        self._nccl.wait(self._processes.watch())

    def gather(self, array: Any) -> Any:
        return self._nccl.gather(array)

    def begin(self, vector: Any) -> None:
        self._nccl.begin(vector)

    def join(self) -> None:
        self._nccl.join()


class Buckets:
    """The gradients of a net, cut into stretches that are added up each as soon as the backward has made all of it."""

    def __init__(self, net: nn.Net, messages: Messages, least: int) -> None:
        """Cut the gradients into stretches of so many bytes or more, the last aside; 0: they stay in one."""
        self._messages, self._vector = messages, net.flat_grads
        self._stretches: list[tuple[int, int]] = []
        waiting: list[set[int]] = []  # of each stretch, the layers that have a part in it
        arrays = sorted(_stretches_of(net), key=lambda entry: entry[1])
        start, layers = 0, set()
        for number, (layer, _, last) in enumerate(arrays):
            layers.add(layer)
            at_end = number == len(arrays) - 1
            if at_end or (least and (last - start) * self._vector.dtype.itemsize >= least):
                self._stretches.append((start, last))
                waiting.append(layers)
                start, layers = last, set()
        self._of_layers = [
            [i for i, of in enumerate(waiting) if layer in of] for layer in range(len(list(net.body.leaves())))
        ]
        self._counts = [len(of) for of in waiting]
        self._left = list(self._counts)
        if least:
            for layer, (_, leaf) in enumerate(net.body.leaves()):
                if self._of_layers[layer]:
                    leaf.graded = partial(self._graded, layer)

    def add_up(self) -> None:
        """Add up what has not been begun, and let what comes next find the sums of all."""
        for i, left in enumerate(self._left):
            if left:
                self._begin(i)
        self._left = list(self._counts)
        self._messages.join()

    def _graded(self, layer: int) -> None:
        for i in self._of_layers[layer]:
            self._left[i] -= 1
            if self._left[i] == 0:
                self._begin(i)

    def _begin(self, i: int) -> None:
        first, last = self._stretches[i]
        self._messages.begin(self._vector[first:last])


class Across:
    """What batch norms need of the other processes: how many pictures each has, and their statistics."""

    def __init__(self, messages: Messages, images: list[int]) -> None:
        self.rank, self.images = messages.rank, tuple(images)
        self._messages = messages

    def gather(self, array: Any) -> Any:
        """Return the arrays of all processes, in their order, where this one is: (size, *shape)."""
        return self._messages.gather(array)


def _stretches_of(net: nn.Net) -> Iterator[tuple[int, int, int]]:
    """Yield (number of a layer, start, end) of each array of gradients within a net's vector of them."""
    next_of = {True: 0, False: net.decayed}
    for layer, (_, leaf) in enumerate(net.body.leaves()):
        for declared in leaf.declared.values():
            start = next_of[declared.decayed]
            next_of[declared.decayed] = start + prod(declared.shape)
            yield layer, start, next_of[declared.decayed]
