"""One side in a process of its own: it answers the harness over a pipe, one request at a time."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from .cases import Case
from .clocks import ProcessorClock
from .inputs import Inputs, draw
from .memory import extra
from .oracle import TRAIN_STEPS, Sample, result_names, sample
from .peers import NotOffered, Peer, load


def serve(name: str, device: str, threads: int, pipe: Connection) -> None:
    """Answer (method, arguments) with ("ok", result), or with ("not offered" or "failed", why); end with None."""
    worker = Worker(load(name), device, threads)
    while (request := pipe.recv()) is not None:
        method, arguments = request
        try:
            pipe.send(("ok", getattr(worker, method)(*arguments)))
        except NotOffered as said:
            pipe.send(("not offered", str(said)))
        except Exception as error:  # noqa: BLE001 - the run goes on without this side
            where = traceback.extract_tb(error.__traceback__)[-1]
            said_ = " ".join(str(error).split())[:300]
            pipe.send(("failed", f"{type(error).__name__}: {said_} ({where.name}, line {where.lineno})"))


class Worker:
    """What a side can be asked; used directly, too, where one process is enough."""

    def __init__(self, peer: Peer, device: str, threads: int) -> None:
        self.peer, self.device, self.threads = peer, device, threads
        self.ready: dict[str, dict[str, Callable[[], Any]]] = {}
        self.counts: dict[tuple[str, str], int] = {}

    def start(self) -> str:
        """Import and set up the library; return its version."""
        version = self.peer.start(self.device, self.threads)
        self.clock = self.peer.clock()
        return version

    def prepare(self, case: Case, layout: str, regime: str) -> dict[str, list[Sample]]:
        """Make the calls of a case ready, run each once; return samples of the results by direction."""
        if case.complex and not (self.peer.takes_complex and regime == "float32"):
            msg = "has no convolution of complex numbers" + ("" if regime == "float32" else f" in {regime}")
            raise NotOffered(msg)
        inputs = draw(case, layout, regime)
        calls = self.ready[layout] = self.peer.calls(inputs)
        return {direction: self._samples(call, direction, inputs) for direction, call in calls.items()}

    def _samples(self, call: Callable[[], Any], direction: str, inputs: Inputs) -> list[Sample]:
        names = result_names(inputs.case.op, direction)
        if direction == "step":
            losses = [float(self.peer.host(call()[0], "losses", inputs)) for _ in range(TRAIN_STEPS)]
            return [sample(np.array(losses), "losses")]
        results = zip(call(), names, strict=True)
        return [sample(self.peer.host(result, name, inputs), name) for result, name in results]

    def warm(self, layout: str, direction: str, seconds: float) -> float:
        """Run a call until it is warm; settle how many make a round of so many seconds; return a round's seconds.

        `prepare` has run it once: a call that fills a round is warm after one more.
        """
        call = self.ready[layout][direction]
        once = self.clock.round(call, 1)["ms"] / 1e3
        if once < seconds:
            self.clock.round(call, 1)
            once = max(self.clock.round(call, 2)["ms"] / 1e3, 1e-7)
        count = self.counts[layout, direction] = max(1, round(seconds / once))
        return count * once

    def time(self, layout: str, direction: str) -> dict[str, float]:
        """Return the milliseconds of one call, measured in a round."""
        return self.clock.round(self.ready[layout][direction], self.counts[layout, direction])

    def processor_time(self, layout: str, direction: str) -> float:
        """Return the milliseconds of processor time of one call, measured in a round."""
        return ProcessorClock().round(self.ready[layout][direction], self.counts[layout, direction])["ms"]

    def forget(self) -> None:
        """Let go of the calls and their arrays."""
        self.ready, self.counts = {}, {}

    def memory(self, case: Case, layout: str, regime: str) -> dict[str, int]:
        """Return the peak extra bytes of each direction; to be asked of a fresh process."""
        inputs = draw(case, layout, regime)
        meter = self.peer.meter()
        return {} if meter is None else extra(self.peer.calls, inputs, meter)

    def peaks(self) -> dict[str, float]:
        """Return what the machine can do."""
        from .peaks import cpu_peaks, cuda_peaks

        return cpu_peaks(self.threads) if self.device == "cpu" else cuda_peaks()
