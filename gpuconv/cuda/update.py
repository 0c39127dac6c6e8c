"""Launches of kernels/update.cu."""

from __future__ import annotations

from typing import Any

from ..placed import Number, placed_number
from .device import device_of
from .elementwise import pack_blocks
from .kernel import Kernel, cover

_SGD = Kernel("update.cu", "sgd_update", strided=("w", "dw", "velocity"))
_RMSPROP = Kernel("update.cu", "rmsprop_update", strided=("w", "dw", "square"))
_ADAM = Kernel("update.cu", "adam_update", strided=("w", "dw", "m", "v"))


def sgd_update(
    w: Any, dw: Any, velocity: Any, *, lr: float | Number, momentum: float, nesterov: bool, weight_decay: float
) -> None:
    sgd_step(w, dw, velocity, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)


def sgd_step(
    w: Any,
    dw: Any,
    velocity: Any,
    *,
    lr: float | Number,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    copy: Any = None,
) -> None:
    """Take the step of sgd_update, and leave w in `copy`, too: a vector without gaps, of any dtype, as w must be then."""
    _update(_SGD, (w, dw, velocity), copy, lr, *placed_number(lr), momentum, nesterov, weight_decay)


def rmsprop_update(
    w: Any, dw: Any, square: Any, *, lr: float | Number, smoothing: float, eps: float, weight_decay: float
) -> None:
    rmsprop_step(w, dw, square, lr=lr, smoothing=smoothing, eps=eps, weight_decay=weight_decay)


def rmsprop_step(
    w: Any,
    dw: Any,
    square: Any,
    *,
    lr: float | Number,
    smoothing: float,
    eps: float,
    weight_decay: float,
    copy: Any = None,
) -> None:
    """Take the step of rmsprop_update, with a copy as sgd_step has it."""
    _update(_RMSPROP, (w, dw, square), copy, lr, *placed_number(lr), smoothing, eps, weight_decay)


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
    rate, second = lr / (1 - beta1**step), 1 - beta2**step
    shrink = 1 - lr * weight_decay if decoupled else 1.0
    penalty = 0.0 if decoupled else weight_decay
    settings = {"beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": penalty}
    adam_step(w, dw, m, v, rate=rate, second=second, shrink=shrink, **settings)


def adam_step(
    w: Any,
    dw: Any,
    m: Any,
    v: Any,
    *,
    rate: float | Number,
    second: float | Number,
    shrink: float | Number,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    copy: Any = None,
) -> None:
    """Take a step of Adam from what the learning rate and the number of the step come to, as update.cu has it.

    copy: as sgd_step has it.
    """
    told = *placed_number(rate), *placed_number(second), *placed_number(shrink)
    _update(_ADAM, (w, dw, m, v), copy, rate, *told, beta1, beta2, eps, weight_decay)


def _update(kernel: Kernel, vectors: tuple[Any, ...], copy: Any, rate: float | Number, *settings: Any) -> None:
    """Launch a step on w, dw and up to two vectors of state, of which any may be None; the rate says whether."""
    w = vectors[0]
    device = device_of(w)
    steps = [0 if vector is None else vector.strides[0] // vector.dtype.itemsize for vector in vectors]
    dense = all(vector is None or vector.flags.c_contiguous for vector in vectors)
    names = dict(zip(("w", "dw", "first", "second"), [*steps, 0, 0], strict=False))
    go = rate.go if isinstance(rate, Number) else None
    blocks = pack_blocks(device, w) if dense else cover(device, w.size)
    templates = w.dtype, w.dtype if copy is None else copy.dtype, dense
    kernel(device, templates, blocks, *vectors, copy, names, w.size, go, *settings)
