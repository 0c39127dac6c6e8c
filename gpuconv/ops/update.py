"""Optimiser steps on one flat parameter vector, in place: what the user calls.

Each updates w and its state vectors and returns nothing.  weight_decay is the factor of the L2 gradient w itself;
only `adam_update(decoupled=True)` applies it to the weights directly.
"""

from __future__ import annotations

from typing import Any

from .. import checks
from ..backend import backend_of
from ..elsewhere import says_ours
from ..errors import ParamError
from ..typing import Array


@says_ours()
def sgd_update(
    w: Array,
    dw: Array,
    velocity: Array | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> None:
    """Take a step of gradient descent, with momentum where a velocity is given.

    g = dw + weight_decay w;   velocity = momentum velocity + g;   w -= lr velocity, or with nesterov
    w -= lr (g + momentum velocity).   w, dw, velocity: (n,).

    >>> w, velocity = np.array([1.0, 2.0]), np.zeros(2)
    >>> gpuconv.sgd_update(w, np.array([10.0, 20.0]), velocity, lr=0.1, momentum=0.9)
    >>> w, velocity
    (array([0., 0.]), array([10., 20.]))
    """
    backend = _checked(w, dw, velocity=velocity)
    if velocity is None and momentum:
        msg = f"momentum={momentum} needs a velocity array"
        raise ParamError(msg)
    backend.sgd_update(
        w,
        dw,
        velocity,
        lr=checks.real("lr", lr, low=0.0),
        momentum=checks.real("momentum", momentum, low=0.0, high=1.0),
        nesterov=checks.flag("nesterov", nesterov),
        weight_decay=checks.real("weight_decay", weight_decay, low=0.0),
    )


@says_ours()
def rmsprop_update(
    w: Array,
    dw: Array,
    square: Array,
    *,
    lr: float,
    smoothing: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> None:
    """Take a step of RMSprop.

    g = dw + weight_decay w;   square = smoothing square + (1 - smoothing) g^2;   w -= lr g / (sqrt(square) + eps).
    w, dw, square: (n,).   Source: Hinton, Neural Networks for Machine Learning, lecture 6e (2012).

    >>> w, square = np.array([1.0, 2.0]), np.zeros(2)
    >>> gpuconv.rmsprop_update(w, np.array([4.0, -4.0]), square, lr=0.5, smoothing=0.75)
    >>> w.round(3), square
    (array([0., 3.]), array([4., 4.]))
    """
    backend = _checked(w, dw, square=square)
    backend.rmsprop_update(
        w,
        dw,
        square,
        lr=checks.real("lr", lr, low=0.0),
        smoothing=checks.real("smoothing", smoothing, low=0.0, high=1.0),
        eps=checks.real("eps", eps, low=0.0, open_low=True),
        weight_decay=checks.real("weight_decay", weight_decay, low=0.0),
    )


@says_ours()
def adam_update(
    w: Array,
    dw: Array,
    m: Array,
    v: Array,
    *,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> None:
    """Take step number `step` (the first is 1) of Adam, or of AdamW with decoupled=True.

    g = dw + weight_decay w (decoupled: g = dw and w -= lr weight_decay w first);
    m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2;
    w -= lr m' / (sqrt(v') + eps)   with m' = m / (1 - beta1^step), v' = v / (1 - beta2^step).
    w, dw, m, v: (n,).   Sources: Kingma and Ba, arXiv 1412.6980; Loshchilov and Hutter, arXiv 1711.05101.

    >>> w, m, v = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> gpuconv.adam_update(w, np.array([5.0, -5.0]), m, v, step=1, lr=0.1)
    >>> w.round(3), m.round(3)
    (array([0.9, 2.1]), array([ 0.5, -0.5]))
    """
    backend = _checked(w, dw, m=m, v=v)
    for name, value in (("beta1", beta1), ("beta2", beta2)):
        if checks.real(name, value, low=0.0, high=1.0) == 1.0:
            msg = f"{name} must be below 1, got {name}=1.0"
            raise ParamError(msg)
    backend.adam_update(
        w,
        dw,
        m,
        v,
        step=checks.integer("step", step, least=1),
        lr=checks.real("lr", lr, low=0.0),
        beta1=float(beta1),
        beta2=float(beta2),
        eps=checks.real("eps", eps, low=0.0, open_low=True),
        weight_decay=checks.real("weight_decay", weight_decay, low=0.0),
        decoupled=checks.flag("decoupled", decoupled),
    )


def _checked(w: Any, dw: Any, **state: Any) -> Any:
    arrays = {"w": w, "dw": dw, **state}
    backend = backend_of(**arrays)
    checks.given(w=w, dw=dw, **({} if "velocity" in state else state))
    checks.common_dtype(**arrays)
    checks.ndim("w", w, 1, "one flat vector (n,)")
    for name, array in arrays.items():
        if array is not None:
            checks.same_shape(name, array, w.shape, "the shape of w")
            if name != "dw":
                checks.writable(name, array)
    checks.apart("w", *state, **arrays)
    return backend
