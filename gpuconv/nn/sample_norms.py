"""The layers that normalise each sample by itself; batch norm stands in layers.py."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import checks, ops
from ..backend import copy
from ..errors import ParamError, ShapeError
from ..shapes import check_images
from .layer import Declared, Layer, register

__all__ = ["GroupNorm", "LayerNorm"]


@register("group-norm")
class GroupNorm(Layer):
    """Group normalisation of images (N, C, H, W): gamma, beta (C,); see gpuconv.groupnorm_forward.

    groups divides channels: 1 normalises whole images, groups=channels every channel of an image by itself.

    >>> layer = nn.GroupNorm(4, groups=2).create()
    >>> layer.forward(np.ones((2, 4, 8, 8), np.float32)).shape
    (2, 4, 8, 8)
    >>> layer
    GroupNorm(4, 2)
    """

    float32_params = True

    def __init__(self, channels: int, groups: int, *, eps: float = 1e-5) -> None:
        C = checks.integer("channels", channels, least=1)
        groups = checks.integer("groups", groups, least=1)
        if C % groups:
            msg = f"groups must divide channels, got groups={groups}, channels={C}"
            raise ParamError(msg)
        super().__init__(channels=C, groups=groups, eps=checks.real("eps", eps, low=0.0, open_low=True))
        self.declared |= {"gamma": Declared((C,), "ones"), "beta": Declared((C,), "zeros")}

    @classmethod
    def inferred(cls, shape: tuple[int, ...], classes: int | None) -> dict[str, Any]:
        return {"channels": shape[0]}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        C, groups = self.settings["channels"], self.settings["groups"]
        if len(shape) != 3 or shape[0] != C:
            msg = f"one sample must be (C, H, W) with C={C} channels, got {shape}"
            raise ShapeError(msg)
        if prod(shape) == groups:
            msg = f"normalising needs more than one value per group, got one sample {shape} with groups={groups}"
            raise ShapeError(msg)
        return shape

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        check_images("x", x)
        return ops.groupnorm_forward(x, **self.params, groups=self.settings["groups"], eps=self.settings["eps"])

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        dx, dgamma, dbeta = ops.groupnorm_backward(dy, cache)
        copy(dgamma, self.grads["gamma"])
        copy(dbeta, self.grads["beta"])
        return dx if input_grad else None


@register("layer-norm")
class LayerNorm(Layer):
    """Layer normalisation of rows (N, D): gamma, beta (D,); see gpuconv.layernorm_forward.

    >>> layer = nn.LayerNorm(2).create(dtype="float64")
    >>> layer.forward(np.array([[1.0, 3.0], [10.0, 30.0]])).round(3)
    array([[-1.,  1.],
           [-1.,  1.]])
    """

    float32_params = True

    def __init__(self, features: int, *, eps: float = 1e-5) -> None:
        D = checks.integer("features", features, least=2)
        super().__init__(features=D, eps=checks.real("eps", eps, low=0.0, open_low=True))
        self.declared |= {"gamma": Declared((D,), "ones"), "beta": Declared((D,), "zeros")}

    @classmethod
    def inferred(cls, shape: tuple[int, ...], classes: int | None) -> dict[str, Any]:
        return {"features": shape[0]}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape != (self.settings["features"],):
            msg = f"one sample must be a row of D={self.settings['features']} features, got {shape}"
            raise ShapeError(msg)
        return shape

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        return ops.layernorm_forward(x, **self.params, eps=self.settings["eps"])

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        dx, dgamma, dbeta = ops.layernorm_backward(dy, cache)
        copy(dgamma, self.grads["gamma"])
        copy(dbeta, self.grads["beta"])
        return dx if input_grad else None
