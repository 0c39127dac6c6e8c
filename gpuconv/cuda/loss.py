"""Launches of kernels/loss.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks
from ..errors import ParamError
from ..plural import counted
from .copy import contiguous
from .device import Device, device_of
from .elementwise import outputs
from .kernel import Kernel, cover
from .layout import same_storage
from .reduce import sum_type

_SOFTMAX = Kernel("loss.cu", "softmax_cross_entropy", strided=("labels",))
_SVM = Kernel("loss.cu", "svm_loss", strided=("labels",))
_WEIGHTED = Kernel("loss.cu", "softmax_cross_entropy_weighted", strided=("labels",))
_SIGMOID = Kernel("loss.cu", "sigmoid_cross_entropy")
_TOTAL = Kernel("loss.cu", "loss_total", strided=("labels",))
_MEAN = Kernel("loss.cu", "loss_mean")

_RUN = 1024  # SIGMOID_RUN of kernels/loss.cu
_FLOAT64 = np.dtype(np.float64)


def softmax_cross_entropy(
    scores: Any,
    labels: Any,
    *,
    label_smoothing: float,
    class_weights: Any = None,
    ignore: int | None = None,
    reduction: str = "mean",
) -> tuple[Any, Any]:
    if class_weights is None and ignore is None and reduction == "mean":
        return _loss(_SOFTMAX, scores, labels, label_smoothing)
    device = device_of(scores)
    N, classes = scores.shape
    if checks.debug():
        on_host = device.asnumpy(labels)
        _check_range(on_host if ignore is None else on_host[on_host != ignore], classes)
    scores, weights = contiguous(scores), None if class_weights is None else contiguous(class_weights)
    losses, dscores = device.empty((N,), sum_type(scores.dtype)), device.empty((N, classes), scores.dtype)
    step, kinds = labels.strides[0] // labels.dtype.itemsize, (scores.dtype, labels.dtype)
    ignored = ignore is not None, ignore or 0
    total = device.empty((), _FLOAT64) if reduction == "mean" else None
    if total is not None:
        _TOTAL(device, kinds, 1, labels, weights, total, N, classes, step, *ignored)
    arrays, sizes = (scores, labels, weights, losses, dscores), (N, classes, step, label_smoothing)
    _WEIGHTED(device, kinds, cover(device, N, _rows(_WEIGHTED)), *arrays, *sizes, *ignored, total)
    return losses if reduction == "none" else _mean(device, losses, total, 1.0), dscores


def sigmoid_cross_entropy(scores: Any, targets: Any, *, reduction: str) -> tuple[Any, Any]:
    device, count, each = device_of(scores), scores.size, reduction == "none"
    kind = sum_type(scores.dtype)
    ((dscores, gradients),) = outputs(device, scores, scores.dtype)
    rows, wanted = same_storage(scores, targets, like=scores)
    if each:
        ((losses, sums),) = outputs(device, scores, kind)
    else:
        losses = sums = device.empty((-(-count // _RUN),), kind)  # of runs
    total = float(max(1, count)) if reduction == "mean" else 1.0
    blocks = cover(device, -(-count // _RUN), _rows(_SIGMOID))
    _SIGMOID(device, (scores.dtype, each), blocks, rows, wanted, sums, gradients, count, total)
    return losses if each else _mean(device, sums, None, total), dscores


def _mean(device: Device, losses: Any, total: Any, divisor: float) -> Any:
    """Return the sum of losses, divided by a total on the device, or by divisor where it is None or 0."""
    loss = device.empty((), losses.dtype)
    _MEAN(device, (losses.dtype,), 1, losses, loss, losses.size, total, divisor)
    return loss


def svm_loss(scores: Any, labels: Any, *, margin: float) -> tuple[Any, Any]:
    return _loss(_SVM, scores, labels, margin)


def _loss(kernel: Kernel, scores: Any, labels: Any, setting: float) -> tuple[Any, Any]:
    device = device_of(scores)
    N, classes = scores.shape
    if checks.debug():
        _check_range(device.asnumpy(labels), classes)
    scores = contiguous(scores)
    row_losses = device.empty((N,), sum_type(scores.dtype))
    dscores = device.empty((N, classes), scores.dtype)
    step = labels.strides[0] // labels.dtype.itemsize
    arrays = scores, labels, row_losses, dscores
    kernel(device, (scores.dtype, labels.dtype), cover(device, N, _rows(kernel)), *arrays, N, classes, step, setting)
    return _mean(device, row_losses, None, float(max(1, N))), dscores


def _rows(kernel: Kernel) -> int:
    """Return the number of rows that a block works on: one each warp."""
    return kernel.block[0] // 32


def _check_range(labels: np.ndarray, classes: int) -> None:
    """Refuse what a kernel can only answer with NaN: reading the labels waits for the GPU."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        msg = f"labels must lie in [0, {classes}) for scores with {counted(classes, 'class', 'classes')}, got {int(wrong[0])}"
        raise ParamError(msg)
