"""Pairs of 3x3 convolutions with batch norm, the image halved after each pair."""

from __future__ import annotations

import numpy.typing as npt

from ... import checks
from ...errors import ParamError
from ..containers import Sequential
from ..layer import Layer
from ..layers import Affine, BatchNorm, Conv, GlobalAveragePool, MaxPool
from ..net import Net
from ..single_elements import Relu
from .common import image_shape, large_enough


class VGG(Net):
    """[conv 3x3 - batch norm - relu] for each width, a 2x2 max pool after every second one; the mean over the image.

    widths: filters of each convolution, two for each stage; by default six, 64 64 128 128 256 256.  The second relu of
    a stage stands after its pool, as in ConvNet, which changes nothing.  An affine layer takes the mean of each channel
    to the scores; one on all pixels, as in the paper, starts unsteady at the rates that batch norm allows.  Works for
    every image of at least 2^stages x 2^stages.
    Source: Simonyan and Zisserman, Very deep convolutional networks, arXiv 1409.1556 (its idea, at the size of CIFAR).

    >>> net = nn.VGG(4, 4, 8, 8)
    >>> net.forward(np.ones((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """

    def __init__(
        self,
        *widths: int,
        input_shape: tuple[int, ...] = (3, 32, 32),
        classes: int = 10,
        seed: int = 0,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        widths = tuple(checks.integer("widths", filters, least=1) for filters in widths) or (64, 64, 128, 128, 256, 256)
        classes = checks.integer("classes", classes, least=1)
        if len(widths) % 2:
            msg = f"VGG takes two widths for each stage, got {len(widths)}: {widths}"
            raise ParamError(msg)
        input_shape = image_shape(input_shape)
        large_enough(f"VGG of {len(widths) // 2} stages", input_shape, 2 ** (len(widths) // 2))
        channels = input_shape[0]
        layers: list[Layer] = []
        for index, filters in enumerate(widths):
            layers += [Conv(channels, filters, pad=1, bias=False), BatchNorm(filters)]
            layers += [MaxPool(2), Relu()] if index % 2 else [Relu()]
            channels = filters
        body = Sequential(*layers, GlobalAveragePool(), Affine(channels, classes, init="xavier"))
        super().__init__(body, input_shape, seed=seed, dtype=dtype)
        self.describe("VGG", widths=list(widths), classes=classes)
