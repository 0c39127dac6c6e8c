"""Checks that several of these functions share: TypeError and ValueError are CuPy's own, CuDNNError is what cuDNN refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of
from ..checks import given
from .constants import CUDNN_TENSOR_NCHW, CUDNN_TENSOR_NHWC
from .errors import BAD_PARAM, CuDNNError


def floats(**arrays: Any) -> None:
    """Check that arrays lie in one place, and are float16, float32 or float64."""
    given(**arrays)
    backend_of(**arrays)
    for name, array in arrays.items():
        if array.dtype.char not in "efd" or not array.dtype.isnative:
            msg = f"{name} must be float16, float32 or float64, got {array.dtype}"
            raise TypeError(msg)


def one_dtype(**arrays: Any) -> None:
    """Check that arrays share one dtype; None is skipped."""
    if len({array.dtype for array in arrays.values() if array is not None}) > 1:
        raise CuDNNError(BAD_PARAM, "arrays must share one dtype", *lines(**arrays))


def c_contiguous(name: str, array: Any) -> None:
    """Check that an array lies in memory as cuDNN wrote it."""
    if not array.flags.c_contiguous:
        msg = f"{name} must be C-contiguous, got strides {array.strides}: pass an array made by empty"
        raise ValueError(msg)


def tuples(**options: Any) -> None:
    """Check that options are tuples with as many entries as the first."""
    first = next(iter(options))
    for name, option in options.items():
        if not isinstance(option, tuple):
            msg = f"{name} must be a tuple, got {option!r}"
            raise TypeError(msg)
        if len(option) != len(options[first]):
            msg = f"{name} must have as many entries as {first}, {len(options[first])}, got {option}"
            raise ValueError(msg)


def layout(name: str, value: int) -> None:
    """Check that a layout is one of the two."""
    if value not in (CUDNN_TENSOR_NCHW, CUDNN_TENSOR_NHWC):
        msg = f"{name} must be 0 (NCHW) or 1 (NHWC), got {value!r}"
        raise ValueError(msg)


def channels_second(array: Any, layout: int) -> Any:
    """Return a view with the channels second; a layout says something of arrays of four axes only."""
    return array.transpose(0, 3, 1, 2) if layout == CUDNN_TENSOR_NHWC and array.ndim == 4 else array


def lines(**arrays: Any) -> list[str]:
    """Return what arrays are, for the text of an error, a line for each; None is skipped."""
    return [
        f"{name}: shape={tuple(array.shape)}, dtype={np.dtype(array.dtype)}, strides={array.strides}"
        for name, array in arrays.items()
        if array is not None
    ]
