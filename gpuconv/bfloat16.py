"""The dtype bfloat16, float32's range in 16 bits: NumPy has it from the package ml_dtypes alone, and CuPy from there."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from . import extras
from .errors import UnsupportedError

NAME = "bfloat16"


def is_bfloat16(dtype: Any) -> bool:
    """Return whether a dtype is bfloat16: nothing is imported to know."""
    return isinstance(dtype, np.dtype) and dtype.itemsize == 2 and dtype.name == NAME


@functools.cache
def found() -> np.dtype | None:
    """Return the dtype; None where ml_dtypes is not installed."""
    try:
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError:
        return None


def bfloat16() -> np.dtype:
    """Return the dtype; raise UnsupportedError, saying what to install, where ml_dtypes is not installed."""
    dtype = found()
    if dtype is None:
        msg = f"bfloat16 needs the package ml_dtypes, whose dtype NumPy and CuPy take: {extras.install(NAME)}"
        raise UnsupportedError(msg)
    return dtype


def narrow_dtype(name: str) -> np.dtype:
    """Return the dtype of 16 bits that is named, float16 or bfloat16."""
    return bfloat16() if name == NAME else np.dtype(name)
