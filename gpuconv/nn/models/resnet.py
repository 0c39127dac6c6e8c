"""Residual nets: a short one that trains fast, and ResNet-18 at the size of CIFAR."""

from __future__ import annotations

import numpy.typing as npt

from ... import checks
from ..containers import Residual, Sequential
from ..layer import Layer
from ..layers import Affine, BatchNorm, Conv, Flatten, GlobalAveragePool, MaxPool
from ..net import Net
from ..single_elements import Relu, Scale
from .common import checked_widths, image_shape, large_enough


class ResNet9(Net):
    """Four convolutions, the second and the last followed by a residual pair; a maximum over the image; scaled scores.

    widths: filters of the first convolution and of the three stages, by default 64 128 256 512.  Each stage is
    [conv 3x3 - batch norm - 2x2 max pool - relu]; the first and third add relu(bn(conv(relu(bn(conv(x)))))) to its x.
    The scores are an affine layer without bias, times 1/8.  Works for every image of at least 8x8.
    Source: Page, How to train your ResNet (2018), the net of cifar10-fast.

    >>> net = nn.ResNet9(4, 8, 8, 8)
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
        widths = checked_widths("ResNet9", widths, (64, 128, 256, 512))
        classes = checks.integer("classes", classes, least=1)
        input_shape = image_shape(input_shape)
        large_enough("ResNet9", input_shape, 8)
        first, *rest = widths
        stages: dict[str, Layer] = {"stem": Sequential(*_conv_relu(input_shape[0], first))}
        channels = first
        for number, filters in enumerate(rest, 1):
            stage = [Conv(channels, filters, pad=1, bias=False), BatchNorm(filters), MaxPool(2), Relu()]
            if number != 2:
                stage.append(Residual(Sequential(*_conv_relu(filters, filters), *_conv_relu(filters, filters))))
            stages[f"stage{number}"] = Sequential(*stage)
            channels = filters
        _, height, width = Sequential(**stages).output_shape(input_shape)
        body = Sequential(
            **stages,
            pool=MaxPool((height, width)),
            flatten=Flatten(),
            head=Affine(channels, classes, bias=False),
            scale=Scale(0.125),
        )
        super().__init__(body, input_shape, seed=seed, dtype=dtype)
        self.describe("ResNet9", widths=list(widths), classes=classes)


class ResNet18(Net):
    """A 3x3 stem, four stages of two basic blocks, the mean over the image, an affine layer to the scores.

    widths: filters of each stage, by default 64 128 256 512.  A basic block is relu(x + bn(conv(relu(bn(conv(x))))));
    the first of stages 2 to 4 has stride 2.  Where stride or width change, a 1x1 convolution with batch norm takes the
    place of x.  Works for images of every size.
    Source: He et al., Deep residual learning for image recognition, arXiv 1512.03385; the stem is that of its nets for
    CIFAR-10.

    >>> net = nn.ResNet18(4, 8, 8, 8, classes=100)
    >>> net.forward(np.ones((2, 3, 32, 32), np.float32)).shape
    (2, 100)
    """

    def __init__(
        self,
        *widths: int,
        input_shape: tuple[int, ...] = (3, 32, 32),
        classes: int = 10,
        seed: int = 0,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        widths = checked_widths("ResNet18", widths, (64, 128, 256, 512))
        classes = checks.integer("classes", classes, least=1)
        input_shape = image_shape(input_shape)
        channels = widths[0]
        stages: dict[str, Layer] = {"stem": Sequential(*_conv_relu(input_shape[0], channels))}
        for number, filters in enumerate(widths, 1):
            first = _basic_block(channels, filters, stride=1 if number == 1 else 2)
            stages[f"stage{number}"] = Sequential(block1=first, block2=_basic_block(filters, filters, stride=1))
            channels = filters
        body = Sequential(**stages, pool=GlobalAveragePool(), head=Affine(channels, classes, init="xavier"))
        super().__init__(body, input_shape, seed=seed, dtype=dtype)
        self.describe("ResNet18", widths=list(widths), classes=classes)


def _conv_relu(channels: int, filters: int, stride: int = 1) -> tuple[Layer, ...]:
    return Conv(channels, filters, stride=stride, pad=1, bias=False), BatchNorm(filters), Relu()


def _basic_block(channels: int, filters: int, stride: int) -> Layer:
    body = Sequential(
        *_conv_relu(channels, filters, stride), Conv(filters, filters, pad=1, bias=False), BatchNorm(filters)
    )
    shortcut = None
    if stride != 1 or channels != filters:
        shortcut = Sequential(Conv(channels, filters, 1, stride=stride, bias=False), BatchNorm(filters))
    return Sequential(add=Residual(body, shortcut), relu=Relu())
