"""What is measured, as data: the course's shapes, CIFAR nets, ResNet-50, odd shapes, batches from 1 to 1024."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from gpuconv.errors import ConfigError
from gpuconv.shapes import conv_transpose_sizes, out_size

LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True)
class Case:
    """One operator at one size; options are those of the gpuconv function.

    x is (N, C, H, W), (N, C, L), (N, C, D, H, W) or (N, D); w (K, C / groups, R, S) of a convolution of images,
    (C, K / groups, R, S) of a transposed one, (D, M) of an affine layer.

    op "train_step" is a whole step of the preset that options name: forward, loss, backward, optimiser.
    complex: every array holds complex numbers, of two floats each.
    """

    name: str
    op: str
    x: tuple[int, ...]
    w: tuple[int, ...] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    complex: bool = False

    @property
    def directions(self) -> tuple[str, ...]:
        if self.op == "train_step":
            return ("step",)
        return ("loss",) if self.op in LOSSES else ("forward", "backward")

    @property
    def layouts(self) -> tuple[str, ...]:
        """The memory formats that x can have: rows have one."""
        return LAYOUTS if len(self.x) == 4 else LAYOUTS[:1]

    @property
    def y(self) -> tuple[int, ...]:
        """The shape of forward's output."""
        return OPERATORS[self.op].output(self) if self.op in OPERATORS else self.x

    def flop(self, direction: str) -> int:
        """Return the multiplications and additions of products as their definition counts them, else 0.

        Backward counts both gradients, a product of complex numbers four real ones.  A method that multiplies less
        (Winograd's, an FFT) still gets this count.
        """
        if self.w is None:
            return 0
        terms = self.w[0] if self.op == "affine" else prod(self.w[1:])
        places = self.x if self.op == "conv_transpose" else self.y
        return 2 * terms * prod(places) * (2 if direction == "backward" else 1) * (4 if self.complex else 1)

    def bytes(self, direction: str, itemsize: int = 4) -> int:
        """Return the bytes that must be read and written at least once; 0 for a training step."""
        if self.op == "train_step":
            return 0
        if self.op in LOSSES:
            return (LOSSES[self.op].arrays + 1) * prod(self.x) * itemsize
        operator = OPERATORS[self.op]
        x, y, w = prod(self.x), prod(self.y), prod(self.w) if self.w else 0
        moved = x + y + w
        if direction == "backward":
            moved += w
            if operator.rereads_x:
                moved += x
        return moved * itemsize * (2 if self.complex else 1) + (y if operator.marks else 0)


@dataclass(frozen=True)
class Operator:
    """What is the same for all cases of an operator."""

    gradients: tuple[str, ...] = ("dx",)  # backward's results, in order
    rereads_x: bool = False  # backward reads the forward's input again
    marks: bool = False  # forward leaves backward a byte for each output
    output: Callable[[Case], tuple[int, ...]] = lambda case: case.x

    @property
    def scales(self) -> bool:
        """True if it takes gamma and beta."""
        return "dgamma" in self.gradients


@dataclass(frozen=True)
class Loss:
    """What is the same for all cases of a loss, which gives its value and its gradient at once.

    arrays: how many of the size of x it reads
    """

    arrays: int = 1


def pair(value: Any) -> tuple[int, int]:
    """Return an option as (vertical, horizontal)."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)  # type: ignore[return-value]


Sides = tuple[tuple[int, int], ...]  # before and after, along each axis


def of_axes(value: Any, axes: int) -> tuple[int, ...]:
    """Return an option as a tuple of one for each axis after the channels."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes


def sides(pad: Any, axes: int) -> Sides:
    """Return padding as (before, after) for each axis."""
    both = ([*each] if isinstance(each, (tuple, list)) else [each, each] for each in of_axes(pad, axes))
    return tuple((before, after) for before, after in both)


