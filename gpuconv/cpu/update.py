"""Optimiser steps in place, block by block: every vector is read and written once."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiled import passes
from .elementwise import elementwise, in_blocks
from .layout import accumulator, stored_order
from .parallel import blocks, quiet


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
    if velocity is None:
        _in_place("sgd", [dw], w, lr, weight_decay)
    else:
        _in_place("sgd_with_momentum", [dw, velocity], w, lr, momentum, nesterov, weight_decay)


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
    _in_place("rmsprop", [dw, square], w, lr, smoothing, 1 - smoothing, eps, weight_decay)


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
    shrink = 1 - lr * weight_decay if decoupled else 1.0
    decay = 0.0 if decoupled else weight_decay
    rate, second = lr / (1 - beta1**step), 1 - beta2**step
    _in_place("adam", [dw, m, v], w, rate, beta1, 1 - beta1, beta2, 1 - beta2, second, eps, decay, shrink)


def _in_place(function: str, inputs: list[np.ndarray], w: np.ndarray, *options: Any) -> None:
    """Call a pass, function(dw, *state, w, *options), that updates state and w; float16 is computed in float32."""
    kind = accumulator(w.dtype)
    if w.dtype == kind:
        elementwise("update", function, inputs, w, *options)
        return
    run = passes("update", w.dtype)
    one_pass = getattr(run, function)

    @quiet
    def widened(*arguments: Any) -> None:
        *arrays, block, counter = arguments
        for part in blocks(counter, len(arrays[-1]), block):
            narrow = [array[part] for array in arrays]
            wide = [array.astype(kind) for array in narrow]
            one_pass(*wide, *options, len(wide[0]), np.zeros(1, np.int64))
            for target, values in zip(narrow[1:], wide[1:], strict=True):
                np.copyto(target, values, casting="same_kind")

    arrays = [*inputs, w]
    in_blocks(widened, stored_order(*arrays) or arrays, run.BLOCK)
