"""Optimiser steps of a block of elements, in place."""

from __future__ import annotations

import numpy as np

from ..parallel import BLOCK_ELEMENTS

BLOCK = BLOCK_ELEMENTS


def sgd(dw: np.ndarray, w: np.ndarray, lr: float, decay: float) -> None:
    w -= lr * _decayed(dw, w, decay)


def sgd_with_momentum(
    dw: np.ndarray, v: np.ndarray, w: np.ndarray, lr: float, momentum: float, nesterov: bool, decay: float
) -> None:
    g = _decayed(dw, w, decay)
    v *= momentum
    v += g
    w -= lr * (g + momentum * v if nesterov else v)


def rmsprop(
    dw: np.ndarray, square: np.ndarray, w: np.ndarray, lr: float, old: float, new: float, eps: float, decay: float
) -> None:
    g = _decayed(dw, w, decay)
    square *= old
    square += new * (g * g)
    w -= lr * g / (np.sqrt(square) + eps)


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
) -> None:
    """rate is the learning rate over the first moment's correction, second the other's; shrink is decoupled decay."""
    if shrink != 1:
        w *= shrink
    g = _decayed(dw, w, decay)
    m *= old_m
    m += new_m * g
    v *= old_v
    v += new_v * (g * g)
    w -= rate * m / (np.sqrt(v / second) + eps)


def _decayed(dw: np.ndarray, w: np.ndarray, decay: float) -> np.ndarray:
    return dw + decay * w if decay else dw
