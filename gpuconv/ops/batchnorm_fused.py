"""Batch norm with what follows it in one pass, on a GPU: what a net runs there in place of several layers.

Results and gradients are those of batch norm, activation, sum and pooling one after the other, bit for bit; moments that
were made with x are added up in another order (conv_fused.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import checks
from ..backend import backend_of
from ._cache import Cache
from .batchnorm import BatchNormCache, checked_forward

_AXES = {2: "(N, C)", 4: "(N, C, H, W)"}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FusedCache(Cache):
    """What the backward needs.

    norm: of the batch norm.   told: where the output was above 0, or the places of the maxima.   shape: of the output
    """

    norm: BatchNormCache
    beta: Any
    activation: str
    pool: bool
    told: Any
    shape: tuple[int, ...]
    marks: dict[str, bytes] | None


def fused_forward(
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Any,
    running_var: Any,
    *,
    training: bool,
    momentum: float,
    eps: float,
    activation: str = "identity",
    pool: bool = False,
    other: Any = None,
    join: str = "alone",
    given: Any = None,
) -> tuple[Any, FusedCache]:
    """Return (y, cache) of a batch norm of x on a GPU, (N, C) or (N, C, H, W), and what follows it.

    activation: "identity", "relu", "gelu" or "gelu-tanh".   other: an array that is added, "before" the activation (the
    identity or ReLU) or "after" it.   pool: the maxima of 2 x 2 windows side by side, with the identity or ReLU alone.
    given: moments of x that were made with it.
    """
    vectors = gamma, beta, running_mean, running_var
    backend, settings = checked_forward(_AXES, x, *vectors, training=training, momentum=momentum, eps=eps)
    if other is not None:
        backend_of(x=x, other=other)
        checks.same_shape("other", other, x.shape, "the shape of x")
    if pool:
        made = backend.batchnorm_fused.pooled_forward(x, *vectors, **settings, relu=activation == "relu", given=given)
    elif (activation, join) == ("identity", "alone"):
        made = *backend.batchnorm.forward(x, *vectors, **settings, given=given), None
    else:
        how = {"activation": activation, "other": other, "join": join, "given": given}
        made = backend.batchnorm_fused.fused_forward(x, *vectors, **settings, **how)
    y, mean, inv_std, told = made
    norm = BatchNormCache(x, gamma, mean, inv_std, settings["training"], checks.mark(x=x, gamma=gamma))
    return y, FusedCache(norm, beta, activation, pool, told, tuple(y.shape), checks.mark(beta=beta))


def fused_backward_into(dy: Any, cache: FusedCache, dgamma: Any, dbeta: Any, *, mask: Any = None) -> Any:
    """Return dx of a forward in training, and fill dgamma, unless it is None, and dbeta.

    mask: where dy is a gradient of the output; elsewhere that is 0.  Only where nothing follows the batch norm.
    """
    norm = cache.norm
    backend = backend_of(dy=dy, x=norm.x)
    checks.upstream(dy, cache.shape, norm.x.dtype)
    checks.unchanged(norm.marks, x=norm.x, gamma=norm.gamma)
    checks.unchanged(cache.marks, beta=cache.beta)
    vectors = norm.gamma, norm.mean, norm.inv_std, dgamma, dbeta
    fused = backend.batchnorm_fused
    if cache.pool:
        return fused.pooled_backward_into(dy, cache.told, norm.x, vectors)
    if cache.activation == "relu" or mask is not None:
        return fused.masked_backward_into(dy, cache.told if mask is None else mask, norm.x, vectors)
    if cache.activation == "identity":
        return backend.batchnorm.batchnorm_backward_into(dy, norm.x, *vectors, training=True)
    return fused.gelu_backward_into(
        dy, cache.beta, norm.x, vectors, approximate="tanh" if cache.activation == "gelu-tanh" else "none"
    )


def joined(dy: Any, mask: Any, other: Any = None) -> Any:
    """Return dy where the mask of a forward is set, else 0, plus another gradient of its shape unless that is None."""
    return backend_of(dy=dy, other=other).batchnorm_fused.joined(dy, mask, other)
