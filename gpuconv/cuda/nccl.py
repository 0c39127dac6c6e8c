"""Arrays from GPU to GPU, between processes that train together, by NCCL: queued, recorded and replayed like kernels.

All of it goes through one stream of its own, in the order of the calls, which is the same in all processes; the current
stream waits for what it needs.  NCCL only carries: sums are our kernel's, in the order of the processes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import ProcessError
from .across import add_pieces
from .copy import copy_into
from .device import device_of

_KINDS = {"float32": "NCCL_FLOAT32", "float64": "NCCL_FLOAT64", "float16": "NCCL_FLOAT16"}


def missing() -> str:
    """Return why NCCL cannot be used here; empty where it can."""
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        from cupy.cuda import nccl
    if nccl.available:
        return ""
    import cupy

    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    return f"NCCL is not installed (pip install 'nvidia-nccl-cu{major}<3')"


def unique_id() -> Any:
    """Return what the first process makes and all give to Nccl."""
    from cupy.cuda import nccl

    return nccl.get_unique_id()


class Nccl:
    """The GPU of an array among those of all processes.   name: what unique_id returned in the first."""

    def __init__(self, rank: int, ranks: int, name: Any, beside: Any) -> None:
        import cupy
        from cupy.cuda import nccl

        self.rank, self._ranks = rank, ranks
        self._cupy, self._nccl, self._device = cupy, nccl, device_of(beside)
        try:
            self._comm = nccl.NcclCommunicator(ranks, name, rank)
        except nccl.NcclError as error:
            msg = f"NCCL cannot connect {ranks} processes ({error}): NCCL_DEBUG=INFO says more"
            raise ProcessError(msg) from error
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._pieces: dict[tuple[int, str], Any] = {}  # room for what others send, by size and dtype

    def gather(self, array: Any) -> Any:
        """Return the arrays of all processes, in their order: (ranks, *shape)."""
        out = self._device.empty((self._ranks, *array.shape), array.dtype)
        copy_into(out[self.rank], array)
        self._behind(lambda: self._exchange(dict.fromkeys(self._others, array), {r: out[r] for r in self._others}))
        self.join()
        return out

    def begin(self, vector: Any) -> None:
        """Put the sum of the vectors of all processes into each, added up in their order, beside the current stream.

        `join` makes that wait.
        """
        cuts = [each * vector.size // self._ranks for each in range(self._ranks + 1)]
        stretches = [vector[first:last] for first, last in pairwise(cuts)]
        own, pieces = stretches[self.rank], self._room(stretches[self.rank])

        def add() -> None:
            self._exchange({r: stretches[r] for r in self._others}, {r: pieces[r] for r in self._others})
            if own.size:
                add_pieces(own, pieces, ranks=self._ranks, rank=self.rank)
            self._exchange(dict.fromkeys(self._others, own), {r: stretches[r] for r in self._others})

        self._behind(add)

    def join(self) -> None:
        """Let the current stream wait for all that was queued here."""
        self._cupy.cuda.get_current_stream().wait_event(self._stream.record())

    def wait(self, between: Callable[[], None]) -> None:
        """Wait for the current stream, and call between() again and again, which may raise."""
        event = self._cupy.cuda.Event(block=True, disable_timing=True)
        event.record()
        while not event.done:
            between()

    def abort(self) -> None:
        """Give up what waits for other processes."""
        self._comm.abort()

    @property
    def _others(self) -> list[int]:
        return [rank for rank in range(self._ranks) if rank != self.rank]

    def _behind(self, work: Callable[[], None]) -> None:
        """Queue work after what the current stream was given, beside what it is given next."""
        self._stream.wait_event(self._cupy.cuda.get_current_stream().record())
        with self._stream:
            work()

    def _exchange(self, sends: dict[int, Any], receives: dict[int, Any]) -> None:
        nccl, comm, stream = self._nccl, self._comm, self._stream.ptr
        nccl.groupStart()
        for calls, arrays in ((comm.send, sends), (comm.recv, receives)):
            for rank, array in arrays.items():
                if array.size:
                    calls(array.data.ptr, array.size, getattr(nccl, _KINDS[array.dtype.name]), rank, stream)
        nccl.groupEnd()

    def _room(self, own: Any) -> Any:
        key = own.size, own.dtype.str
        if key not in self._pieces:
            self._pieces[key] = self._device.empty((self._ranks, own.size), np.dtype(own.dtype))
        return self._pieces[key]


def choose(number: int) -> tuple[str, int]:
    """Let new arrays of this process be on a GPU by its number among those here; return its address, and how many there are."""
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    gpu = cupy.cuda.Device(number % count)
    gpu.use()
    return gpu.pci_bus_id, count
