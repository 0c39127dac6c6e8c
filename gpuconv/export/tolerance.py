"""How far two computations of one net may lie apart: rounding errors, followed through the layers.

A layer's own error is what the operators are held to: 8 u S where the terms of a sum cancel, S being the same operation
on absolute values, and (4 + 2 sqrt(K)) u for the part of K terms that does not cancel and grows along the sum, which is
|y|; storing the result adds u |y|.  What comes in passes through a sum of products as independent errors do, by the
root of the sum of their squares.  (The part that is not independent, such as the rounding of a batch norm's factor, is
relative to each value: in the next sum it is at most u S, for which 8 u S has room.)  Through a pool, a residual sum or
an activation it passes at its full size.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from .. import nn, ops
from ..backend import using
from . import walk

_ROUNDOFF = {"float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}
_TINY = {"float16": 2.0**-25, "float32": 2.0**-150, "float64": 0.0}  # half the distance of the smallest numbers
_STEEPEST_GELU, _STEEPEST_SILU = 1.13, 1.1  # the largest slopes


def error_bound(net: nn.Net, x: Any, *, dtype: Any, x_error: float = 0.0) -> np.ndarray:
    """Return how far scores computed in dtype may lie from the exact ones.

    x: (N, *input_shape), on the host   ->   (N, *output_shape) float64

    Every array is taken as rounded to dtype once, and every sum as kept in it, whatever the order.
    x_error: how far x itself may be off, in units of u max(|x|, 1).
    """
    name = np.dtype(dtype).name
    rule = _Rounding(_ROUNDOFF[name], _TINY[name])
    x = np.asarray(x, np.float64)
    with using("cpu"):
        return _follow("", net.body, x, (1 + x_error) * rule.u * np.maximum(np.abs(x), 1), rule)[1]


class _Rounding:
    """The error of one operation."""

    def __init__(self, u: float, tiny: float) -> None:
        self.u, self.tiny = u, tiny

    def of(self, size: np.ndarray, y: np.ndarray, terms: int = 1) -> np.ndarray:
        """Return the bound for results y of sums of some terms, whose absolute values sum to size."""
        return (8 * size + (5 + 2 * terms**0.5) * np.abs(y)) * self.u + (1 + terms) * self.tiny


_Pair = tuple[np.ndarray, np.ndarray]  # values and the bounds of their errors
_Rule = Callable[[str, Any, np.ndarray, np.ndarray, _Rounding], _Pair]


def _follow(name: str, layer: nn.Layer, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    return walk.entry(_RULES, name, layer, "a rule of rounding")(name, layer, x, e, rule)


def _wide(layer: nn.Layer) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float64) for name, array in walk.arrays(layer).items()}


def _sequential(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    for key, child in layer.children().items():
        x, e = _follow(walk.dotted(name, key), child, x, e, rule)
    return x, e


def _residual(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    branches = [_follow(walk.dotted(name, key), child, x, e, rule) for key, child in layer.children().items()]
    (y, y_error), (short, short_error) = branches if len(branches) == 2 else (*branches, (x, e))
    total = y + short
    return total, y_error + short_error + rule.u * np.abs(total)


def _products(x: np.ndarray, e: np.ndarray, w: np.ndarray, b: Any, apply: Any, rule: _Rounding, terms: int) -> _Pair:
    y = apply(x, w, b)
    size = apply(np.abs(x), np.abs(w), None if b is None else np.abs(b))
    return y, np.sqrt(apply(e * e, w * w, None)) + rule.of(size, y, terms)


def _conv(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    arrays = _wide(layer)
    w = arrays["w"]

    def apply(x: Any, w: Any, b: Any) -> Any:
        return ops.conv_forward(x, w, b, **layer.geometry)[0]

    return _products(x, e, w, arrays.get("b"), apply, rule, w[0].size + 1)


def _conv_transpose(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    arrays = _wide(layer)
    w = arrays["w"]

    def apply(x: Any, w: Any, b: Any) -> Any:
        return ops.conv_transpose_forward(x, w, b, **layer.geometry)[0]

    terms = w[:, 0].size // layer.settings["groups"] + 1  # the most: with a stride fewer taps meet in a pixel
    return _products(x, e, w, arrays.get("b"), apply, rule, terms)


def _affine(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    arrays = _wide(layer)
    w = arrays["w"]

    def apply(x: Any, w: Any, b: Any) -> Any:
        return ops.affine_forward(x, w, b)[0]

    return _products(x, e, w, arrays.get("b"), apply, rule, len(w) + 1)


def _batch_norm(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    column = {key: array.reshape(-1, *(1,) * (x.ndim - 2)) for key, array in _wide(layer).items()}
    slope = column["gamma"] / np.sqrt(column["running_var"] + layer.settings["eps"])
    y = (x - column["running_mean"]) * slope + column["beta"]
    size = (np.abs(x) + np.abs(column["running_mean"])) * np.abs(slope) + np.abs(column["beta"])
    return y, e * np.abs(slope) + rule.of(size, y, 3)


def _group_norm(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    groups, arrays = layer.settings["groups"], _wide(layer)
    gamma, beta = (arrays[key].reshape(-1, 1, 1) for key in ("gamma", "beta"))
    rows, errors = (array.reshape(len(array), groups, -1) for array in (x, e))
    normal, error = (array.reshape(x.shape) for array in _normalised(rows, errors, layer.settings["eps"], rule))
    return _scaled(normal, error, gamma, beta, rule)


def _layer_norm(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    arrays = _wide(layer)
    normal, error = _normalised(x, e, layer.settings["eps"], rule)
    return _scaled(normal, error, arrays["gamma"], arrays["beta"], rule)


def _normalised(x: np.ndarray, e: np.ndarray, eps: float, rule: _Rounding) -> _Pair:
    """Normalise over the last axis.

    Errors d of x - mean move a normalised value n by (d - mean(d) - n mean(n d)) / std, to first order: mean and
    variance move with them.  d is what comes in and what the mean of K terms and the difference add; the variance is a
    mean of squares, none of which cancel, so that it is off by a share of itself, and n by half that share.
    """

    def mean(array: np.ndarray) -> np.ndarray:
        return array.mean(-1, keepdims=True)

    K = x.shape[-1]
    centred, inv_std = x - mean(x), 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    normal = centred * inv_std
    d = e + rule.of(np.abs(x) + mean(np.abs(x)), centred, K)
    moved = (d + mean(d) + np.abs(normal) * mean(np.abs(normal) * d)) * inv_std
    return normal, moved + rule.of(np.abs(normal), normal, K)


def _scaled(x: np.ndarray, e: np.ndarray, gamma: np.ndarray, beta: np.ndarray, rule: _Rounding) -> _Pair:
    y = x * gamma + beta
    return y, e * np.abs(gamma) + rule.of(np.abs(x * gamma) + np.abs(beta), y, 2)


def _max_pool(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    y, bound = (ops.max_pool_forward(array, **layer.settings)[0] for array in (x, e))
    return y, bound


def _average_pool(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    y, bound, size = (ops.average_pool_forward(array, **layer.settings)[0] for array in (x, e, np.abs(x)))
    height, width = (
        layer.settings["window"] if isinstance(layer.settings["window"], list) else (layer.settings["window"],) * 2
    )
    return y, bound + rule.of(size, y, height * width)


def _adaptive_average_pool(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    y, bound, size = (ops.adaptive_average_pool_forward(array, **layer.settings)[0] for array in (x, e, np.abs(x)))
    longest = [-(-n // p) + 1 for n, p in zip(x.shape[2:], y.shape[2:], strict=True)]
    return y, bound + rule.of(size, y, prod(longest))


def _global_average_pool(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    y, bound, size = (array.mean((2, 3)) for array in (x, e, np.abs(x)))
    return y, bound + rule.of(size, y, x.shape[2] * x.shape[3])


def _upsample(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    """Others round where a result lies: up to 3 u of the axis, for each of which it moves by the slope between two pixels."""
    y, bound, size = (ops.upsample_forward(array, **layer.settings)[0] for array in (x, e, np.abs(x)))
    if layer.settings["mode"] == "nearest":
        return y, bound
    around = ops.max_pool_forward(np.abs(x), window=3, stride=1, pad=1)[0]
    slope = 2 * ops.upsample_forward(around, factor=layer.settings["factor"])[0]
    return y, bound + rule.of(size, y, 4) + 3 * rule.u * sum(x.shape[2:]) * slope


def _relu(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    return np.maximum(x, 0), e


def _leaky_relu(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    y, slope = ops.leaky_relu_forward(x, **layer.settings)[0], layer.settings["slope"]
    # The slope is rounded, and its product: two units of y.
    return y, max(1.0, slope) * e + 2 * rule.u * np.abs(y) + rule.tiny


def _silu(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    y = ops.silu_forward(x)[0]
    return y, _STEEPEST_SILU * e + rule.of(np.abs(x), y)


def _gelu(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    y = ops.gelu_forward(x, **layer.settings)[0]
    # 1 + erf(a) is rounded at the size of 1: where it is small, at the left, the error is relative to x.
    return y, _STEEPEST_GELU * e + rule.of(np.abs(x), y)


def _same(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    return x, e


def _flatten(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    return x.reshape(len(x), -1), e.reshape(len(x), -1)


def _scale(name: str, layer: Any, x: np.ndarray, e: np.ndarray, rule: _Rounding) -> _Pair:
    factor = layer.settings["factor"]
    return x * factor, e * abs(factor) + 2 * rule.u * np.abs(x * factor) + rule.tiny


_RULES: dict[str, _Rule] = {
    "AdaptiveAveragePool": _adaptive_average_pool,
    "Affine": _affine,
    "AveragePool": _average_pool,
    "BatchNorm": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Dropout": _same,
    "Flatten": _flatten,
    "Gelu": _gelu,
    "GlobalAveragePool": _global_average_pool,
    "GroupNorm": _group_norm,
    "LayerNorm": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "MaxPool": _max_pool,
    "Relu": _relu,
    "Residual": _residual,
    "Scale": _scale,
    "Sequential": _sequential,
    "Silu": _silu,
    "Upsample": _upsample,
}
