"""The border between a notebook's NumPy arrays and the operators: one dtype, and the place where they run.

A function under `forward` or `backward` gets arrays of one float dtype, the one NumPy promotes them to, where
gpuconv.use says; its results come back as NumPy arrays.  On the way back a GPU is waited for, so a notebook's timings
are those of the work.  Called from another such function with arrays that are on the GPU already, it leaves the results
there: a sandwich or a net crosses the border twice, however many layers it has.

Arrays are read anew at every call, since gradient checks change them in place.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backend

_DOUBLE = np.dtype(np.float64)


def float_type(*arrays: Any) -> np.dtype:
    """Return the dtype that NumPy promotes the arrays to; float64 if that is none that operators know."""
    dtype = np.result_type(*(a.dtype if backend.on_gpu(a) else a for a in arrays)).newbyteorder("=")
    return dtype if dtype.kind == "f" and dtype.itemsize <= _DOUBLE.itemsize else _DOUBLE


def inward(*arrays: Any) -> list[Any]:
    """Return arrays in one float dtype where the operators run: beside those that are on a GPU already, if any."""
    there = next((a for a in arrays if backend.on_gpu(a)), None)
    dtype = float_type(*arrays) if there is None else there.dtype
    return [_moved(a, dtype, there) for a in arrays]


def beside(there: Any, array: Any) -> Any:
    """Return an array in the dtype and the place of another."""
    return _moved(array, there.dtype, there)


def labels_beside(there: Any, labels: Any) -> Any:
    """Return class labels as 64-bit integers in the place of an array."""
    return labels if backend.on_gpu(labels) else backend.asarray(np.asarray(labels).astype(np.int64), beside=there)


def outward(array: Any) -> Any:
    """Return an array on the host; None and NumPy arrays as they are."""
    return None if array is None else backend.asnumpy(array)


def forward(function: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    """Let a forward, which returns (out, cache), take arrays from either side of the border."""

    @functools.wraps(function)
    def across(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        given = [value for value in (*args, *kwargs.values()) if _is_array(value)]
        moved = iter(inward(*given))
        args = tuple(next(moved) if _is_array(value) else value for value in args)
        kwargs = {name: next(moved) if _is_array(value) else value for name, value in kwargs.items()}
        out, cache = function(*args, **kwargs)
        return (out if any(map(backend.on_gpu, given)) else outward(out)), cache

    return across


def backward(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a backward, which takes (dout, cache) and returns gradients, take dout from either side of the border.

    dout is cast to the dtype that the forward computed in, which is also that of the gradients.
    """

    @functools.wraps(function)
    def across(dout: Any, cache: Any, **kwargs: Any) -> Any:
        there = _first_array(cache)
        if backend.on_gpu(there):
            moved = beside(there, dout)
        else:  # the CPU's cache, or one that a notebook has made of its own arrays, which will move with dout
            moved = _moved(dout, float_type(dout if there is None else there), None)
        grads = function(moved, cache, **kwargs)
        if backend.on_gpu(dout):
            return grads
        return tuple(map(outward, grads)) if isinstance(grads, tuple) else outward(grads)

    return across


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, list)) or backend.on_gpu(value)


def _moved(array: Any, dtype: np.dtype, there: Any) -> Any:
    """Return an array in a dtype, beside another one or, with None, where gpuconv.use says."""
    if backend.on_gpu(array):
        return array
    return backend.asarray(np.asarray(array).astype(dtype, copy=False), beside=there)


def _first_array(cache: Any) -> Any:
    """Return the first array in a cache, which says where its forward ran; None if there is none."""
    if _is_array(cache):
        return cache
    parts: Any = ()
    if isinstance(cache, tuple):
        parts = cache
    elif dataclasses.is_dataclass(cache):
        parts = (getattr(cache, field.name) for field in dataclasses.fields(cache))
    return next((found for found in map(_first_array, parts) if found is not None), None)
