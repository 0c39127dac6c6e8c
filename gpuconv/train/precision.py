"""How a step computes: in the net's own dtype, or in float16 beside float32 weights.

Mixed precision: activations, convolutions and their gradients are float16; weights, running statistics, batch norm's
vectors and the optimiser stay float32.  The loss is scaled up before the backward, so that small gradients do not
vanish in float16, and the gradients are scaled down in float32.  NumPy has no fast float16, so on the CPU this is slow
and only shows that it works.   Source: Micikevicius et al., Mixed precision training,
arXiv 1710.03740.

Either way a step's images may come in several parts, whose gradients are averaged: the gradient of the mean loss, but
that batch norm normalises each part by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .. import nn, ops
from ..backend import quiet, zeros, zeros_like
from ..errors import ParamError
from ..nn.vectors import add_scaled

GROW_AFTER = 2000  # good steps in a row
_FIRST_SCALE = 65536.0


@dataclass(slots=True)
class LossScale:
    """The factor on the loss: halved at a gradient that is not finite, doubled after 2000 good steps in a row."""

    value: float = _FIRST_SCALE
    good: int = 0  # steps since the last change
    skipped: int = 0  # steps of the run that made no update

    def __post_init__(self) -> None:
        if self.value < 1.0:
            msg = f"the value of a loss scale must be at least 1, got {self.value}"
            raise ParamError(msg)

    def succeed(self) -> None:
        """Note a step with finite gradients."""
        self.good += 1
        if self.good == GROW_AFTER:
            self.value, self.good = 2 * self.value, 0

    def fail(self) -> bool:
        """Note a step to be skipped; return False if the scale was 1 already, so that a smaller one is no help."""
        if self.value <= 1.0:
            return False
        self.value, self.good = self.value / 2, 0
        self.skipped += 1
        return True


class Same:
    """Steps in the net's own dtype."""

    scale: LossScale | None = None

    def __init__(self, net: nn.Net, parts: int) -> None:
        self.net = net
        self.numbers: Any = None  # a gpuconv.cuda.StepNumbers, where the loss scale lies on a GPU
        self._parts = parts
        self._total = zeros_like(net.flat_grads) if parts > 1 else None

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors that it keeps beside the net's."""
        return 0 if self._total is None else int(self._total.nbytes)

    @property
    def nets(self) -> list[nn.Net]:
        """Whose layers compute."""
        return [self.net]

    def begin(self) -> None:
        """Start the step."""
        if self._total is not None:
            self._total[...] = 0

    def forward(self, x: Any, *, step: Any) -> Any:
        """Return the scores of one part."""
        return self.net.forward(x, training=True, step=step)

    def loss(self, scores: Any, labels: Any, *, label_smoothing: float) -> tuple[Any, Any]:
        """Return the loss of one part and its gradient."""
        return ops.softmax_cross_entropy(scores, labels, label_smoothing=label_smoothing)

    def backward(self, dscores: Any) -> None:
        """Compute the gradients of one part."""
        self.net.backward(dscores)
        if self._total is not None:
            add_scaled(self._total, self.net.flat_grads, 1 / self._parts)

    def end(self) -> None:
        """Leave the gradients of the step in net.flat_grads."""
        if self._total is not None:
            self.net.flat_grads[...] = self._total

    def follow(self) -> None:
        """Note that the weights have changed."""


class Half(Same):
    """Steps in a float16 twin of the net, whose batch norms are those of the net itself."""

    scale: LossScale

    def __init__(self, net: nn.Net, parts: int) -> None:
        self.net = net
        self.numbers = None
        self._parts = parts
        self.scale = LossScale()
        self._twin = nn.build({**net.config, "dtype": "float16"})
        self._copied: list[tuple[Any, Any]] = []  # (of the net, of the twin)
        self._grads: list[tuple[Any, Any]] = []
        for (_, own), (_, twin) in zip(net.body.leaves(), self._twin.body.leaves(), strict=True):
            if own.float32_params:
                twin.params, twin.state = own.params, own.state
                twin.grads = {name: zeros_like(array) for name, array in own.grads.items()}
            else:
                self._copied += [(array, twin.params[name]) for name, array in own.params.items()]
                self._copied += [(array, twin.state[name]) for name, array in own.state.items()]
            self._grads += [(array, twin.grads[name]) for name, array in own.grads.items()]
        largest = max(prod(array.shape) for array, _ in self._grads)
        self._wide = zeros((largest,), net.dtype)  # one gradient of the twin, in float32
        self.follow()

    @property
    def nbytes(self) -> int:
        twin = self._twin
        return int(twin.flat_params.nbytes + twin.flat_grads.nbytes + self._wide.nbytes)

    @property
    def nets(self) -> list[nn.Net]:
        return [self._twin]

    def begin(self) -> None:
        self.net.flat_grads[...] = 0

    @quiet
    def forward(self, x: Any, *, step: Any) -> Any:
        return self._twin.forward(x, training=True, step=step)

    @quiet
    def loss(self, scores: Any, labels: Any, *, label_smoothing: float) -> tuple[Any, Any]:
        return super().loss(_cast(scores, self.net.dtype), labels, label_smoothing=label_smoothing)

    @quiet
    def backward(self, dscores: Any) -> None:
        scale, unscale = self.scale.value, 1 / (self.scale.value * self._parts)
        if self.numbers is not None:
            scale, unscale = self.numbers.scale, self.numbers.unscale
        scaled = zeros_like(dscores)
        add_scaled(scaled.reshape(-1), dscores.reshape(-1), scale)
        self._twin.backward(_cast(scaled, np.float16))
        for own, half in self._grads:
            wide = self._wide[: prod(own.shape)]
            wide[...] = half.reshape(-1)
            add_scaled(own.reshape(-1), wide, unscale)

    def end(self) -> None:
        """Nothing is left to do: the net's gradients were added up in place."""

    @quiet
    def follow(self) -> None:
        for own, half in self._copied:
            half[...] = own


def arithmetic(net: nn.Net, precision: str, parts: int) -> Same:
    """Return how steps of a net compute: precision is "float32" (the net's dtype) or "float16"."""
    return (Half if precision == "float16" else Same)(net, parts)


def _cast(array: Any, dtype: Any) -> Any:
    out = zeros(tuple(array.shape), dtype)
    out[...] = array
    return out
