"""Memory formats of arrays, and the types sums are kept in."""

from __future__ import annotations

import numpy as np

from ..shapes import is_channels_last
from .memory import empty_array
from .parallel import scratch


def accumulator(dtype: np.dtype) -> np.dtype:
    """Return the dtype that sums of this dtype are kept in: float64 for float64, else float32."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def places_type(places: int) -> np.dtype:
    """Return the dtype that counts the places of a window: a byte where it has room for them."""
    return np.dtype(np.uint8 if places <= 256 else np.int32)


def empty(shape: tuple[int, ...], dtype: np.dtype, *, channels_last: bool) -> np.ndarray:
    """Return an uninitialised (N, C, H, W) or (N, C, D, H, W) array, stored with C last where channels_last."""
    if not channels_last:
        return empty_array(shape, dtype)
    return _channels_second(empty_array((shape[0], *shape[2:], shape[1]), dtype))


def empty_as(x: np.ndarray) -> np.ndarray:
    """Return an uninitialised array of the shape, dtype and memory format of x."""
    if x.ndim != 4:
        return empty_array(x.shape, x.dtype)
    N, C, H, W = x.shape
    return empty((N, C, H, W), x.dtype, channels_last=is_channels_last(x))


def scratch_images(slot: str, shape: tuple[int, ...], dtype: np.dtype, *, channels_last: bool) -> np.ndarray:
    """Return scratch memory as an (N, C, H, W) or (N, C, D, H, W) array in the given memory format."""
    if not channels_last:
        return scratch(slot, shape, dtype)
    return _channels_second(scratch(slot, (shape[0], *shape[2:], shape[1]), dtype))


def _channels_second(array: np.ndarray) -> np.ndarray:
    """Return a view of an array with its last axis, the channels, after the batch."""
    return array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))


def scratch_like(slot: str, like: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return scratch memory of the shape and memory format of an array of images or volumes."""
    return scratch_images(slot, like.shape, dtype, channels_last=is_channels_last(like))


def stored_order(*arrays: np.ndarray) -> list[np.ndarray] | None:
    """Return the arrays as flat views in their order of storage if they share one without gaps; else None."""
    first = arrays[0]
    if all(a.flags.c_contiguous for a in arrays):
        return [a.reshape(-1) for a in arrays]
    if first.ndim == 4:
        turned = [a.transpose(0, 2, 3, 1) for a in arrays]
        if all(a.flags.c_contiguous for a in turned):
            return [a.reshape(-1) for a in turned]
    return None


def stored(like: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    """Return arrays in the memory format of one, axes in their order of storage, without gaps: copied if need be."""
    if like.ndim > 3 and is_channels_last(like):
        arrays = tuple(array.transpose(0, *range(2, like.ndim), 1) for array in arrays)
    return [array if array.flags.carray else np.require(array, requirements=("C", "A")) for array in arrays]
