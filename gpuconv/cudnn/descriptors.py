"""Descriptors: they hold what they were made of, for callers that make them; nothing here computes by one."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np

from ..backend import zeros
from ..typing import AnyArray
from .checks import c_contiguous, floats, layout, tuples
from .constants import (
    CUDNN_ACTIVATION_IDENTITY,
    CUDNN_ACTIVATION_SIGMOID,
    CUDNN_CONVOLUTION,
    CUDNN_CROSS_CORRELATION,
    CUDNN_NOT_PROPAGATE_NAN,
    CUDNN_POOLING_MAX,
    CUDNN_POOLING_MAX_DETERMINISTIC,
    CUDNN_PROPAGATE_NAN,
    CUDNN_TENSOR_NCHW,
)
from .errors import BAD_PARAM, CuDNNError
from .handles import get_data_type

_values = itertools.count(1)


class Descriptor:
    """What a descriptor was made of, by name, in `given`; value is a number of its own, and no address.

    >>> descriptor = cudnn.Descriptor(shape=(2, 3), dtype="float32")
    >>> descriptor.given
    {'shape': (2, 3), 'dtype': 'float32'}
    """

    def __init__(self, **given: Any) -> None:
        self.given = given
        self.value = next(_values)


def create_tensor_descriptor(arr: AnyArray, format: int = CUDNN_TENSOR_NCHW) -> Descriptor:
    """Return the descriptor of a C-contiguous array; format says something of four axes only.

    >>> cudnn.create_tensor_descriptor(np.zeros((2, 3, 8, 8), np.float32)).given["shape"]
    (2, 3, 8, 8)
    """
    floats(arr=arr)
    c_contiguous("arr", arr)
    return _of_array(arr, format)


def create_filter_descriptor(arr: AnyArray, format: int = CUDNN_TENSOR_NCHW) -> Descriptor:
    """Return the descriptor of filters; format says something of four axes only.

    >>> cudnn.create_filter_descriptor(np.zeros((4, 3, 2, 2), np.float32)).given["shape"]
    (4, 3, 2, 2)
    """
    floats(arr=arr)
    return _of_array(arr, format)


def create_tensor_nd_descriptor(arr: AnyArray) -> Descriptor:
    """Return the descriptor of a C-contiguous array of any number of axes; without elements its value is 0.

    >>> cudnn.create_tensor_nd_descriptor(np.zeros((2, 3, 4), np.float32)).given["shape"]
    (2, 3, 4)
    >>> cudnn.create_tensor_nd_descriptor(np.zeros((0, 3), np.float32)).value
    0
    """
    floats(arr=arr)
    descriptor = Descriptor(shape=tuple(arr.shape), dtype=arr.dtype)
    if arr.size:
        c_contiguous("arr", arr)
    else:
        descriptor.value = 0
    return descriptor


def create_uninitialized_tensor_descriptor() -> Descriptor:
    """Return a descriptor of nothing.

    >>> cudnn.create_uninitialized_tensor_descriptor().given
    {}
    """
    return Descriptor()


def create_convolution_descriptor(
    pad: tuple[int, ...],
    stride: tuple[int, ...],
    dtype: np.dtype,
    mode: int = CUDNN_CROSS_CORRELATION,
    dilation: tuple[int, ...] | None = None,
    use_tensor_core: bool = False,
    groups: int = 1,
) -> Descriptor:
    """Return the descriptor of a convolution's options.

    >>> descriptor = cudnn.create_convolution_descriptor((1, 1), (2, 2), np.dtype("float32"), groups=2)
    >>> descriptor.given["pad"], descriptor.given["stride"], descriptor.given["groups"]
    ((1, 1), (2, 2), 2)
    """
    tuples(pad=pad, stride=stride)
    if dilation is not None:
        tuples(pad=pad, dilation=dilation)
    get_data_type(dtype)
    _among("mode", mode, CUDNN_CONVOLUTION, CUDNN_CROSS_CORRELATION)
    options = {"dilation": dilation, "use_tensor_core": use_tensor_core, "groups": groups}
    return Descriptor(pad=pad, stride=stride, dtype=dtype, mode=mode, **options)


def create_pooling_descriptor(
    ksize: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...], mode: int
) -> Descriptor:
    """Return the descriptor of a pooling's options.

    >>> cudnn.create_pooling_descriptor((2, 2), (2, 2), (0, 0), cudnn.CUDNN_POOLING_MAX).given
    {'ksize': (2, 2), 'stride': (2, 2), 'pad': (0, 0), 'mode': 0}
    """
    tuples(ksize=ksize, stride=stride, pad=pad)
    _among("mode", mode, CUDNN_POOLING_MAX, CUDNN_POOLING_MAX_DETERMINISTIC)
    return Descriptor(ksize=ksize, stride=stride, pad=pad, mode=mode)


def create_activation_descriptor(mode: int, relu_nan_opt: int = CUDNN_PROPAGATE_NAN, coef: float = 0.0) -> Descriptor:
    """Return the descriptor of an activation; activation_forward is not told by it what becomes of NaN.

    >>> cudnn.create_activation_descriptor(cudnn.CUDNN_ACTIVATION_CLIPPED_RELU, coef=6).given["coef"]
    6.0
    """
    _among("mode", mode, CUDNN_ACTIVATION_SIGMOID, CUDNN_ACTIVATION_IDENTITY)
    _among("relu_nan_opt", relu_nan_opt, CUDNN_NOT_PROPAGATE_NAN, CUDNN_PROPAGATE_NAN)
    return Descriptor(mode=mode, relu_nan_opt=relu_nan_opt, coef=float(coef))


def create_dropout_descriptor(
    handle: int, dropout: float, states: int, state_size_in_bytes: int, seed: int
) -> Descriptor:
    """Return the descriptor of dropout; masks are drawn by DropoutStates, which needs neither states nor descriptor.

    >>> cudnn.create_dropout_descriptor(cudnn.get_handle(), 0.5, 0, 0, seed=1).given["dropout"]
    0.5
    """
    return Descriptor(
        handle=handle, dropout=float(dropout), states=states, state_size_in_bytes=state_size_in_bytes, seed=seed
    )


def set_dropout_descriptor(desc: Descriptor, handle: int, dropout: float) -> None:
    """Give a descriptor of dropout another ratio.

    >>> descriptor = cudnn.create_dropout_descriptor(cudnn.get_handle(), 0.5, 0, 0, seed=1)
    >>> cudnn.set_dropout_descriptor(descriptor, cudnn.get_handle(), 0.25)
    >>> descriptor.given["dropout"]
    0.25
    """
    desc.given |= {"handle": handle, "dropout": float(dropout)}


def create_dropout_states(handle: int) -> Any:
    """Return an array of no bytes, where nets and data are created: a seed alone determines masks.

    >>> cudnn.create_dropout_states(cudnn.get_handle()).nbytes
    0
    """
    del handle
    warnings.warn("create_dropout_states is deprecated: use DropoutStates", DeprecationWarning, stacklevel=2)
    return zeros((0,), np.int8)


def _of_array(arr: Any, format: int) -> Descriptor:
    if arr.ndim == 4:
        layout("format", format)
    return Descriptor(shape=tuple(arr.shape), dtype=arr.dtype, format=format)


def _among(name: str, value: int, least: int, most: int) -> None:
    if value not in range(least, most + 1):
        raise CuDNNError(BAD_PARAM, f"{name} must be from {least} to {most}, got {value!r}")