def _windows(case: Case) -> tuple[int, ...]:
    """Return the shape of what a window gives at each of its positions."""
    N, C, *size = case.x
    dilation = of_axes(case.options.get("dilation", 1), len(size))
    if case.w is not None:
        C, window, stride = case.w[0], case.w[2:], of_axes(case.options.get("stride", 1), len(size))
    else:
        window = of_axes(case.options.get("window", 2), len(size))
        stride = of_axes(case.options.get("stride", window), len(size))
    pad, ceil = sides(case.options.get("pad", 0), len(size)), case.options.get("ceil", False)
    return N, C, *(out_size(*sizes, ceil=ceil) for sizes in zip(size, window, stride, pad, dilation, strict=True))


def _adaptive(case: Case) -> tuple[int, ...]:
    """Return the shape of what pooling to a size makes."""
    return case.x[:2] + of_axes(case.options["size"], len(case.x) - 2)


def _transposed(case: Case) -> tuple[int, ...]:
    """Return the shape of what a transposed convolution makes."""
    sizes = conv_transpose_sizes(np.broadcast_to(0, case.x), np.broadcast_to(0, case.w or ()), None, **case.options)
    return sizes.image


def _enlarged(case: Case) -> tuple[int, ...]:
    """Return the shape of what upsampling makes."""
    N, C, *size = case.x
    factors = of_axes(case.options.get("factor", 2), len(size))
    return N, C, *(n * factor for n, factor in zip(size, factors, strict=True))


_WEIGHTS, _SCALES = ("dx", "dw", "db"), ("dx", "dgamma", "dbeta")

OPERATORS = {
    "adaptive_average_pool": Operator(output=_adaptive),
    "affine": Operator(_WEIGHTS, rereads_x=True, output=lambda case: (case.x[0], (case.w or ())[1])),
    "average_pool": Operator(output=_windows),
    "batchnorm": Operator(_SCALES, rereads_x=True),
    "conv": Operator(_WEIGHTS, rereads_x=True, output=_windows),
    "conv_transpose": Operator(_WEIGHTS, rereads_x=True, output=_transposed),
    "dropout": Operator(marks=True),
    "gelu": Operator(rereads_x=True),
    "global_average_pool": Operator(output=lambda case: case.x[:2]),
    "groupnorm": Operator(_SCALES, rereads_x=True),
    "layernorm": Operator(_SCALES, rereads_x=True),
    "leaky_relu": Operator(rereads_x=True),
    "max_pool": Operator(marks=True, output=_windows),
    "relu": Operator(rereads_x=True),
    "silu": Operator(rereads_x=True),
    "spatial_batchnorm": Operator(_SCALES, rereads_x=True),
    "upsample": Operator(output=_enlarged),
}


LOSSES = {"sigmoid_cross_entropy": Loss(arrays=2), "softmax_cross_entropy": Loss()}


