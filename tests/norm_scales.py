"""How far results of normalisation may be off: the scales that compare.assert_close takes, from the sizes of the terms.

In units u of the sums, against a float64 reference.  Inputs far from zero lose digits that no algorithm gets back: with
inv = 1 / sqrt(variance + eps) and kappa = 1 + |mean| inv, rounding x, the mean or their difference moves x_hat by
u kappa.  Hence, of g = gamma dy, with c = 8 (for gradients c = 4 + 2 sqrt(values per channel) where dy has one sign):

  mean      mean |x|
  variance  variance (1 + 4 u kappa^2 / 8): a mean that is off by d adds d^2
  y         |gamma| (|x_hat| + kappa) + |beta|
  dbeta     sum |dy|
  dgamma    sum |dy| (|x_hat| + kappa)
  dx        inv (|g| + mean |g| + |x_hat| mean(|g| (|x_hat| + kappa)) + kappa |mean(g x_hat)|),
            without training inv |g|

The terms of dx may cancel to nothing: of two values in a group, both are 0 but for eps, whatever dy is.  Where inv
itself is as rough as the variance, (u kappa)^2 must be small beside u kappa: the cases keep u kappa below 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class NormScales(NamedTuple):
    """One scale a result, of its shape; mean and var are those of batch norm's running statistics."""

    y: np.ndarray
    dx: np.ndarray
    dgamma: np.ndarray
    dbeta: np.ndarray
    mean: np.ndarray | None = None
    var: np.ndarray | None = None


def batchnorm_scales(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    running_mean: np.ndarray,
    running_var: np.ndarray,
    dy: np.ndarray,
    *,
    unit: float,
    training: bool = True,
    momentum: float = 0.9,
    eps: float = 1e-5,
) -> NormScales:
    """Return the scales of batch norm; running_mean and running_var as they were before, unit: roundoff of the sums."""
    x, gamma, beta, old_mean, old_var, dy = (
        np.asarray(a, np.float64) for a in (x, gamma, beta, running_mean, running_var, dy)
    )
    C, axes = x.shape[1], (0, *range(2, x.ndim))
    nothing = np.zeros(C)
    if not training or not x.shape[0]:
        y, dx, dgamma, dbeta = _scales(x, gamma, beta, old_mean, old_var, dy, eps, axes, through=False)
        return NormScales(y, dx, dgamma, dbeta, nothing, nothing)
    mean, var = x.mean(axis=axes), x.var(axis=axes)
    kappa = 1 + np.abs(mean) / np.sqrt(var + eps)
    wobble = var * (1 + 4 * unit * kappa**2 / 8)
    return NormScales(
        *_scales(x, gamma, beta, mean, var, dy, eps, axes, through=True),
        momentum * np.abs(old_mean) + (1 - momentum) * np.abs(x).mean(axis=axes),
        momentum * old_var + (1 - momentum) * wobble,
    )


def groupnorm_scales(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, dy: np.ndarray, *, groups: int = 1, eps: float = 1e-5
) -> NormScales:
    """Return the scales of group norm of images, or of layer norm of rows: one group."""
    x, gamma, beta, dy = (np.asarray(a, np.float64) for a in (x, gamma, beta, dy))
    N, C = x.shape[:2]
    by_group = (N, groups, C // groups, int(np.prod(x.shape[2:])))
    inside = x.reshape(by_group)
    moments = [moment(axis=(2, 3)) for moment in (inside.mean, inside.var)]
    vectors = (v.reshape(1, groups, C // groups) for v in (gamma, beta))
    found = _scales(inside, *vectors, *moments, dy.reshape(by_group), eps, (2, 3), through=True, sums=(0, 3))
    y, dx, dgamma, dbeta = found
    return NormScales(y.reshape(x.shape), dx.reshape(x.shape), dgamma.reshape(C), dbeta.reshape(C))


def _scales(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    dy: np.ndarray,
    eps: float,
    axes: tuple[int, ...],
    *,
    through: bool,
    sums: tuple[int, ...] | None = None,
) -> tuple[np.ndarray, ...]:
    """Return the scales of y, dx, dgamma, dbeta.

    axes: of the values that share a mean; sums: of those that share a gamma; through: the mean follows x.
    """

    def beside(a: np.ndarray) -> np.ndarray:  # moments or parameters, shaped to go with x
        if a.ndim == x.ndim - len(axes):
            return np.expand_dims(a, axes)
        return a.reshape(a.shape + (1,) * (x.ndim - a.ndim))

    def mean_of(a: np.ndarray) -> Any:
        return a.mean(axis=axes, keepdims=True) if a.size else 0.0

    g, b, m, i = np.abs(beside(gamma)), np.abs(beside(beta)), beside(mean), 1 / np.sqrt(beside(var) + eps)
    x_hat, kappa, size = (x - m) * i, 1 + np.abs(m) * i, np.abs(dy)
    grown = np.abs(x_hat) + kappa
    weight, signed = g * size, beside(gamma) * dy
    spread = weight
    if through:
        spread = weight + mean_of(weight) + np.abs(x_hat) * mean_of(weight * grown)
        spread = spread + kappa * np.abs(mean_of(signed * x_hat))
    sums = axes if sums is None else sums
    return g * grown + b, i * spread, (size * grown).sum(axis=sums), size.sum(axis=sums)
