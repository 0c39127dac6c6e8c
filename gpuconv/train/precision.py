"""How a step computes: in the net's own dtype, there with factors rounded to TF32, or in 16 bits beside float32 weights.

Mixed precision: activations, convolutions and the gradients of activations are float16 or bfloat16; weights and their
gradients, running statistics, batch norm's vectors and the optimiser stay float32.  In float16 the loss is scaled up
before the backward, so that small gradients do not vanish, and the gradients of weights are scaled down; bfloat16 has
the range of float32 and needs none of this.  NumPy has no fast float16, so on the CPU this is slow and only shows that it
works; bfloat16 is for GPUs.   Source: Micikevicius et al., Mixed precision training, arXiv 1710.03740.

Either way a step's images may come in several parts, whose gradients are averaged: the gradient of the mean loss, but
that batch norm normalises each part by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import nn, ops
from ..backend import cast, quiet, zeros_like
from ..backend import scale as shrink
from ..errors import ParamError
from ..nn.vectors import add_scaled
from ..runs.config import SIXTEEN_BITS

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
        """Note that others than the optimiser have changed the weights."""


class Half(Same):
    """Steps in 16 bits: the net computes with copies of its weights, and its gradients are float32."""

    def __init__(self, net: nn.Net, parts: int, dtype: str) -> None:
        super().__init__(net, parts)
        self.copies = net.compute_in(dtype)
        self.scale = LossScale() if dtype == "float16" else None  # bfloat16 holds what float32 does, less exactly

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.copies.nbytes

    @quiet
    def forward(self, x: Any, *, step: Any) -> Any:
        return super().forward(x, step=step)

    @quiet
    def loss(self, scores: Any, labels: Any, *, label_smoothing: float) -> tuple[Any, Any]:
        return super().loss(cast(scores, self.net.dtype), labels, label_smoothing=label_smoothing)

    @quiet
    def backward(self, dscores: Any) -> None:
        scale: Any = 1.0
        unscale: Any = 1 / self._parts
        if self.scale is not None:
            scale, unscale = self.scale.value, 1 / (self.scale.value * self._parts)
            if self.numbers is not None:
                scale, unscale = self.numbers.scale, self.numbers.unscale
        self.net.backward(cast(dscores, self.copies.flat.dtype, scale))
        if self._total is not None:
            add_scaled(self._total, self.net.flat_grads, unscale)
        elif self.scale is not None:
            shrink(self.net.flat_grads, unscale)

    def follow(self) -> None:
        self.copies.renew()


def arithmetic(net: nn.Net, precision: str, parts: int) -> Same:
    """Return how steps of a net compute: precision is "float32" (the net's dtype), "tf32", "float16" or "bfloat16"."""
    if precision in SIXTEEN_BITS:
        return Half(net, parts, precision)
    net.round_factors("tf32" if precision == "tf32" else None)
    return Same(net, parts)
