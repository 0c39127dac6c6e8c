"""Types of arrays in signatures: of NumPy arrays a function returns NumPy arrays, and of CuPy arrays CuPy arrays.

CuPy is known by what its arrays have, for it need not be there.  It comes without types: to a type checker its arrays are
Any, and so is what a function returns of them; with stubs of one's own they are a GpuArray.

    def smoothed(x: Array) -> Array:
        y, cache = gpuconv.average_pool_forward(x, window=3, stride=1, pad=1)
        return y
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

__all__ = ["AnyArray", "Array", "GpuArray", "Gradient"]


class GpuArray(Protocol):
    """An array on a GPU, as gpuconv looks at it."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def ndim(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def strides(self) -> tuple[int, ...]: ...

    @property
    def flags(self) -> Any: ...

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...

    def __getitem__(self, key: Any) -> Any: ...

    def get(self) -> np.ndarray: ...


# The arrays of one call that share a place and a dtype; what comes out is of the same library.
Array = TypeVar("Array", np.ndarray, GpuArray)

# An array beside those, in their place and maybe of another dtype: labels, say.
AnyArray: TypeAlias = np.ndarray | GpuArray

# The gradient for an Array, or None where none was asked for: which of the two, no checker can tell, so it lets both pass.
Gradient: TypeAlias = Array | Any
