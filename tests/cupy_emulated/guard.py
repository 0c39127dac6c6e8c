"""The guard mode's allocator for CuPy: every array is an allocation of its own, fresh and full of NaN.

CuPy's pool hands out memory again as it was left, and its blocks are longer than their arrays.  Here an array ends at a
page that nobody may touch, and its memory is gone when the stream that it was allocated on has come so far: who uses it
later, or on another stream without waiting, has an illegal access.
"""

from __future__ import annotations

import ctypes
import gc
import os
from typing import Any

_OUT_OF_MEMORY = 2


def use(driver: ctypes.CDLL) -> None:
    """Make CuPy allocate so."""
    import cupy
    from cupy.cuda.memory import OutOfMemoryError

    driver.standin_guarded_allocate.restype = ctypes.c_void_p
    driver.standin_guarded_allocate.argtypes = [ctypes.c_size_t, ctypes.c_uint64, ctypes.POINTER(ctypes.c_int)]
    driver.standin_guarded_release.argtypes = [ctypes.c_void_p]
    pool = cupy.get_default_memory_pool()
    sizes: dict[int, int] = {}
    owner = os.getpid()

    def allocate(size: int, device: int) -> int:
        limit = pool.get_limit()
        code = ctypes.c_int()
        for again in (True, False):
            if not limit or sum(sizes.values()) + size <= limit:
                stream = cupy.cuda.get_current_stream().ptr
                pointer = driver.standin_guarded_allocate(size, stream, ctypes.byref(code))
                if not code.value:
                    sizes[pointer or 0] = size
                    return pointer or 0
            if code.value not in (0, _OUT_OF_MEMORY):
                raise cupy.cuda.runtime.CUDARuntimeError(code.value)
            if again:
                gc.collect()  # as the pool does before it gives up
        raise OutOfMemoryError(size, sum(sizes.values()), limit)

    def release(pointer: int, device: int) -> None:
        if os.getpid() == owner:
            sizes.pop(pointer, None)
            driver.standin_guarded_release(pointer)

    allocator: Any = cupy.cuda.PythonFunctionAllocator(allocate, release)
    cupy.cuda.set_allocator(allocator.malloc)
