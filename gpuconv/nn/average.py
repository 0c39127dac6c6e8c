"""A moving average of a net's weights, to evaluate and to keep: steadier than the weights of any one step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .. import checks
from ..backend import copy
from ..errors import ParamError
from ..placed import Number
from .net import Net
from .store import check_fit, check_variances, copy_in
from .vectors import copy_of, move_towards


class WeightAverage:
    """The exponential moving average of a net's parameters and running statistics.

    After the update number t (from 0), average += (1 - d) (net - average) with d = min(decay, (1 + t) / (10 + t)):
    early on it forgets the initial weights quickly.  Weights that do not learn are not averaged.  Of a net in float16
    the average is kept in float16, too, and stands still where 1 - d of a difference is less than it can hold: average
    the float32 weights of mixed precision instead.

    state: the arrays of the average, for a checkpoint: "params", the flat vector, and "bn1.running_mean" and the like.
    Sources: the idea is Polyak and Juditsky's, Acceleration of stochastic approximation by averaging (1992), with equal
    weights for all steps; the moving average and its start are those of TensorFlow's ExponentialMovingAverage.

    >>> net = nn.ConvNet(4, input_shape=(3, 8, 8))
    >>> average = nn.WeightAverage(net, decay=0.99)
    >>> average.update(step=0)  # after each step of the optimiser
    >>> with average.applied():
    ...     scores = net.forward(np.ones((1, 3, 8, 8), np.float32))
    >>> scores.shape
    (1, 10)
    """

    def __init__(self, net: Net, decay: float = 0.99) -> None:
        self.decay = checks.real("decay", decay, low=0.0, high=1.0)
        if self.decay == 1.0:
            msg = "decay must be below 1, got decay=1.0: the average would never leave the initial weights"
            raise ParamError(msg)
        self._live = {"params": net.flat_params}
        self._live |= {name: array for name, array in net.state.items() if name.split(".")[-1].startswith("running_")}
        self.state = {name: copy_of(array) for name, array in self._live.items()}
        self._applied = False

    def update(self, step: int) -> None:
        """Take the net's weights in; step counts the updates from 0."""
        step = checks.integer("step", step, least=0)
        self._take_in(self.share(step))

    def share(self, step: int) -> float:
        """Return how far update number `step` moves the average towards the net's weights."""
        return 1.0 - min(self.decay, (1 + step) / (10 + step))

    def update_by_place(self, numbers: Any) -> None:
        """Take the net's weights in on a GPU, by a share that lies there, in a gpuconv.cuda.StepNumbers."""
        self._take_in(numbers.share)

    def _take_in(self, share: float | Number) -> None:
        self._check_away()
        for name, average in self.state.items():
            move_towards(average, self._live[name], share)

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over the average of an earlier run; raise CheckpointMismatchError if it does not fit."""
        self._check_away()
        check_fit("weight average", self.state, state)
        check_variances("weight average", state)
        copy_in(self.state, state)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the net hold the average inside a with block; afterwards it has its own weights back, bit for bit."""
        self._check_away()
        own = {name: copy_of(array) for name, array in self._live.items()}
        for name, array in self._live.items():
            copy(self.state[name], array)
        self._applied = True
        try:
            yield
        finally:
            self._applied = False
            for name, array in self._live.items():
                copy(own[name], array)

    def _check_away(self) -> None:
        if self._applied:
            msg = "the net holds the average now: end the `with average.applied()` block first"
            raise ParamError(msg)
