"""Optimiser steps in place, block by block: every vector is read and written once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .elementwise import in_blocks
from .layout import accumulator


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

    _in_place(step, [dw] if velocity is None else [dw, velocity], w)


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

    _in_place(step, [dw, square], w)


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

    _in_place(move, [dw, m, v], w)


def _in_place(step: Callable[..., None], inputs: list[np.ndarray], w: np.ndarray) -> None:
    """Call step(dw, *state, w), which updates state and w, block by block; float16 is computed in float32."""
    kind = accumulator(w.dtype)
    if w.dtype == kind:
        in_blocks(step, inputs, w)
        return

    def widened(*narrow: np.ndarray) -> None:
        wide = [array.astype(kind) for array in narrow]
        step(*wide)
        for target, values in zip(narrow[1:], wide[1:], strict=True):
            np.copyto(target, values, casting="same_kind")

    in_blocks(widened, inputs, w)
