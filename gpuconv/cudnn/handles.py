"""What callers of cupy.cudnn ask and set beside their calculations."""

from __future__ import annotations

import numpy as np

from .constants import CUDNN_DATA_DOUBLE, CUDNN_DATA_FLOAT, CUDNN_DATA_HALF

_DATA_TYPES = {"f": CUDNN_DATA_FLOAT, "d": CUDNN_DATA_DOUBLE, "e": CUDNN_DATA_HALF}
_workspace = {"size": 8 * 1024 * 1024}


def get_handle() -> int:
    """Return a number for functions that want a handle; none of them does anything with it.

    >>> cudnn.get_handle()
    1
    """
    return 1


def reset_handles() -> None:
    """Do nothing: a handle is only a number.

    >>> cudnn.reset_handles()
    >>> cudnn.get_handle()
    1
    """


def get_max_workspace_size() -> int:
    """Return what set_max_workspace_size was given, or 8 MiB.

    >>> cudnn.get_max_workspace_size()
    8388608
    """
    return _workspace["size"]


def set_max_workspace_size(size: int) -> None:
    """Keep a number of bytes for get_max_workspace_size; it chooses among cuDNN's algorithms, which are not here.

    >>> before = cudnn.get_max_workspace_size()
    >>> cudnn.set_max_workspace_size(1024)
    >>> cudnn.get_max_workspace_size()
    1024
    >>> cudnn.set_max_workspace_size(before)
    """
    _workspace["size"] = int(size)


def get_data_type(dtype: np.dtype) -> int:
    """Return cuDNN's number of a dtype.

    >>> cudnn.get_data_type(np.dtype("float16")) == cudnn.CUDNN_DATA_HALF
    True
    """
    if dtype.char not in _DATA_TYPES:
        msg = f"dtype must be float16, float32 or float64, got {dtype}"
        raise TypeError(msg)
    return _DATA_TYPES[dtype.char]


def is_tensor_core_available(dtype: np.dtype) -> bool:
    """Return False: tensor_core changes nothing.

    >>> cudnn.is_tensor_core_available(np.dtype("float16"))
    False
    """
    del dtype
    return False
