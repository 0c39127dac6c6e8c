"""TMA tensor maps from one description: the real CUtensorMap (libcuda through ctypes) or the emulator's.

    m = TensorMap.tiled(x, box=(64, 128), swizzle=128)                       # x: C-contiguous NumPy or CuPy array, or give dims and strides
    m = TensorMap.im2col(x, lower=(-1, -1), upper=(-1, -1), channels=64, pixels=128, strides=(1, 1), swizzle=128)   # x: NHWC; corners (w, h)
    kernel(grid, block, (m, ...))          # emulator: pass the object;  GPU: pass m.device()

Everything is in TMA order, innermost dimension first.  All that cuTensorMapEncode* would refuse is refused here, with words,
and so are the corners of the format that were never verified on hardware (see "unverified").
"""

import ctypes as C
import struct
from dataclasses import dataclass

import numpy as np

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
_SWIZZLE = {0: 0, 32: 1, 64: 2, 128: 3}
_PROMOTE = {0: 0, 64: 1, 128: 2, 256: 3}
MAGIC = 0x50414D54


def _need(ok, text):
    if not ok:
        raise ValueError("tensor map: " + text)


@dataclass
class TensorMap:
    array: object  # keeps the memory alive
    dtype: str  # a name of _TYPES
    dims: tuple  # elements, innermost first
    strides: tuple  # bytes, of dimensions 1.. (the innermost one is contiguous)
    box: tuple = ()  # tiled
    element_strides: tuple = ()
    swizzle: int = 0  # bytes
    l2_promotion: int = 0  # bytes
    writable: bool = False  # the kernel stores through this map
    lower: tuple = ()  # im2col: bounding box corners, (w, [h, [d]])
    upper: tuple = ()
    channels: int = 0
    pixels: int = 0
    offset: int = 0  # bytes from the start of array

    @classmethod
    def _of(cls, array, dtype, dims, strides, **kw):
        dtype = dtype or {"uint16": "bfloat16"}.get(str(array.dtype), str(array.dtype))
        if dims is None:
            _need(array.flags.c_contiguous, "the array is not C-contiguous: give dims and strides")
            dims, strides = tuple(reversed(array.shape)), tuple(reversed(array.strides[:-1]))
        m = cls(array, dtype, tuple(int(d) for d in dims), tuple(int(s) for s in strides), **kw)
        m.element_strides = tuple(m.element_strides) or (1,) * len(m.dims)
        m._check()
        return m

    @classmethod
    def tiled(
        cls, array, box, *, dtype=None, dims=None, strides=None, swizzle=0, l2_promotion=128, writable=False, offset=0
    ):
        return cls._of(
            array,
            dtype,
            dims,
            strides,
            box=tuple(box),
            swizzle=swizzle,
            l2_promotion=l2_promotion,
            writable=writable,
            offset=offset,
        )

    @classmethod
    def im2col(cls, array, *, lower, upper, channels, pixels, strides=None, dtype=None, swizzle=0, l2_promotion=128):
        es = (1,) + tuple(strides or (1,) * len(lower)) + (1,)
        return cls._of(
            array,
            dtype,
            None,
            None,
            lower=tuple(lower),
            upper=tuple(upper),
            channels=channels,
            pixels=pixels,
            element_strides=es,
            swizzle=swizzle,
            l2_promotion=l2_promotion,
        )

    @property
    def bytes(self):
        """What one load adds to the transaction count (out-of-bounds elements count too)."""
        return int(np.prod(self.box if self.box else (self.channels, self.pixels))) * _TYPES[self.dtype][1]

    def _check(self):
        _need(self.dtype in _TYPES, "unknown dtype %r" % self.dtype)
        es, n = _TYPES[self.dtype][1], len(self.dims)
        _need(
            1 <= n <= 5 and len(self.strides) == n - 1 and len(self.element_strides) == n,
            "rank %d with %d strides" % (n, len(self.strides)),
        )
        _need(all(1 <= d <= 2**32 for d in self.dims), "dims %s must be in 1..2^32" % (self.dims,))
        _need(
            all(s % 16 == 0 and 0 < s < 2**40 for s in self.strides),
            "strides %s must be multiples of 16 bytes: pad the inner dimension" % (self.strides,),
        )
        last = (
            self.offset + (self.dims[0] - 1) * es + sum((d - 1) * s for d, s in zip(self.dims[1:], self.strides)) + es
        )
        _need(
            self.offset >= 0 and self.offset % 16 == 0 and last <= self.array.nbytes,
            "the map reaches byte %d of an array of %d bytes" % (last, self.array.nbytes),
        )
        _need(self.swizzle in _SWIZZLE, "swizzle %r" % self.swizzle)
        inner = (self.box[0] if self.box else self.channels) * es
        _need(inner % 16 == 0, "inner box of %d bytes is not a multiple of 16" % inner)
        if self.swizzle:
            _need(inner <= self.swizzle, "inner box of %d bytes exceeds the %d-byte swizzle" % (inner, self.swizzle))
            _need(
                inner == self.swizzle,
                "unverified: inner box of %d bytes narrower than the %d-byte swizzle" % (inner, self.swizzle),
            )
        if self.box:
            _need(
                len(self.box) == n and all(1 <= b <= 256 for b in self.box),
                "box %s: %d entries in 1..256 wanted" % (self.box, n),
            )
            _need(all(s == 1 for s in self.element_strides), "unverified: element strides in tiled mode")
        else:
            _need(
                3 <= n <= 5 and len(self.lower) == len(self.upper) == n - 2, "im2col wants rank 3..5 and rank-2 corners"
            )
            lim = {3: 2**15, 4: 2**7, 5: 2**4}[n]
            _need(
                all(-lim <= c < lim for c in self.lower + self.upper),
                "corners %s %s outside [-%d, %d)" % (self.lower, self.upper, lim, lim),
            )
            _need(1 <= self.channels <= 256 and 1 <= self.pixels <= 1024, "channels in 1..256, pixels in 1..1024")
            _need(
                self.element_strides[0] == self.element_strides[-1] == 1
                and all(1 <= s <= 8 for s in self.element_strides),
                "traversal strides in 1..8",
            )
            _need(all(d + u - l >= 1 for d, u, l in zip(self.dims[1:-1], self.upper, self.lower)), "empty bounding box")
            _need(not self.writable, "im2col maps are for loads")

    def emulated(self, base):
        """The 128 bytes the emulator reads; base = address of the array."""
        pad = lambda t, k: tuple(t) + (0,) * (k - len(t))
        return struct.pack(
            "<IBBBBQ5I5HHH5Bx3h3hI4Q",
            MAGIC,
            0 if self.box else 1,
            len(self.dims),
            _TYPES[self.dtype][1],
            _SWIZZLE[self.swizzle],
            base + self.offset,
            *pad(self.dims, 5),
            *pad(self.box, 5),
            self.channels,
            self.pixels,
            *pad(self.element_strides, 5),
            *pad(self.lower, 3),
            *pad(self.upper, 3),
            0,
            *pad(self.strides, 4),
        ).ljust(128, b"\0")

    def device(self, libcuda=None):
        """The real CUtensorMap as a 128-byte NumPy void scalar, for a CuPy kernel argument."""
        lib = libcuda or C.CDLL("libcuda.so.1")
        raw = (C.c_char * 192)()
        at = (C.addressof(raw) + 63) // 64 * 64
        n = len(self.dims)
        a64, a32, i32 = (
            lambda t: (C.c_uint64 * max(1, len(t)))(*t),
            lambda t: (C.c_uint32 * len(t))(*t),
            lambda t: (C.c_int32 * len(t))(*t),
        )
        ptr = self.array.data.ptr if hasattr(self.array.data, "ptr") else self.array.ctypes.data
        head = [
            C.c_void_p(at),
            C.c_int(_TYPES[self.dtype][0]),
            C.c_uint32(n),
            C.c_void_p(ptr + self.offset),
            a64(self.dims),
            a64(self.strides),
        ]
        tail = [
            a32(self.element_strides),
            C.c_int(0),
            C.c_int(_SWIZZLE[self.swizzle]),
            C.c_int(_PROMOTE[self.l2_promotion]),
            C.c_int(0),
        ]
        if self.box:
            rc = lib.cuTensorMapEncodeTiled(*head, a32(self.box), *tail)
        else:
            rc = lib.cuTensorMapEncodeIm2col(
                *head, i32(self.lower), i32(self.upper), C.c_uint32(self.channels), C.c_uint32(self.pixels), *tail
            )
        if rc:
            raise RuntimeError(
                "cuTensorMapEncode%s failed with CUDA error %d" % ("Tiled" if self.box else "Im2col", rc)
            )
        return np.frombuffer(C.string_at(at, 128), "V128")[0]
