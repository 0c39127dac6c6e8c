"""The layers of single elements, for any shape: each with settings, none with parameters."""

from __future__ import annotations

import math
from typing import Any

from .. import checks, ops
from ..backend import multiple
from ..errors import ParamError
from .layer import Layer, register

__all__ = ["Dropout", "Gelu", "LeakyRelu", "Relu", "Scale", "Silu"]


@register("relu")
class Relu(Layer):
    """max(x, 0), for any shape.

    >>> layer = nn.Relu()
    >>> layer.forward(np.array([-2.0, 0.0, 3.0]), training=True)
    array([0., 0., 3.])
    >>> layer.backward(np.ones(3))
    array([0., 0., 1.])
    """

    def __init__(self) -> None:
        super().__init__()

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        return ops.relu_forward(x)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        return ops.relu_backward(dy, cache)


@register("leaky-relu")
class LeakyRelu(Layer):
    """x where it is above 0, else slope x, for any shape; slope=0 is Relu.

    >>> nn.LeakyRelu(0.5).forward(np.array([-2.0, 0.0, 3.0]))
    array([-1.,  0.,  3.])
    """

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__(slope=checks.real("slope", slope, low=0.0))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        return ops.leaky_relu_forward(x, **self.settings)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        return ops.leaky_relu_backward(dy, cache)


@register("gelu")
class Gelu(Layer):
    """Gaussian error linear unit, for any shape: approximate="none" (exact) or "tanh".

    >>> nn.Gelu().forward(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])
    """

    def __init__(self, *, approximate: str = "none") -> None:
        super().__init__(approximate=checks.choice("approximate", approximate, ("none", "tanh")))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        return ops.gelu_forward(x, **self.settings)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        return ops.gelu_backward(dy, cache)


@register("dropout")
class Dropout(Layer):
    """Zero each element with probability rate in training; do nothing otherwise.

    The draw is a pure function of the net's seed, of step, and of which of the net's dropout layers this is.

    >>> layer = nn.Dropout(0.5)
    >>> layer.forward(np.ones(4), training=True, step=1)
    array([0., 2., 0., 0.])
    >>> layer.forward(np.ones(4))
    array([1., 1., 1., 1.])
    """

    random = True

    def __init__(self, rate: float = 0.5) -> None:
        rate = checks.real("rate", rate, low=0.0, high=1.0)
        if rate == 1.0:
            msg = "rate must be below 1, got rate=1.0: nothing would be left"
            raise ParamError(msg)
        super().__init__(rate=rate)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        if not training:
            return x, None
        # One number for each pair (training step, dropout layer).
        own_step = step * self.random_count + self.random_index
        offset = self.samples_before * math.prod(x.shape[1:])
        return ops.dropout_forward(x, rate=self.settings["rate"], seed=self.seed, step=own_step, offset=offset)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        return ops.dropout_backward(dy, cache)


@register("scale")
class Scale(Layer):
    """factor x, for any shape, with a factor that does not learn.

    >>> nn.Scale(0.5).forward(np.array([2.0, 4.0]))
    array([1., 2.])
    """

    def __init__(self, factor: float) -> None:
        super().__init__(factor=checks.real("factor", factor, low=-math.inf))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        checks.common_dtype(x=x)
        return multiple(x, self.settings["factor"]), (tuple(x.shape), x.dtype)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        checks.upstream(dy, *cache)
        return multiple(dy, self.settings["factor"])


@register("silu")
class Silu(Layer):
    """x / (1 + exp(-x)), for any shape; others call it swish.

    >>> nn.Silu().forward(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.2689,  0.    ,  0.7311])
    """

    def __init__(self) -> None:
        super().__init__()

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        return ops.silu_forward(x)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        return ops.silu_backward(dy, cache)
