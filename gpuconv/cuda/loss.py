"""Launches of kernels/loss.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks
from ..errors import ParamError
from ..plural import counted
from .copy import contiguous
from .device import device_of
from .kernel import Kernel, cover
from .reduce import sum_type

_SOFTMAX = Kernel("loss.cu", "softmax_cross_entropy", strided=("labels",))
_SVM = Kernel("loss.cu", "svm_loss", strided=("labels",))
_MEAN = Kernel("loss.cu", "loss_mean")


def softmax_cross_entropy(scores: Any, labels: Any, *, label_smoothing: float) -> tuple[Any, Any]:
    return _loss(_SOFTMAX, scores, labels, label_smoothing)


def svm_loss(scores: Any, labels: Any, *, margin: float) -> tuple[Any, Any]:
    return _loss(_SVM, scores, labels, margin)


def _loss(kernel: Kernel, scores: Any, labels: Any, setting: float) -> tuple[Any, Any]:
    device = device_of(scores)
    N, classes = scores.shape
    if checks.debug():
        _check_range(device.asnumpy(labels), classes)
    scores = contiguous(scores)
    row_losses, loss = (device.empty(shape, sum_type(scores.dtype)) for shape in ((N,), ()))
    dscores = device.empty((N, classes), scores.dtype)
    step = labels.strides[0] // labels.dtype.itemsize
    arrays = scores, labels, row_losses, dscores
    kernel(device, (scores.dtype, labels.dtype), cover(device, N, _rows(kernel)), *arrays, N, classes, step, setting)
    _MEAN(device, (loss.dtype,), 1, row_losses, loss, N)
    return loss, dscores


def _rows(kernel: Kernel) -> int:
    """Return the number of rows that a block works on: one each warp."""
    return kernel.block[0] // 32


def _check_range(labels: np.ndarray, classes: int) -> None:
    """Refuse what a kernel can only answer with NaN: reading the labels waits for the GPU."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        msg = f"labels must lie in [0, {classes}) for scores with {counted(classes, 'class', 'classes')}, got {int(wrong[0])}"
        raise ParamError(msg)
