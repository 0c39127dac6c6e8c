"""Numerical gradients by central differences, as the course's notebooks call them.

Every function changes its arrays in place, one element at a time, and puts the old value back.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np


def eval_numerical_gradient(
    f: Callable[[Any], Any], x: np.ndarray, verbose: bool = True, h: float = 1e-5
) -> np.ndarray:
    """Return the gradient of the scalar f at x; print each entry if verbose."""
    grad = np.zeros(x.shape)
    for ix in np.ndindex(x.shape):
        up, down = _both_sides(lambda: f(x), x, ix, h)
        grad[ix] = (up - down) / (2 * h)
        if verbose:
            print(ix, grad[ix])  # noqa: T201 - what the notebook shows
    return grad


def eval_numerical_gradient_array(
    f: Callable[[Any], Any], x: np.ndarray, df: np.ndarray, h: float = 1e-5
) -> np.ndarray:
    """Return the gradient of sum(f(x) df) at x, f being an array."""
    grad = np.zeros(x.shape)
    for ix in np.ndindex(x.shape):
        up, down = _both_sides(lambda: np.array(f(x)), x, ix, h)
        grad[ix] = np.sum((up - down) * df) / (2 * h)
    return grad


def eval_numerical_gradient_blobs(
    f: Callable[..., None], inputs: tuple[Any, ...], output: Any, h: float = 1e-5
) -> list[np.ndarray]:
    """Return the gradients of sum(output.vals output.diffs) for the vals of each input.

    f(*inputs, output) writes its result to output.vals; blobs are objects with the arrays vals and diffs.
    """

    def result() -> np.ndarray:
        f(*inputs, output)
        return np.array(output.vals)

    grads = []
    for blob in inputs:
        grad = np.zeros(blob.vals.shape)
        for ix in np.ndindex(blob.vals.shape):
            up, down = _both_sides(result, blob.vals, ix, h)
            grad[ix] = np.sum((up - down) * output.diffs) / (2 * h)
        grads.append(grad)
    return grads


def eval_numerical_gradient_net(net: Any, inputs: tuple[Any, ...], output: Any, h: float = 1e-5) -> list[np.ndarray]:
    """Return eval_numerical_gradient_blobs of a net's forward()."""
    return eval_numerical_gradient_blobs(lambda *_: net.forward(), inputs, output, h=h)


def grad_check_sparse(
    f: Callable[[Any], Any], x: np.ndarray, analytic_grad: np.ndarray, num_checks: int = 10, h: float = 1e-5
) -> None:
    """Print the numerical and the analytic gradient, and their relative error, at places drawn at random."""
    for _ in range(num_checks):
        ix = tuple(random.randrange(size) for size in x.shape)
        up, down = _both_sides(lambda: f(x), x, ix, h)
        numerical, analytic = (up - down) / (2 * h), analytic_grad[ix]
        size = abs(numerical) + abs(analytic)
        error = abs(numerical - analytic) / size if size else 0.0
        print(f"numerical: {numerical:f} analytic: {analytic:f}, relative error: {error:e}")  # noqa: T201 - as above


def _both_sides(f: Callable[[], Any], x: np.ndarray, ix: tuple[int, ...], h: float) -> tuple[Any, Any]:
    """Return f with x[ix] moved up by h, and down."""
    keep = x[ix]
    try:
        x[ix] = keep + h
        up = f()
        x[ix] = keep - h
        return up, f()
    finally:
        x[ix] = keep
