"""PTX modules for the driver's stand-in: the emulator's translator makes C++ of them, g++ a library."""

from __future__ import annotations

import ctypes
import re
import sys
import traceback
from typing import Any

from emulate import build
from emulate.library import Library
from emulate.ptx_to_cpp import translate

_INVALID_PTX = 218
_COMPILE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_kept: list[Any] = []


def serve(driver: ctypes.CDLL) -> None:
    """Give the driver's stand-in the function that makes modules."""
    driver.standin_function.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_int),
        ctypes.c_int,
    ]

    def compile_module(ptx: bytes, module: int) -> int:
        try:
            _make(driver, ptx.decode(), module)
        except Exception:  # noqa: BLE001 - the caller is C
            sys.stderr.write(f"cupy-emulated: a PTX module cannot be translated\n{traceback.format_exc()}")
            return _INVALID_PTX
        return 0

    callback = _COMPILE(compile_module)
    _kept.append(callback)
    driver.standin_compiler(callback)


def _make(driver: ctypes.CDLL, ptx: str, module: int) -> None:
    symbols = re.findall(r"\.entry\s+([\w$]+)", ptx)
    cpp = translate(ptx, symbols).cpp
    library = Library(build.library(cpp, "module.ptx", symbols, (), "fast"))
    shared = sum(array.size for array in library.shared_arrays if array.name != build.DYNAMIC_SHARED)
    for name, found in library.kernels.items():
        sizes = (ctypes.c_int * len(found.sizes))(*found.sizes)
        path = str(library.path).encode()
        driver.standin_function(module, name.encode(), path, found.index, len(sizes), sizes, shared)
