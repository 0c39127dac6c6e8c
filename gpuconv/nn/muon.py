"""Muon: steps of convolution filters that are made orthogonal; the rest of the net goes by Nesterov momentum."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks, ops
from ..backend import filter_banks
from ..errors import ParamError
from ..placed import Number
from .net import Net
from .optim import Optimiser, sgd_by_place

# The quintic a s + b s^3 + c s^5 that takes every singular value s in (0, 1] towards 1, steeply rather than exactly.
_A, _B, _C = 3.4445, -4.7750, 2.0315

# Each brings the singular values nearer to 1 by a factor; a handful does, and a step with more than these would not end.
MOST_ITERATIONS = 100


class Muon(Optimiser):
    """Momentum for filter banks, made orthogonal; Nesterov's accelerated gradient for everything else.

    For each bank w of K filters, with g its gradient, both as matrices (K, C R S):
    m = momentum m + g;   u = g + momentum m with nesterov, else m;
    w *= sqrt(K) / |w| with renormalise;   w -= lr orthogonal(u).

    Affine weights step by sgd_update with rate affine_lr lr, biases, gamma and beta with bias_lr lr; both with momentum
    sgd_momentum.  weight_decay applies to affine weights only: renormalised filters have a length already, and biases
    are decayed by no optimiser here.

    The matrix products are in float32 or wider: NumPy's on the CPU; on a GPU those of kernels/muon.cu, which takes the
    step of all banks together and reads nothing back.
    Sources: Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024), and the speed run
    airbench94_muon, whose momenta, coefficients and number of iterations the defaults are.

    >>> net = nn.ConvNet(4, input_shape=(3, 8, 8))
    >>> nn.Muon(net, momentum=0.6).step(lr=0.1)
    >>> float(np.linalg.norm(net.params["conv1.w"]).round(3))  # of 4 filters: renormalised to sqrt(4)
    2.0
    """

    def __init__(
        self,
        net: Net,
        momentum: float = 0.6,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        *,
        iterations: int = 3,
        renormalise: bool = True,
        sgd_momentum: float = 0.85,
        affine_lr: float = 1.0,
        bias_lr: float = 1.0,
    ) -> None:
        momentum = checks.real("momentum", momentum, low=0.0, high=1.0)
        sgd_momentum = checks.real("sgd_momentum", sgd_momentum, low=0.0, high=1.0)
        nesterov = checks.flag("nesterov", nesterov)
        self.iterations = checks.integer("iterations", iterations, least=1, most=MOST_ITERATIONS)
        self.renormalise = checks.flag("renormalise", renormalise)
        self.affine_lr = checks.real("affine_lr", affine_lr, low=0.0)
        settings = {"iterations": self.iterations, "renormalise": self.renormalise, "affine_lr": self.affine_lr}
        settings |= {"momentum": momentum, "nesterov": nesterov, "sgd_momentum": sgd_momentum}
        super().__init__(net, ("velocity",), weight_decay, bias_lr, **settings)
        self._parts = []
        banks = []  # (start, rows, columns)
        start = 0  # the first `decayed` entries of the flat vectors are the weights, layer by layer
        for w in net.params.values():
            if w.ndim > 1:
                if w.ndim == 4:
                    banks.append((start, w.shape[0], w.size // w.shape[0]))
                else:
                    self._add_part(start, start + w.size, self.weight_decay, self.affine_lr)
                start += w.size
        if start != net.decayed:
            msg = f"Muon needs the net's weights in front: {start} entries of matrices, {net.decayed} that decay"
            raise ParamError(msg)
        if start < net.flat_params.size:
            self._add_part(start, net.flat_params.size, 0.0, self.bias_lr)
        self._on_gpu = filter_banks(banks, net.flat_params)
        self._banks = [
            [array[start : start + rows * columns].reshape(rows, columns) for array in self._vectors]
            for start, rows, columns in banks
        ]

    def _update_all(self, lr: float) -> None:
        super()._update_all(lr)
        if self._on_gpu is not None:
            self._turn_all(lr)
            return
        for w, dw, velocity in self._banks:
            self._turn(w, dw, velocity, float(lr))

    def told(self, lr: float) -> tuple[list[float], list[float]]:
        rates, shrinks = super().told(lr)
        return [*rates, float(lr)], [*shrinks, 1.0]  # the last ones are those of the filter banks

    def _update_all_by_place(self, numbers: Any) -> None:
        super()._update_all_by_place(numbers)
        if self._on_gpu is not None:
            self._turn_all(numbers.rate(len(self._parts)))

    def _turn_all(self, lr: float | Number) -> None:
        """Take one step on all filter banks, on a GPU."""
        rule = {name: self.settings[name] for name in ("momentum", "nesterov", "renormalise", "iterations")}
        self._on_gpu.step(*self._vectors, lr=lr, quintic=(_A, _B, _C), copy=self._copy(), **rule)

    def _turn(self, w: Any, dw: Any, velocity: Any, lr: Any) -> None:
        """Take one step on one filter bank, in place."""
        momentum = self.settings["momentum"]
        velocity *= momentum
        velocity += dw
        if self.renormalise:
            w *= len(w) ** 0.5 / _length(w)
        w -= lr * orthogonal(dw + momentum * velocity if self.settings["nesterov"] else velocity, self.iterations)

    def _update(self, arrays: list[Any], lr: float, weight_decay: float) -> None:
        momentum = self.settings["sgd_momentum"]
        ops.sgd_update(*arrays, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=momentum > 0)

    def _update_by_place(self, arrays: list[Any], weight_decay: float, numbers: Any, part: int, copy: Any) -> None:
        momentum = self.settings["sgd_momentum"]
        settings = {"weight_decay": weight_decay, "momentum": momentum, "nesterov": momentum > 0}
        sgd_by_place(arrays, numbers.rate(part), copy=copy, **settings)


def orthogonal(u: Any, iterations: int) -> Any:
    """Return about U V^T of the singular value decomposition u = U S V^T: after 5 iterations each s in S lies between
    about 0.7 and 1.2, unless it was tiny.

    A Newton-Schulz iteration on u / |u|.   u: (rows, columns).
    """
    x = (_wide(u) if len(u) <= u.shape[1] else _wide(u).T) / (_length(u) + 1e-7)
    for _ in range(iterations):
        a = x @ x.T
        b = _B * a + _C * (a @ a)
        x = _A * x + b @ x
    return (x if len(u) <= u.shape[1] else x.T).astype(u.dtype, copy=False)


def _length(w: Any) -> Any:
    """Return the Euclidean norm as an array of no axes, 1 where it is 0."""
    wide = _wide(w)
    length = np.sqrt((wide * wide).sum())
    return length + (length == 0)


def _wide(array: Any) -> Any:
    return array.astype("float32") if array.dtype.itemsize < 4 else array
