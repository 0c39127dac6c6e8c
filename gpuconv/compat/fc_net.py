"""TwoLayerNet and FullyConnectedNet: affine layers with ReLU, normalisation and dropout in between."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ParamError
from . import border
from .layers import (
    affine_backward,
    affine_forward,
    batchnorm_backward,
    batchnorm_forward,
    dropout_backward,
    dropout_forward,
    layernorm_backward,
    layernorm_forward,
    relu_backward,
    relu_forward,
    softmax_loss,
)
from .params import regularise


class FullyConnectedNet:
    """(affine - [batch or layer norm] - relu - [dropout]) for each hidden size, affine, softmax.

    params: W1, b1, ... and, with a normalization, gamma1, beta1, ... of the hidden layers.  Weights are drawn in the
    order of the layers.  dropout_keep_ratio: the probability to keep (1: no dropout); seed makes its draws the same at
    each call.  Batch normalisation and dropout train where labels are given.
    """

    def __init__(
        self,
        hidden_dims: list[int],
        input_dim: int = 3 * 32 * 32,
        num_classes: int = 10,
        dropout_keep_ratio: float = 1,
        normalization: str | None = None,
        reg: float = 0.0,
        weight_scale: float = 1e-2,
        dtype: Any = np.float32,
        seed: int | None = None,
    ) -> None:
        if normalization not in (None, "batchnorm", "layernorm"):
            msg = f'normalization must be None, "batchnorm" or "layernorm", got {normalization!r}'
            raise ParamError(msg)
        self.normalization, self.reg, self.dtype = normalization, reg, dtype
        self.use_dropout = dropout_keep_ratio != 1
        self.num_layers = 1 + len(hidden_dims)
        sizes = [input_dim, *hidden_dims, num_classes]
        params: dict[str, np.ndarray] = {}
        for i in range(1, self.num_layers + 1):
            params[f"W{i}"] = weight_scale * np.random.randn(sizes[i - 1], sizes[i])  # noqa: NPY002 - as notebooks seed
            params[f"b{i}"] = np.zeros(sizes[i])
            if normalization and i < self.num_layers:
                params[f"gamma{i}"], params[f"beta{i}"] = np.ones(sizes[i]), np.zeros(sizes[i])
        self.params = {name: values.astype(dtype) for name, values in params.items()}
        self.dropout_param: dict[str, Any] = {}
        if self.use_dropout:
            self.dropout_param = {"mode": "train", "p": dropout_keep_ratio} | ({} if seed is None else {"seed": seed})
        self.bn_params: list[dict[str, Any]] = []
        if normalization:
            start = {"mode": "train"} if normalization == "batchnorm" else {}
            self.bn_params = [dict(start) for _ in hidden_dims]

    def loss(self, X: Any, y: Any = None) -> Any:
        """Return scores (N, classes) without labels, else (loss, gradients by name)."""
        mode = "test" if y is None else "train"
        if self.use_dropout:
            self.dropout_param["mode"] = mode
        if self.normalization == "batchnorm":
            for bn_param in self.bn_params:
                bn_param["mode"] = mode
        a, *moved = border.inward(np.asarray(X).astype(self.dtype, copy=False), *self.params.values())
        p = dict(zip(self.params, moved, strict=True))
        steps = []  # (backward, cache, names of the gradients after dx), in the order of the forward
        for i in range(1, self.num_layers):
            for forward, backward, names, rest in self._layer(i):
                a, cache = forward(a, *(p[name] for name in names), *rest)
                steps.append((backward, cache, names))
        last = f"W{self.num_layers}", f"b{self.num_layers}"
        scores, cache = affine_forward(a, p[last[0]], p[last[1]])
        if y is None:
            return border.outward(scores)

        loss, da = softmax_loss(scores, y)
        grads: dict[str, Any] = {}
        for backward, kept, names in reversed([*steps, (affine_backward, cache, last)]):
            gradients = backward(da, kept)
            da, *of_params = gradients if names else (gradients,)
            grads |= {name: border.outward(grad) for name, grad in zip(names, of_params, strict=True)}
        return loss + regularise(self.params, grads, self.reg), grads

    def _layer(self, i: int) -> list[tuple[Any, Any, tuple[str, ...], tuple[Any, ...]]]:
        """Return the steps of hidden layer i: (forward, backward, names of its parameters, further arguments)."""
        steps: list[tuple[Any, Any, tuple[str, ...], tuple[Any, ...]]] = [
            (affine_forward, affine_backward, (f"W{i}", f"b{i}"), ())
        ]
        if self.normalization:
            both = (batchnorm_forward, batchnorm_backward)
            if self.normalization == "layernorm":
                both = (layernorm_forward, layernorm_backward)
            steps.append((*both, (f"gamma{i}", f"beta{i}"), (self.bn_params[i - 1],)))
        steps.append((relu_forward, relu_backward, (), ()))
        if self.use_dropout:
            steps.append((_dropout_forward, dropout_backward, (), (self.dropout_param,)))
        return steps


def _dropout_forward(x: Any, dropout_param: dict[str, Any]) -> tuple[Any, Any]:
    """Drop out with p as the net defines it, whatever notebooks mean by it elsewhere."""
    return dropout_forward(x, dropout_param, p_is="keep")


class TwoLayerNet(FullyConnectedNet):
    """affine - relu - affine - softmax.   params: W1, b1, W2, b2."""

    def __init__(
        self,
        input_dim: int = 3 * 32 * 32,
        hidden_dim: int = 100,
        num_classes: int = 10,
        weight_scale: float = 1e-3,
        reg: float = 0.0,
    ) -> None:
        super().__init__([hidden_dim], input_dim, num_classes, weight_scale=weight_scale, reg=reg, dtype=np.float64)
