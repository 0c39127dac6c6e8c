"""Gradient clipping by the norm of all gradients together."""

from __future__ import annotations

import math

from .. import checks
from ..backend import scale, square_sum
from .net import Net


def clip_gradients(net: Net, max_norm: float) -> float:
    """Shorten net.flat_grads to a Euclidean norm of at most max_norm; return the norm it had.

    The norm is summed in float64 on the host: the call waits for a GPU.  A norm that is no number changes nothing.
    Source: Pascanu et al., On the difficulty of training recurrent neural networks, arXiv 1211.5063.

    >>> net = nn.Net(nn.Affine(2, 1, bias=False), (2,), dtype="float64")
    >>> net.grads["w"][:, 0] = 3.0, 4.0
    >>> nn.clip_gradients(net, max_norm=1.0)
    5.0
    >>> net.grads["w"].ravel()
    array([0.6, 0.8])
    """
    max_norm = checks.real("max_norm", max_norm, low=0.0, open_low=True)
    norm = math.sqrt(square_sum(net.flat_grads))
    if max_norm < norm < math.inf:
        scale(net.flat_grads, max_norm / norm)
    return norm
