"""Tensor maps for TMA from one description: the emulator's, or the real CUtensorMap through libcuda.

Everything is in TMA's order, the innermost dimension first.  What cuTensorMapEncode* would refuse is refused here, with
words, and so is what has not been tried on hardware ("untried").
"""

from __future__ import annotations

import ctypes
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

# Name -> (CUtensorMapDataType, bytes of an element).
_TYPES = {
    "uint8": (0, 1),
    "uint16": (1, 2),
    "uint32": (2, 4),
    "int32": (3, 4),
    "float16": (6, 2),
    "float32": (7, 4),
    "float64": (8, 8),
    "bfloat16": (9, 2),
    "tfloat32": (11, 4),
}
_SWIZZLES = {0: 0, 32: 1, 64: 2, 128: 3}  # bytes -> CUtensorMapSwizzle
_PROMOTIONS = {0: 0, 64: 1, 128: 2, 256: 3}  # bytes -> CUtensorMapL2promotion
_CORNER_LIMITS = {3: 2**15, 4: 2**7, 5: 2**4}  # by rank
_MAGIC = 0x50414D54  # as TENSOR_MAP_MAGIC in runtime/state.hpp


def _require(condition: bool, message: str) -> None:
    if not condition:
        msg = f"tensor map: {message}"
        raise ValueError(msg)


