"""The courses' dicts of parameters and cache tuples, in the terms of the operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import CacheError, ParamError
from . import border

# What p of dropout means where a call does not say: the probability to "keep" or to "drop".  The years differ.
_dropout_p = "keep"


def conv_options(conv_param: dict[str, Any]) -> dict[str, Any]:
    """Return stride and pad for conv_forward; floats of integral value become integers."""
    return {name: _whole(conv_param[name]) for name in ("stride", "pad")}


def pool_options(pool_param: dict[str, Any]) -> dict[str, Any]:
    """Return window and stride for max_pool_forward."""
    window = _whole(pool_param["pool_height"]), _whole(pool_param["pool_width"])
    return {"window": window, "stride": _whole(pool_param["stride"])}


def trains(layer: str, param: dict[str, Any]) -> bool:
    """Return whether mode is "train", or "test"; refuse any other."""
    mode = param["mode"]
    if mode not in ("train", "test"):
        msg = f'Invalid forward {layer} mode "{mode}"'
        raise ParamError(msg)
    return mode == "train"


def batchnorm(operator: Any, x: Any, gamma: Any, beta: Any, bn_param: dict[str, Any]) -> tuple[Any, Any]:
    """Call an operator for batch normalisation; running_mean and running_var are replaced in bn_param."""
    training = trains("batchnorm", bn_param)
    start = np.zeros(x.shape[1], border.float_type(x))
    before = {name: np.asarray(bn_param.get(name, start)) for name in ("running_mean", "running_var")}
    options = {name: bn_param[name] for name in ("momentum", "eps") if name in bn_param}

    @border.forward
    def across(x: Any, gamma: Any, beta: Any) -> tuple[Any, Any]:
        running = {name: border.beside(x, statistic.copy()) for name, statistic in before.items()}
        out, cache = operator(x, gamma, beta, **running, training=training, **options)
        for name, statistic in running.items():
            bn_param[name] = border.outward(statistic).astype(before[name].dtype, copy=False)
        return out, cache

    return across(x, gamma, beta)


def set_dropout_p(p_is: str) -> None:
    """Let p of dropout be the probability to "keep" (CS231n since 2018, UCLA 2023 and 2025) or to "drop"."""
    global _dropout_p  # noqa: PLW0603 - notebooks pass the dict alone, so the meaning has to live here
    if p_is not in ("keep", "drop"):
        msg = f'p of dropout must be the probability to "keep" or to "drop", got {p_is!r}'
        raise ParamError(msg)
    _dropout_p = p_is


def keep_probability(p: float, p_is: str | None) -> float:
    """Return the probability to keep an element; p_is: "keep", "drop", or None for what set_dropout_p was told."""
    return 1 - p if (p_is or _dropout_p) == "drop" else p


def unpacked(cache: Any, length: int, forward: str) -> tuple[Any, ...]:
    """Return a course's cache if it is a tuple of this length."""
    if not isinstance(cache, tuple) or len(cache) != length:
        given = f"a tuple of {len(cache)}" if isinstance(cache, tuple) else type(cache).__qualname__
        msg = f"cache must be the tuple of {length} that {forward} returned, got {given}"
        raise CacheError(msg)
    return cache


def regularise(params: dict[str, Any], grads: dict[str, Any], reg: float) -> float:
    """Return 0.5 reg times the sum of W^2, and add its gradient, for all params called W..."""
    if not reg:
        return 0.0
    weights = [name for name in params if name.startswith("W")]
    for name in weights:
        grads[name] = grads[name] + reg * params[name]
    return 0.5 * reg * sum(float(np.vdot(params[name], params[name])) for name in weights)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, (float, np.floating)) and float(value).is_integer() else value
