"""Matrix products by cuBLAS, called so that a recording or a capture can hold them: CuPy's own calls refuse to be captured.

cuBLAS works in memory that it is given here for each product, new like any other array: a recording's lies in its own
memory, and products on two streams share none.  Eagerly and recorded it is the same call, so the same bits.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from typing import Any

from ..errors import SizeLimitError
from .recording import forbid

_MOST = 2**31 - 1
_MB = 2**20
_WORKSPACE, _WORKSPACE_SINCE_HOPPER = 4 * _MB, 32 * _MB  # what NVIDIA recommends for cublasSetWorkspace
_TF32 = 3  # CUBLAS_TF32_TENSOR_OP_MATH
_GEMM = {"f": ("cublasSgemm_v2", ctypes.c_float), "d": ("cublasDgemm_v2", ctypes.c_double)}


class Products:
    """The products of one GPU, which is the current one in every call."""

    def __init__(self, cupy: Any, arch: int) -> None:
        self._cupy = cupy
        self._workspace = _WORKSPACE_SINCE_HOPPER if arch >= 90 else _WORKSPACE
        self._threads = threading.local()

    def write(self, a: Any, b: Any, out: Any, *, tf32: bool = False) -> None:
        """Write a @ b into out: matrices of float32 or float64, C-contiguous, of which a and b may be transposed.

        tf32: cuBLAS may round factors of float32 to TF32; without, it does as the handle, which is CuPy's, is set.
        """
        (rows, inner), columns = a.shape, b.shape[1]
        if max(rows, inner, columns) > _MOST:
            msg = f"a matrix product counts to {_MOST}, got {tuple(a.shape)} @ {tuple(b.shape)}"
            raise SizeLimitError(msg)
        if not getattr(self._threads, "started", False):
            forbid("the first matrix product of a thread, which starts cuBLAS,", "do the work once before")
        cuda = self._cupy.cuda
        handle = cuda.device.get_cublas_handle()
        self._threads.started = True
        workspace = self._cupy.empty(self._workspace, "uint8")
        name, number = _GEMM[out.dtype.char]
        call = functools.partial(self._call, handle)
        stream = _pointer(cuda.get_current_stream().ptr)
        call("cublasSetStream_v2", stream)
        call("cublasSetWorkspace_v2", _pointer(workspace.data.ptr), ctypes.c_size_t(self._workspace))
        # cuBLAS stores by columns: what is asked for is the product of the transposed matrices, turned.
        turned = (ctypes.c_int(not _by_rows(b)), ctypes.c_int(not _by_rows(a)))
        sizes = (ctypes.c_int(columns), ctypes.c_int(rows), ctypes.c_int(inner))
        one, zero = ctypes.byref(number(1)), ctypes.byref(number(0))
        mode = ctypes.c_int()
        if tf32:
            call("cublasGetMathMode", ctypes.byref(mode))
            call("cublasSetMathMode", ctypes.c_int(_TF32))
        try:
            call(name, *turned, *sizes, one, *_matrix(b), *_matrix(a), zero, *_matrix(out))
        finally:
            if tf32:
                call("cublasSetMathMode", mode)
            call("cublasSetStream_v2", stream)  # takes the workspace back

    def _call(self, handle: int, name: str, *arguments: Any) -> None:
        cuda = self._cupy.cuda
        function = _library(cuda.cublas.__file__, cuda.runtime.runtimeGetVersion() // 1000)[name]
        status = function(_pointer(handle), *arguments)
        if status:
            raise cuda.cublas.CUBLASError(status)


def _by_rows(matrix: Any) -> bool:
    return bool(matrix.flags.c_contiguous)


def _matrix(matrix: Any) -> tuple[ctypes.c_void_p, ctypes.c_int]:
    """Return where a matrix lies, and the length of what it stores side by side."""
    return _pointer(matrix.data.ptr), ctypes.c_int(max(1, matrix.shape[1] if _by_rows(matrix) else matrix.shape[0]))


_pointer = ctypes.c_void_p


@functools.cache
def _library(module: str, cuda: int) -> ctypes.CDLL:
    """Return the cuBLAS that CuPy's module has loaded: found through it, on Windows by its name."""
    return ctypes.CDLL(f"cublas64_{cuda}.dll" if os.name == "nt" else module)