def _conv(name: str, N: int, C: int, size: Any, K: int, window: Any, **options: Any) -> Case:
    groups = options.get("groups", 1)
    return Case(f"conv {name}", "conv", (N, C, *pair(size)), (K, C // groups, *pair(window)), options)


def _conv_transpose(name: str, N: int, C: int, size: Any, K: int, window: Any, **options: Any) -> Case:
    shapes = (N, C, *pair(size)), (C, K // options.get("groups", 1), *pair(window))
    return Case(f"conv_transpose {name}", "conv_transpose", *shapes, options)


def _complex(case: Case) -> Case:
    return replace(case, complex=True)


def _train(preset: str, N: int) -> Case:
    return Case(f"train {preset}, batch {N}", "train_step", (N, 3, 32, 32), options={"preset": preset})


_README = [
    _conv("course 3x3 s2, 3->25, 31x31", 100, 3, 31, 25, 3, stride=2, pad=1),
    _conv("three-layer 7x7, 3->32, 32x32", 128, 3, 32, 32, 7, pad=3),
    _conv("three-layer 3x3, 3->64, 32x32", 128, 3, 32, 64, 3, pad=1),
    _conv("convnet 3x3, 3->32, 32x32", 128, 3, 32, 32, 3, pad=1),
    _conv("convnet 3x3, 32->64, 16x16", 128, 32, 16, 64, 3, pad=1),
    _conv("convnet 3x3, 64->128, 8x8", 128, 64, 8, 128, 3, pad=1),
    _conv("resnet 3x3, 64->64, 32x32", 64, 64, 32, 64, 3, pad=1),
    _conv("resnet 3x3, 128->128, 16x16", 64, 128, 16, 128, 3, pad=1),
    _conv("resnet 3x3, 256->256, 8x8", 64, 256, 8, 256, 3, pad=1),
    _conv("resnet 3x3 s2, 64->128, 32x32", 64, 64, 32, 128, 3, stride=2, pad=1),
    _conv("resnet 1x1, 256->64, 16x16", 64, 256, 16, 64, 1),
    _conv("resnet 1x1 s2, 64->128, 32x32", 64, 64, 32, 128, 1, stride=2),
    _conv("resnet-50 7x7 s2, 3->64, 224x224", 8, 3, 224, 64, 7, stride=2, pad=3),
    _conv("5x5, 32->64, 16x16", 128, 32, 16, 64, 5, pad=2),
    _conv("depthwise 3x3, 64, 32x32", 64, 64, 32, 64, 3, pad=1, groups=64),
    _conv("batch of one 3x3, 64->64, 56x56", 1, 64, 56, 64, 3, pad=1),
    Case("max_pool 2x2, 32, 32x32", "max_pool", (128, 32, 32, 32), options={"window": 2}),
    Case("max_pool 3x3 s2, 64, 112x112", "max_pool", (8, 64, 112, 112), options={"window": 3, "stride": 2, "pad": 1}),
    Case("average_pool 2x2, 64, 32x32", "average_pool", (64, 64, 32, 32), options={"window": 2}),
    Case("spatial_batchnorm 32, 32x32", "spatial_batchnorm", (128, 32, 32, 32)),
    Case("spatial_batchnorm 128, 8x8", "spatial_batchnorm", (128, 128, 8, 8)),
    Case("relu 32, 32x32", "relu", (128, 32, 32, 32)),
    _train("three-layer", 128),
    _train("convnet", 128),
]

_COURSE = [
    _README[0],
    _conv("course 3x3, 3->8, 32x32, batch 2", 2, 3, 32, 8, 3, pad=1),
    _conv("course 7x7, 3->32, 32x32, batch 50", 50, 3, 32, 32, 7, pad=3),
    Case("course max_pool 2x2, 3, 32x32", "max_pool", (100, 3, 32, 32), options={"window": 2}),
    Case("course spatial_batchnorm 32, 16x16", "spatial_batchnorm", (50, 32, 16, 16)),
    Case("course relu 32, 32x32", "relu", (50, 32, 32, 32)),
    Case("course affine 32x16x16->100", "affine", (50, 32, 16, 16), (8192, 100)),
    Case("course batchnorm 500", "batchnorm", (100, 500)),
    Case("course layernorm 500", "layernorm", (100, 500)),
    Case("course groupnorm 8 of 32, 16x16", "groupnorm", (50, 32, 16, 16), options={"groups": 8}),
    Case("course dropout 500", "dropout", (100, 500), options={"rate": 0.5}),
    _train("three-layer", 50),
]

# Convolutions of ResNet-18 as it is used on CIFAR-10, then those of a net that reaches 94 % in seconds: Keller Jordan,
# 94% on CIFAR-10 in 3.29 Seconds on a Single GPU (2024), widths 64, 256, 256, whose images are 31, 15, 7 and 3 wide.
_NETS = [
    *_README[1:6],
    _conv("resnet-18 3x3, 3->64, 32x32", 128, 3, 32, 64, 3, pad=1),
    _conv("resnet-18 3x3, 64->64, 32x32", 128, 64, 32, 64, 3, pad=1),
    _conv("resnet-18 3x3 s2, 64->128, 32x32", 128, 64, 32, 128, 3, stride=2, pad=1),
    _conv("resnet-18 3x3, 128->128, 16x16", 128, 128, 16, 128, 3, pad=1),
    _conv("resnet-18 1x1 s2, 128->256, 16x16", 128, 128, 16, 256, 1, stride=2),
    _conv("resnet-18 3x3, 256->256, 8x8", 128, 256, 8, 256, 3, pad=1),
    _conv("resnet-18 3x3, 512->512, 4x4", 128, 512, 4, 512, 3, pad=1),
    Case("resnet-18 spatial_batchnorm 64, 32x32", "spatial_batchnorm", (128, 64, 32, 32)),
    Case("resnet-18 global_average_pool 512, 4x4", "global_average_pool", (128, 512, 4, 4)),
    _conv("speedrun 2x2, 3->24, 32x32", 1024, 3, 32, 24, 2),
    _conv("speedrun 3x3, 24->64, 31x31", 1024, 24, 31, 64, 3, pad=1),
    _conv("speedrun 3x3, 64->64, 15x15", 1024, 64, 15, 64, 3, pad=1),
    _conv("speedrun 3x3, 64->256, 15x15", 1024, 64, 15, 256, 3, pad=1),
    _conv("speedrun 3x3, 256->256, 7x7", 1024, 256, 7, 256, 3, pad=1),
    _conv("speedrun 3x3, 256->256, 3x3", 1024, 256, 3, 256, 3, pad=1),
    Case("speedrun max_pool 2x2, 64, 31x31", "max_pool", (1024, 64, 31, 31), options={"window": 2}),
    Case("speedrun max_pool 3x3, 256, 3x3", "max_pool", (1024, 256, 3, 3), options={"window": 3}),
    Case("speedrun spatial_batchnorm 64, 15x15", "spatial_batchnorm", (1024, 64, 15, 15)),
    Case("speedrun gelu 64, 15x15", "gelu", (1024, 64, 15, 15)),
    Case("three-layer affine 8192->100", "affine", (128, 8192), (8192, 100)),
    Case("batchnorm of 4096 rows, 512", "batchnorm", (4096, 512)),
    Case("layernorm of 4096 rows, 512", "layernorm", (4096, 512)),
    Case("groupnorm 32 of 256, 16x16", "groupnorm", (64, 256, 16, 16), options={"groups": 32}),
    Case("silu 64, 32x32", "silu", (128, 64, 32, 32)),
    Case("leaky_relu 64, 32x32", "leaky_relu", (128, 64, 32, 32)),
    Case("dropout 64, 32x32", "dropout", (128, 64, 32, 32), options={"rate": 0.5}),
    Case("softmax_cross_entropy of 4096 rows, 10", "softmax_cross_entropy", (4096, 10)),
    Case("softmax_cross_entropy of 256 rows, 1000", "softmax_cross_entropy", (256, 1000)),
    Case("sigmoid_cross_entropy of 4096 rows, 80", "sigmoid_cross_entropy", (4096, 80)),
    *_README[-2:],
]

_RESNET50 = [
    _README[12],
    _README[17],
    _conv("resnet-50 1x1, 64->256, 56x56", 8, 64, 56, 256, 1),
    _conv("resnet-50 3x3, 64->64, 56x56", 8, 64, 56, 64, 3, pad=1),
    _conv("resnet-50 1x1 s2, 256->512, 56x56", 8, 256, 56, 512, 1, stride=2),
    _conv("resnet-50 3x3 s2, 128->128, 56x56", 8, 128, 56, 128, 3, stride=2, pad=1),
    _conv("resnet-50 3x3, 128->128, 28x28", 8, 128, 28, 128, 3, pad=1),
    _conv("resnet-50 1x1, 1024->256, 14x14", 8, 1024, 14, 256, 1),
    _conv("resnet-50 3x3, 256->256, 14x14", 8, 256, 14, 256, 3, pad=1),
    _conv("resnet-50 3x3, 512->512, 7x7", 8, 512, 7, 512, 3, pad=1),
    _conv("resnet-50 1x1, 512->2048, 7x7", 8, 512, 7, 2048, 1),
    Case("resnet-50 spatial_batchnorm 64, 112x112", "spatial_batchnorm", (8, 64, 112, 112)),
    Case("resnet-50 global_average_pool 2048, 7x7", "global_average_pool", (8, 2048, 7, 7)),
]

_POOL_DILATED = {"window": 3, "stride": 1, "pad": 1, "dilation": 2}
_POOL_CEIL = {"window": 3, "stride": 2, "ceil": True}
_POOL_BEHIND = {"window": 3, "stride": 2, "pad": ((0, 1), (0, 1))}
_POOL_SPP = {"window": 13, "stride": 1, "pad": 6}
_POOL_SIGNAL = {"window": (200,), "stride": 1}
_ODD = [
    _conv("odd 3x5, 5->7, 17x23", 3, 5, (17, 23), 7, (3, 5), stride=(2, 1), pad=(1, 2)),
    _conv("odd 1x7, 33->31, 19x29", 16, 33, (19, 29), 31, (1, 7), pad=(0, 3)),
    _conv("odd dilation 2, 16->16, 33x33", 16, 16, 33, 16, 3, pad=2, dilation=2),
    _conv("odd 4 groups, 36->44, 21x21", 16, 36, 21, 44, 3, pad=1, groups=4),
    _conv("odd filter as large as the image, 64->10, 8x8", 64, 64, 8, 10, 8),
    _conv("odd one channel 5x5, 1->20, 28x28", 64, 1, 28, 20, 5),
    _conv("odd stride 3 beyond the window, 8->8, 64x64", 16, 8, 64, 8, 2, stride=3),
    _conv("odd 11x11 s4, 3->64, 227x227", 4, 3, 227, 64, 11, stride=4),
    Case("odd max_pool 3x2 s2x3, 7, 37x41", "max_pool", (16, 7, 37, 41), options={"window": (3, 2), "stride": (2, 3)}),
    Case("odd average_pool 5x5 s1, 8, 35x35", "average_pool", (16, 8, 35, 35), options={"window": 5, "stride": 1}),
    # Windows with gaps, with a last one that sticks out, with padding on one side; 13x13 is the largest of YOLO's pyramid.
    Case("odd max_pool 3x3 dilation 2, 16, 33x33", "max_pool", (16, 16, 33, 33), options=_POOL_DILATED),
    Case("odd max_pool 3x3 s2 ceil, 16, 56x56", "max_pool", (16, 16, 56, 56), options=_POOL_CEIL),
    Case("odd max_pool 3x3 s2 padded behind, 16, 56x56", "max_pool", (16, 16, 56, 56), options=_POOL_BEHIND),
    Case("odd max_pool 13x13 s1, 64, 19x19", "max_pool", (4, 64, 19, 19), options=_POOL_SPP),
    Case("odd max_pool 20x20, 16, 60x60", "max_pool", (16, 16, 60, 60), options={"window": 20}),
    Case("odd average_pool 3x3 dilation 2, 16, 33x33", "average_pool", (16, 16, 33, 33), options=_POOL_DILATED),
    Case("odd average_pool 3x3 s2 ceil, 16, 56x56", "average_pool", (16, 16, 56, 56), options=_POOL_CEIL),
    Case("odd average_pool 13x13 s1, 64, 19x19", "average_pool", (4, 64, 19, 19), options=_POOL_SPP),
    Case("odd average_pool of signals 200 s1, 16, 2000", "average_pool", (8, 16, 2000), options=_POOL_SIGNAL),
    # The classifiers of torchvision's AlexNet and VGG get 6x6 and 7x7 of pictures of any size.
    Case(
        "odd adaptive_average_pool to 7x7, 512, 10x15", "adaptive_average_pool", (16, 512, 10, 15), options={"size": 7}
    ),
    Case("odd spatial_batchnorm 3, 97x89", "spatial_batchnorm", (5, 3, 97, 89)),
    # Decoders double with 4x4 filters (DCGAN, Radford et al. 2015) or with 2x2 (U-Net, Ronneberger et al. 2015).
    _conv_transpose("4x4 s2, 128->64, 16x16", 64, 128, 16, 64, 4, stride=2, pad=1),
    _conv_transpose("2x2 s2, 128->64, 28x28", 16, 128, 28, 64, 2, stride=2),
    # Others enlarge and then convolve: nets that segment (DeepLab, Chen et al. 2017) bilinearly.
    Case("upsample 2x2, 64, 28x28", "upsample", (16, 64, 28, 28), options={"factor": 2, "mode": "nearest"}),
    Case("upsample linear 2x2, 64, 28x28", "upsample", (16, 64, 28, 28), options={"factor": 2, "mode": "linear"}),
    Case("upsample linear 8x8, 21, 28x28", "upsample", (8, 21, 28, 28), options={"factor": 8, "mode": "linear"}),
]

_BATCH = [_conv(f"batch {N} 3x3, 32->32, 16x16", N, 32, 16, 32, 3, pad=1) for N in (1, 4, 16, 64, 256, 1024)]

# Signals and volumes: layers of nets for raw sound, ECGs and scans.
_VOLUMES = [
    _conv("signal 3, 64->64, 1024", 32, 64, (1024,), 64, (3,), pad=1),
    _conv("signal 9 s4, 1->64, 16000", 16, 1, (16000,), 64, (9,), stride=4, pad=4),
    _conv("signal 3 dilation 8, 64->64, 1024", 32, 64, (1024,), 64, (3,), pad=8, dilation=8),
    _conv("signal depthwise 7, 128, 512", 32, 128, (512,), 128, (7,), pad=3, groups=128),
    _conv("volume 3x3x3, 1->16, 32x32x32", 4, 1, (32, 32, 32), 16, (3, 3, 3), pad=1),
    _conv("volume 3x3x3, 16->32, 16x16x16", 4, 16, (16, 16, 16), 32, (3, 3, 3), pad=1),
    _conv("volume 3x3x3 s2, 32->64, 16x16x16", 4, 32, (16, 16, 16), 64, (3, 3, 3), stride=2, pad=1),
    _conv("volume 1x1x1, 64->32, 16x16x16", 4, 64, (16, 16, 16), 32, (1, 1, 1)),
    _complex(_conv("complex signal 9, 1->16, 4096", 16, 1, (4096,), 16, (9,), pad=4)),
    _complex(_conv("complex 3x3, 8->16, 64x64", 4, 8, 64, 16, 3, pad=1)),
    _complex(_conv("complex volume 3x3x3, 4->8, 16x16x16", 2, 4, (16, 16, 16), 8, (3, 3, 3), pad=1)),
    Case("signal max_pool 2, 64, 1024", "max_pool", (32, 64, 1024), options={"window": (2,)}),
    Case("signal average_pool 4, 64, 1024", "average_pool", (32, 64, 1024), options={"window": (4,)}),
    Case("signal spatial_batchnorm 64, 1024", "spatial_batchnorm", (32, 64, 1024)),
    Case("volume max_pool 2x2x2, 16, 32x32x32", "max_pool", (4, 16, 32, 32, 32), options={"window": 2}),
    Case("volume average_pool 2x2x2, 16, 32x32x32", "average_pool", (4, 16, 32, 32, 32), options={"window": 2}),
    Case("volume spatial_batchnorm 16, 32x32x32", "spatial_batchnorm", (4, 16, 32, 32, 32)),
]

# Whole steps, all of one batch: those of the larger nets take seconds even so, and longer with their preset's.
_STEPS = [_train(preset, 128) for preset in ("three-layer", "convnet", "resnet9", "speedrun")]

# Every operator at sizes of a moment: for CI, and for a first look.
_QUICK = [
    _conv("quick 3x3, 3->8, 16x16", 4, 3, 16, 8, 3, pad=1),
    _conv("quick 3x3 s2, 16->16, 16x16", 4, 16, 16, 16, 3, stride=2, pad=1),
    _conv("quick 1x1, 16->32, 8x8", 4, 16, 8, 32, 1),
    _conv("quick depthwise 3x3, 8, 16x16", 4, 8, 16, 8, 3, pad=1, groups=8),
    _complex(_conv("quick complex 3x3, 3->4, 8x8", 2, 3, 8, 4, 3, pad=1)),
    _ODD[0],
    Case("quick max_pool 2x2, 8, 16x16", "max_pool", (4, 8, 16, 16), options={"window": 2}),
    _conv_transpose("quick 4x4 s2, 8->8, 8x8", 4, 8, 8, 8, 4, stride=2, pad=1),
    Case("quick average_pool 2x2, 8, 16x16", "average_pool", (4, 8, 16, 16), options={"window": 2}),
    Case("quick adaptive_average_pool to 5x5, 8, 16x16", "adaptive_average_pool", (4, 8, 16, 16), options={"size": 5}),
    Case("quick upsample 2x2, 8, 8x8", "upsample", (4, 8, 8, 8), options={"factor": 2, "mode": "nearest"}),
    Case("quick upsample linear 2x2, 8, 8x8", "upsample", (4, 8, 8, 8), options={"factor": 2, "mode": "linear"}),
    Case("quick global_average_pool 8, 16x16", "global_average_pool", (4, 8, 16, 16)),
    Case("quick spatial_batchnorm 8, 16x16", "spatial_batchnorm", (4, 8, 16, 16)),
    Case("quick relu 8, 16x16", "relu", (4, 8, 16, 16)),
    Case("quick silu 8, 16x16", "silu", (4, 8, 16, 16)),
    Case("quick leaky_relu 8, 16x16", "leaky_relu", (4, 8, 16, 16)),
    Case("quick gelu 8, 16x16", "gelu", (4, 8, 16, 16)),
    Case("quick affine 8x8x8->10", "affine", (4, 8, 8, 8), (512, 10)),
    Case("quick batchnorm 32", "batchnorm", (16, 32)),
    Case("quick layernorm 64", "layernorm", (16, 64)),
    Case("quick groupnorm 2 of 8, 16x16", "groupnorm", (4, 8, 16, 16), options={"groups": 2}),
    Case("quick dropout 8, 16x16", "dropout", (4, 8, 16, 16), options={"rate": 0.25}),
    Case("quick softmax_cross_entropy of 32 rows, 10", "softmax_cross_entropy", (32, 10)),
    Case("quick sigmoid_cross_entropy of 32 rows, 8", "sigmoid_cross_entropy", (32, 8)),
    _train("three-layer", 4),
    _train("convnet", 4),
]

_MEASURED = {
    "readme": _README,
    "course": _COURSE,
    "nets": _NETS,
    "resnet50": _RESNET50,
    "odd": _ODD,
    "batch": _BATCH,
    "volumes": _VOLUMES,
    "steps": _STEPS,
}
CASES = list({case.name: case for cases in _MEASURED.values() for case in cases}.values())
SETS = {**_MEASURED, "all": CASES, "quick": _QUICK}  # quick is no measurement, so not among all
OPS = sorted([*OPERATORS, *LOSSES, "train_step"])


def choose(set_name: str, ops: tuple[str, ...] = (), only: str = "") -> list[Case]:
    """Return the cases of a set: those of some operators (none: of all), whose name contains a text."""
    if set_name not in SETS:
        msg = f"there is no set {set_name!r}: choose one of {', '.join(SETS)}"
        raise ConfigError(msg)
    for op in ops:
        if op not in OPS:
            msg = f"there is no operator {op!r} among the cases: choose from {', '.join(OPS)}"
            raise ConfigError(msg)
    cases = [case for case in SETS[set_name] if (not ops or case.op in ops) and only in case.name]
    if not cases:
        msg = f"the set {set_name} has no case of " + (", ".join(ops) or "any operator")
        raise ConfigError(msg + (f" with {only!r} in its name" if only else ""))
    return cases
