"""The arrays of a case, drawn from a seed, equal for every side and in every process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuconv import bfloat16

from .cases import LOSSES, OPERATORS, Case

REGIMES = {"float32": "float32", "tf32": "float32", "float16": "float16"}  # and the dtype that arrays have in it
_DTYPES = {**REGIMES, bfloat16.NAME: bfloat16.NAME}  # bfloat16 is drawn for tests.ladder, and offered by no peer


@dataclass(frozen=True)
class Inputs:
    """x and dy, images in the memory format of `layout`; w and b, or gamma and beta, or None.

    labels: of a training step and of a loss alone: (N,), or of sigmoid_cross_entropy from 0 to 1 in the shape of x.
    """

    case: Case
    layout: str
    regime: str
    x: np.ndarray
    w: np.ndarray | None
    b: np.ndarray | None
    dy: np.ndarray | None
    labels: np.ndarray | None

    @property
    def dtype(self) -> np.dtype:
        return self.x.dtype

    @property
    def channels_last(self) -> bool:
        return self.layout == "NHWC"


def draw(case: Case, layout: str = "NCHW", regime: str = "float32", seed: int = 0) -> Inputs:
    """Return the inputs of a case: standard normal numbers; the layout changes how they are stored, not what they are."""
    rng, name = np.random.default_rng(seed), _DTYPES[regime]
    dtype = bfloat16.bfloat16() if name == bfloat16.NAME else np.dtype(name)

    def normal(shape: tuple[int, ...], kind: Any = dtype) -> np.ndarray:
        if case.complex:
            parts = rng.standard_normal((*shape, 2), dtype=np.float32)
            return parts.view(np.complex64)[..., 0]
        return rng.standard_normal(shape, dtype=np.float32).astype(kind, copy=False)

    x, w, b, dy, labels = stored(normal(case.x), layout), None, None, None, None
    if case.op == "train_step":
        labels = rng.integers(0, 10, case.x[0])
        return Inputs(case, layout, regime, x, w, b, dy, labels)
    if case.op in LOSSES:
        of_rows = case.op == "softmax_cross_entropy"
        labels = rng.integers(0, case.x[1], case.x[0]) if of_rows else rng.random(case.x, np.float32).astype(dtype)
        return Inputs(case, layout, regime, x, w, b, dy, labels)
    if case.w is not None:
        w, b = normal(case.w), normal(case.y[1:2])
    elif OPERATORS[case.op].scales:
        w, b = normal(case.x[1:2], "float32"), normal(case.x[1:2], "float32")  # float32 in every regime
    dy = stored(normal(case.y), layout)
    return Inputs(case, layout, regime, x, w, b, dy, labels)


def stored(array: np.ndarray, layout: str) -> np.ndarray:
    """Return (N, C, H, W) numbers stored in a layout; arrays of fewer axes as they are."""
    if array.ndim != 4 or layout == "NCHW":
        return np.ascontiguousarray(array)
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
