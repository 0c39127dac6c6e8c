"""A running average of a net's weights, which often does better than the weights of the last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .. import checks
from ..errors import ParamError
from .store import check_fit, copy_in
from .vectors import copy_of, move_towards


class WeightAverage:
    """The exponential moving average of a net's parameters and running statistics.

    Weights that do not learn are left out.  average = d average + (1 - d) net   with d = min(decay, (1 + step) / (10 + step)), so that the first weights, which
    are noise, are soon forgotten.   Source: Polyak and Juditsky, Acceleration of stochastic approximation by averaging
    (1992); the start of d is that of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, net: Any, decay: float) -> None:
        self.decay = checks.real("decay", decay, low=0.0, high=1.0)
        if self.decay == 1.0:
            msg = "decay must be below 1, got decay=1.0: the average would never move"
            raise ParamError(msg)
        # What is averaged, and its averages, which go into a checkpoint.
        self._live = {"params": net.flat_params}
        self._live |= {name: array for name, array in net.state.items() if name.split(".")[-1].startswith("running_")}
        self.state = {name: copy_of(array) for name, array in self._live.items()}

    def update(self, step: int) -> None:
        """Move the average towards the net, after step number `step` (from 0)."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, average in self.state.items():
            move_towards(average.reshape(-1), self._live[name].reshape(-1), share)

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over the averages of an earlier run; raise CheckpointMismatchError if they do not fit."""
        check_fit("average", self.state, state)
        copy_in(self.state, state)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the net have the average inside a with block, and its own weights again, bit for bit, after it."""
        own = {name: copy_of(array) for name, array in self._live.items()}
        try:
            for name, array in self._live.items():
                array[...] = self.state[name]
            yield
        finally:
            for name, array in self._live.items():
                array[...] = own[name]
