"""Optimiser steps, parameter by parameter, in place: computed in float64, rounded once where they are stored."""

from __future__ import annotations

import math
from typing import Any


def sgd_update(
    w: Any, dw: Any, velocity: Any, *, lr: float, momentum: float, nesterov: bool, weight_decay: float
) -> None:
    """velocity = momentum velocity + g;   w -= lr velocity, or with nesterov lr (g + momentum velocity)."""
    for i in range(len(w)):
        g = float(dw[i]) + weight_decay * float(w[i])
        step = g
        if velocity is not None:
            new = momentum * float(velocity[i]) + g
            step = g + momentum * new if nesterov else new
            velocity[i] = new
        w[i] = float(w[i]) - lr * step


def rmsprop_update(
    w: Any, dw: Any, square: Any, *, lr: float, smoothing: float, eps: float, weight_decay: float
) -> None:
    """square = smoothing square + (1 - smoothing) g^2;   w -= lr g / (sqrt(square) + eps)."""
    for i in range(len(w)):
        g = float(dw[i]) + weight_decay * float(w[i])
        new = smoothing * float(square[i]) + (1 - smoothing) * g * g
        square[i] = new
        w[i] = float(w[i]) - lr * g / (math.sqrt(new) + eps)


def adam_update(
    w: Any,
    dw: Any,
    m: Any,
    v: Any,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """m and v follow g and g^2;   w -= lr m' / (sqrt(v') + eps), both corrected by 1 / (1 - beta^step)."""
    for i in range(len(w)):
        value = float(w[i])
        g = float(dw[i])
        if decoupled:
            value -= lr * weight_decay * value
        else:
            g += weight_decay * value
        new_m = beta1 * float(m[i]) + (1 - beta1) * g
        new_v = beta2 * float(v[i]) + (1 - beta2) * g * g
        m[i], v[i] = new_m, new_v
        w[i] = value - lr * (new_m / (1 - beta1**step)) / (math.sqrt(new_v / (1 - beta2**step)) + eps)