@dataclass(frozen=True, eq=False)
class TensorMap:
    """How TMA finds boxes (tiled) or pixels of a bounding box (im2col) of an array; made by `tiled` and `im2col`."""

    array: Any
    dtype: str  # a name of _TYPES
    sizes: tuple[int, ...]  # elements
    strides: tuple[int, ...]  # bytes, of all dimensions but the innermost
    steps: tuple[int, ...]  # im2col: the strides of the convolution
    box: tuple[int, ...] = ()  # tiled
    lower: tuple[int, ...] = ()  # im2col: corners of the bounding box, (w, [h, [d]])
    upper: tuple[int, ...] = ()
    channels: int = 0
    pixels: int = 0
    swizzle: int = 0  # bytes
    l2_promotion: int = 128  # bytes
    writable: bool = False  # the kernel stores through this map

    @classmethod
    def tiled(
        cls, array: Any, box: tuple[int, ...], *, dtype: str | None = None, swizzle: int = 0, writable: bool = False
    ) -> TensorMap:
        """Return a map for boxes of a C-contiguous array."""
        steps = (1,) * array.ndim
        return cls(array, *_described(array, dtype), steps, box=box, swizzle=swizzle, writable=writable)._checked()

    @classmethod
    def im2col(
        cls,
        array: Any,
        *,
        lower: tuple[int, ...],
        upper: tuple[int, ...],
        channels: int,
        pixels: int,
        strides: tuple[int, ...] | None = None,
        swizzle: int = 0,
        l2_promotion: int = 128,
    ) -> TensorMap:
        """Return a map for the pixels of a channels-last array that a filter's corner visits."""
        return cls(
            array,
            *_described(array, None),
            (1, *(strides or (1,) * len(lower)), 1),
            lower=lower,
            upper=upper,
            channels=channels,
            pixels=pixels,
            swizzle=swizzle,
            l2_promotion=l2_promotion,
        )._checked()

    @property
    def element_bytes(self) -> int:
        return _TYPES[self.dtype][1]

    @property
    def bytes(self) -> int:
        """Return what one load adds to an mbarrier's transaction count, elements outside the array included."""
        return math.prod(self.box or (self.channels, self.pixels)) * self.element_bytes

    def _checked(self) -> TensorMap:
        rank = len(self.sizes)
        _require(1 <= rank <= 5, f"rank {rank}")
        _require(all(1 <= size < 2**32 for size in self.sizes), f"sizes {self.sizes} must be below 2^32")
        _require(
            all(stride % 16 == 0 and 0 < stride < 2**40 for stride in self.strides),
            f"strides {self.strides} must be multiples of 16 bytes: pad the inner dimension",
        )
        _require(self.swizzle in _SWIZZLES, f"swizzle {self.swizzle}")
        inner = (self.box[0] if self.box else self.channels) * self.element_bytes
        _require(inner % 16 == 0, f"inner box of {inner} bytes is not a multiple of 16")
        if self.swizzle:
            _require(inner <= self.swizzle, f"inner box of {inner} bytes exceeds the {self.swizzle}-byte swizzle")
            _require(
                inner == self.swizzle,
                f"untried: inner box of {inner} bytes narrower than the {self.swizzle}-byte swizzle",
            )
        if self.box:
            in_range = len(self.box) == rank and all(1 <= size <= 256 for size in self.box)
            _require(in_range, f"box {self.box}: {rank} entries in 1..256 wanted")
        else:
            self._check_im2col(rank)
        return self

    def _check_im2col(self, rank: int) -> None:
        corners = self.lower + self.upper
        _require(3 <= rank <= 5 and len(corners) == 2 * (rank - 2), "im2col wants rank 3..5 and corners of rank - 2")
        limit = _CORNER_LIMITS[rank]
        _require(all(-limit <= c < limit for c in corners), f"corners {corners} outside [-{limit}, {limit})")
        _require(1 <= self.channels <= 256 and 1 <= self.pixels <= 1024, "channels in 1..256, pixels in 1..1024")
        _require(len(self.steps) == rank and all(1 <= s <= 8 for s in self.steps), "traversal strides in 1..8")
        inside = zip(self.sizes[1:-1], self.lower, self.upper, strict=True)
        _require(all(size + up - low >= 1 for size, low, up in inside), "empty bounding box")

    def emulated(self, base: int) -> bytes:
        """Return the 128 bytes that the emulator reads; base is the address of the array."""

        def padded(values: tuple[int, ...], count: int) -> tuple[int, ...]:
            return (*values, *(0,) * (count - len(values)))

        packed = struct.pack(
            "<IBBBBQ5I5HHH5Bx3h3hI4Q",
            _MAGIC,
            0 if self.box else 1,
            len(self.sizes),
            self.element_bytes,
            _SWIZZLES[self.swizzle],
            base,
            *padded(self.sizes, 5),
            *padded(self.box, 5),
            self.channels,
            self.pixels,
            *padded(self.steps, 5),
            *padded(self.lower, 3),
            *padded(self.upper, 3),
            0,
            *padded(self.strides, 4),
        )
        return packed.ljust(128, b"\0")

    def device(self, libcuda: Any = None) -> np.void:
        """Return the real CUtensorMap as a kernel argument of 128 bytes."""
        library = libcuda or ctypes.CDLL("libcuda.so.1")
        room = (ctypes.c_char * 192)()
        aligned = -(-ctypes.addressof(room) // 64) * 64
        memory = self.array.data
        address = memory.ptr if hasattr(memory, "ptr") else self.array.ctypes.data
        first = [
            ctypes.c_void_p(aligned),
            ctypes.c_int(_TYPES[self.dtype][0]),
            ctypes.c_uint32(len(self.sizes)),
            ctypes.c_void_p(address),
            _c_array(ctypes.c_uint64, self.sizes),
            _c_array(ctypes.c_uint64, self.strides),
        ]
        last = [
            _c_array(ctypes.c_uint32, self.steps),
            ctypes.c_int(0),  # no interleaving
            ctypes.c_int(_SWIZZLES[self.swizzle]),
            ctypes.c_int(_PROMOTIONS[self.l2_promotion]),
            ctypes.c_int(0),  # zeros outside the array
        ]
        if self.box:
            name, middle = "cuTensorMapEncodeTiled", [_c_array(ctypes.c_uint32, self.box)]
        else:
            name = "cuTensorMapEncodeIm2col"
            corners = [_c_array(ctypes.c_int32, self.lower), _c_array(ctypes.c_int32, self.upper)]
            middle = [*corners, ctypes.c_uint32(self.channels), ctypes.c_uint32(self.pixels)]
        failed = getattr(library, name)(*first, *middle, *last)
        if failed:
            msg = f"{name} failed with CUDA error {failed}"
            raise RuntimeError(msg)
        return np.frombuffer(ctypes.string_at(aligned, 128), "V128")[0]


def _described(array: Any, dtype: str | None) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """Return type, sizes and outer strides of a C-contiguous array; uint16 holds the bits of bfloat16."""
    _require(array.flags.c_contiguous, "the array is not C-contiguous")
    name = dtype or {"uint16": "bfloat16"}.get(str(array.dtype), str(array.dtype))
    _require(name in _TYPES, f"unknown dtype {name}")
    sizes = tuple(reversed(array.shape))
    # Of an axis of one element NumPy's stride may be anything.
    return name, sizes, tuple(array.itemsize * math.prod(sizes[: i + 1]) for i in range(len(sizes) - 1))


def _c_array(kind: Any, values: tuple[int, ...]) -> Any:
    return (kind * max(1, len(values)))(*values)
