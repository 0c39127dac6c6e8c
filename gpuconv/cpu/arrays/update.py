"""Optimiser steps in place, block by block."""

from __future__ import annotations

import numpy as np

from ..parallel import BLOCK_ELEMENTS, blocks, quiet

BLOCK = BLOCK_ELEMENTS


@quiet
def sgd(dw: np.ndarray, w: np.ndarray, lr: float, decay: float, block: int, counter: np.ndarray) -> None:
    for part in blocks(counter, len(w), block):
        w[part] -= lr * _decayed(dw[part], w[part], decay)


@quiet
def sgd_with_momentum(
    dw: np.ndarray,
    v: np.ndarray,
    w: np.ndarray,
    lr: float,
    momentum: float,
    nesterov: bool,
    decay: float,
    block: int,
    counter: np.ndarray,
) -> None:
    for part in blocks(counter, len(w), block):
        g, velocity, weights = _decayed(dw[part], w[part], decay), v[part], w[part]
        velocity *= momentum
        velocity += g
        weights -= lr * (g + momentum * velocity if nesterov else velocity)


@quiet
def rmsprop(
    dw: np.ndarray,
    square: np.ndarray,
    w: np.ndarray,
    lr: float,
    old: float,
    new: float,
    eps: float,
    decay: float,
    block: int,
    counter: np.ndarray,
) -> None:
    for part in blocks(counter, len(w), block):
        g, mean, weights = _decayed(dw[part], w[part], decay), square[part], w[part]
        mean *= old
        mean += new * (g * g)
        weights -= lr * g / (np.sqrt(mean) + eps)


@quiet
def adam(
    dw: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    w: np.ndarray,
    rate: float,
    old_m: float,
    new_m: float,
    old_v: float,
    new_v: float,
    second: float,
    eps: float,
    decay: float,
    shrink: float,
    block: int,
    counter: np.ndarray,
) -> None:
    """rate is the learning rate over the first moment's correction, second the other's; shrink is decoupled decay."""
    for part in blocks(counter, len(w), block):
        mean, square, weights = m[part], v[part], w[part]
        if shrink != 1:
            weights *= shrink
        g = _decayed(dw[part], weights, decay)
        mean *= old_m
        mean += new_m * g
        square *= old_v
        square += new_v * (g * g)
        weights -= rate * mean / (np.sqrt(square / second) + eps)


def _decayed(dw: np.ndarray, w: np.ndarray, decay: float) -> np.ndarray:
    return dw + decay * w if decay else dw
