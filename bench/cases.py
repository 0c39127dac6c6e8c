"""What is measured: shapes from the course, the nets of this project, ResNet, and odd ones.  Data only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gpuconv


@dataclass(frozen=True)
class Case:
    """One operator at one size: x is (N, C, H, W); options are those of the gpuconv function."""

    name: str
    op: str
    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def flop(self, y_shape: tuple[int, ...]) -> int:
        """Return the floating-point operations of forward: multiplications and additions of a convolution, else 0."""
        if self.w is None:
            return 0
        taps = self.w[1] * self.w[2] * self.w[3]
        return 2 * taps * int(np.prod(y_shape))


def _conv(name: str, N: int, C: int, size: int, K: int, window: int, **options: Any) -> Case:
    groups = options.get("groups", 1)
    return Case(f"conv {name}", "conv", (N, C, size, size), (K, C // groups, window, window), options)


CASES = [
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
]


@dataclass(frozen=True)
class Arrays:
    """The inputs of a case, drawn from a seed; channels_last chooses the storage of x and dy."""

    x: np.ndarray
    w: np.ndarray | None
    b: np.ndarray | None
    seed: int = 0

    @classmethod
    def draw(cls, case: Case, *, channels_last: bool, seed: int = 0) -> Arrays:
        rng = np.random.default_rng(seed)
        x = _stored(rng.standard_normal(case.x, dtype=np.float32), channels_last=channels_last)
        if case.w is None:
            C = case.x[1]
            return cls(x, rng.standard_normal(C, dtype=np.float32), rng.standard_normal(C, dtype=np.float32))
        w = rng.standard_normal(case.w, dtype=np.float32)
        return cls(x, w, rng.standard_normal(case.w[0], dtype=np.float32))

    def upstream(self, shape: tuple[int, ...], *, channels_last: bool) -> np.ndarray:
        """Return dy of the given shape."""
        rng = np.random.default_rng(self.seed + 1)
        return _stored(rng.standard_normal(shape, dtype=np.float32), channels_last=channels_last)


def gpuconv_calls(case: Case, arrays: Arrays, *, channels_last: bool) -> dict[str, Callable[[], Any]]:
    """Return forward and backward of a case as calls without arguments."""
    forward = getattr(gpuconv, f"{case.op}_forward")
    backward = getattr(gpuconv, f"{case.op}_backward")
    if case.op == "conv":
        inputs: tuple[Any, ...] = (arrays.x, arrays.w, arrays.b)
    elif case.op == "spatial_batchnorm":
        C = case.x[1]
        inputs = (arrays.x, arrays.w, arrays.b, np.zeros(C, np.float32), np.ones(C, np.float32))
    else:
        inputs = (arrays.x,)
    y, cache = forward(*inputs, **case.options)
    dy = arrays.upstream(y.shape, channels_last=channels_last)
    return {"forward": lambda: forward(*inputs, **case.options), "backward": lambda: backward(dy, cache)}


def _stored(array: np.ndarray, *, channels_last: bool) -> np.ndarray:
    if not channels_last:
        return array
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
