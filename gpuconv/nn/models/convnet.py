"""The net of the course, and a small one that trains well."""

from __future__ import annotations

import math

import numpy.typing as npt

from ... import checks
from ...errors import ParamError, ShapeError
from ..containers import Sequential
from ..layer import Layer
from ..layers import Affine, BatchNorm, Conv, Flatten, MaxPool
from ..net import Net
from ..single_elements import Relu
from .common import image_shape


class ThreeLayerConvNet(Net):
    """conv - relu - 2x2 max pool - affine - relu - affine, as in the course; the softmax belongs to the loss.

    The convolution is padded by (window - 1) // 2.  Weights are normal with standard deviation weight_scale, or He's
    with weight_scale=None; biases are 0.

    >>> net = nn.ThreeLayerConvNet(filters=4, window=3, hidden=20)
    >>> net.forward(np.ones((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """

    def __init__(
        self,
        input_shape: tuple[int, ...] = (3, 32, 32),
        filters: int = 32,
        window: int = 7,
        hidden: int = 100,
        classes: int = 10,
        weight_scale: float | None = 1e-3,
        *,
        seed: int = 0,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        input_shape = image_shape(input_shape)
        window = checks.integer("window", window, least=1)
        hidden, classes = checks.integer("hidden", hidden, least=1), checks.integer("classes", classes, least=1)
        if weight_scale is not None:
            weight_scale = checks.real("weight_scale", weight_scale, low=0.0)
        init = "he" if weight_scale is None else weight_scale
        conv = Conv(input_shape[0], filters, window, pad=(window - 1) // 2, init=init)
        filters, height, width = conv.output_shape(input_shape)
        if height % 2 or width % 2:
            msg = (
                f"the 2x2 pool needs an even height and width after the convolution, got {height}x{width}: "
                f"input_shape {input_shape}, window {window}"
            )
            raise ShapeError(msg)
        body = Sequential(
            conv,
            Relu(),
            MaxPool(2),
            Flatten(),
            Affine(filters * (height // 2) * (width // 2), hidden, init=init),
            Relu(),
            Affine(hidden, classes, init=init),
        )
        super().__init__(body, input_shape, seed=seed, dtype=dtype)
        settings = {"filters": filters, "window": window, "hidden": hidden, "weight_scale": weight_scale}
        self.describe("ThreeLayerConvNet", classes=classes, **settings)


class ConvNet(Net):
    """[conv 3x3 - batch norm - 2x2 max pool - relu] for each width, then one affine layer to the scores.

    The convolutions have no bias: batch norm would subtract it again.  ReLU stands after the pool, where a quarter of
    the elements are left.  That changes nothing, gradient included: taking a maximum and cutting at 0 commute, and a
    window whose maximum is at most 0 gives 0 and gets no gradient in either order.

    The last gamma starts at 16 / sqrt(features), at most 1, with so many features in front of the affine layer.  A step
    moves the scores by the rate times the squared norm of the features: with gamma 1 there, that of thousands of them makes
    the loss leap at the rates that batch norm allows.

    >>> net = nn.ConvNet(8, 16, classes=5)
    >>> net.forward(np.ones((2, 3, 32, 32), np.float32)).shape
    (2, 5)
    >>> net.flat_params.size
    6541
    """

    def __init__(
        self,
        *widths: int,
        input_shape: tuple[int, ...] = (3, 32, 32),
        classes: int = 10,
        seed: int = 0,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        if not widths:
            msg = "ConvNet needs the filters of at least one stage, as in ConvNet(32, 64, 128)"
            raise ParamError(msg)
        widths = tuple(checks.integer("widths", filters, least=1) for filters in widths)
        classes = checks.integer("classes", classes, least=1)
        channels, height, width = input_shape = image_shape(input_shape)
        parts = 2 ** len(widths)
        if height % parts or width % parts:
            msg = (
                f"{len(widths)} stages halve the image {len(widths)} times: "
                f"height and width must be multiples of {parts}, got input_shape {input_shape}"
            )
            raise ShapeError(msg)
        stages: list[Layer] = []
        for filters in widths:
            stages += [Conv(channels, filters, pad=1, bias=False), BatchNorm(filters), MaxPool(2), Relu()]
            channels = filters
        features = channels * (height // parts) * (width // parts)
        body = Sequential(*stages, Flatten(), Affine(features, classes, init="xavier"))
        super().__init__(body, input_shape, seed=seed, dtype=dtype)
        self.params[f"bn{len(widths)}.gamma"][...] = min(1.0, 16.0 / math.sqrt(features))
        self.describe("ConvNet", widths=list(widths), classes=classes)
