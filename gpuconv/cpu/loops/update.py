"""Optimiser steps of a run of elements, in place."""

from __future__ import annotations

import math

from numba import boolean, float32

from .jit import compiled_pass, loop, read, write

BLOCK = 128 * 1024


@loop
def _decayed(dw, w, decay):
    return dw + decay * w if decay != 0 else dw  # not 0 times a weight that may be infinite


@compiled_pass(read(1), write(1), *[float32] * 2)
def sgd(dw, w, lr, decay):
    for i in range(len(w)):
        w[i] -= lr * _decayed(dw[i], w[i], decay)


@compiled_pass(read(1), write(1), write(1), float32, float32, boolean, float32)
def sgd_with_momentum(dw, v, w, lr, momentum, nesterov, decay):
    for i in range(len(w)):
        g = _decayed(dw[i], w[i], decay)
        v[i] = v[i] * momentum + g
        w[i] -= lr * (g + momentum * v[i] if nesterov else v[i])


@compiled_pass(read(1), write(1), write(1), *[float32] * 5)
def rmsprop(dw, square, w, lr, old, new, eps, decay):
    for i in range(len(w)):
        g = _decayed(dw[i], w[i], decay)
        square[i] = square[i] * old + new * (g * g)
        w[i] -= lr * g / (math.sqrt(square[i]) + eps)


@compiled_pass(read(1), write(1), write(1), write(1), *[float32] * 9)
def adam(dw, m, v, w, rate, old_m, new_m, old_v, new_v, second, eps, decay, shrink):
    for i in range(len(w)):
        weight = w[i] * shrink
        g = _decayed(dw[i], weight, decay)
        m[i] = m[i] * old_m + new_m * g
        v[i] = v[i] * old_v + new_v * (g * g)
        w[i] = weight - rate * m[i] / (math.sqrt(v[i] / second) + eps)
