"""Optimiser steps in place, block by block: every vector is read and written once."""

from __future__ import annotations

import numpy as np

from .elementwise import elementwise


def sgd_update(
    w: np.ndarray,
    dw: np.ndarray,
    velocity: np.ndarray | None,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    def step(dw: np.ndarray, *vectors: np.ndarray) -> None:
        *state, w = vectors
        g = dw + weight_decay * w if weight_decay else dw
        if state:
            (v,) = state
            v *= momentum
            v += g
            g = g + momentum * v if nesterov else v
        w -= lr * g

    elementwise(step, [dw] if velocity is None else [dw, velocity], w)


def rmsprop_update(
    w: np.ndarray,
    dw: np.ndarray,
    square: np.ndarray,
    *,
    lr: float,
    smoothing: float,
    eps: float,
    weight_decay: float,
) -> None:
    def step(dw: np.ndarray, square: np.ndarray, w: np.ndarray) -> None:
        g = dw + weight_decay * w if weight_decay else dw
        square *= smoothing
        square += (1 - smoothing) * (g * g)
        w -= lr * g / (np.sqrt(square) + eps)

    elementwise(step, [dw, square], w)


def adam_update(
    w: np.ndarray,
    dw: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    first, second = 1 - beta1**step, 1 - beta2**step

    def move(dw: np.ndarray, m: np.ndarray, v: np.ndarray, w: np.ndarray) -> None:
        g = dw
        if weight_decay and decoupled:
            w *= 1 - lr * weight_decay
        elif weight_decay:
            g = dw + weight_decay * w
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * (g * g)
        w -= (lr / first) * m / (np.sqrt(v / second) + eps)

    elementwise(move, [dw, m, v], w)
