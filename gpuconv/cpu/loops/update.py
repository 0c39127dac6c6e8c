"""Optimiser steps in place, block by block."""

from __future__ import annotations

import math

from numba import boolean, float32

from .atomic import COUNTER, blocks
from .jit import NUMBER, compiled_pass, loop, read, write

BLOCK = 128 * 1024


@loop
def _decayed(dw, w, decay):
    return dw + decay * w if decay != 0 else dw  # not 0 times a weight that may be infinite


@compiled_pass(read(1), write(1), *[float32] * 2, NUMBER, COUNTER)
def sgd(dw, w, lr, decay, block, counter):
    for part in blocks(counter, len(w), block):
        gradient, weight = dw[part], w[part]
        for i in range(len(weight)):
            weight[i] -= lr * _decayed(gradient[i], weight[i], decay)


@compiled_pass(read(1), write(1), write(1), float32, float32, boolean, float32, NUMBER, COUNTER)
def sgd_with_momentum(dw, v, w, lr, momentum, nesterov, decay, block, counter):
    for part in blocks(counter, len(w), block):
        gradient, velocity, weight = dw[part], v[part], w[part]
        for i in range(len(weight)):
            g = _decayed(gradient[i], weight[i], decay)
            velocity[i] = velocity[i] * momentum + g
            weight[i] -= lr * (g + momentum * velocity[i] if nesterov else velocity[i])


@compiled_pass(read(1), write(1), write(1), *[float32] * 5, NUMBER, COUNTER)
def rmsprop(dw, square, w, lr, old, new, eps, decay, block, counter):
    for part in blocks(counter, len(w), block):
        gradient, mean, weight = dw[part], square[part], w[part]
        for i in range(len(weight)):
            g = _decayed(gradient[i], weight[i], decay)
            mean[i] = mean[i] * old + new * (g * g)
            weight[i] -= lr * g / (math.sqrt(mean[i]) + eps)


@compiled_pass(read(1), write(1), write(1), write(1), *[float32] * 9, NUMBER, COUNTER)
def adam(dw, m, v, w, rate, old_m, new_m, old_v, new_v, second, eps, decay, shrink, block, counter):
    for part in blocks(counter, len(w), block):
        gradient, mean, square, weight = dw[part], m[part], v[part], w[part]
        for i in range(len(weight)):
            shrunk = weight[i] * shrink
            g = _decayed(gradient[i], shrunk, decay)
            mean[i] = mean[i] * old_m + new_m * g
            square[i] = square[i] * old_v + new_v * (g * g)
            weight[i] = shrunk - rate * mean[i] / (math.sqrt(square[i] / second) + eps)
