"""PTX modules for the driver's stand-in: the emulator's translator makes C++ of them, g++ a library."""

from __future__ import annotations

import ctypes
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from emulate import BuildError, build
from emulate.library import Library
from emulate.ptx_operands import PtxError
from emulate.ptx_to_cpp import translate

_INVALID_PTX = 218
_COMPILE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_kept: list[Any] = []


class _Variable(ctypes.Structure):
    """As in the emulator's runtime/ptx_variables.hpp."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("bytes", ctypes.c_uint64),
        ("first", ctypes.c_void_p),
        ("used", ctypes.c_uint64),
    )


def serve(driver: ctypes.CDLL) -> None:
    """Give the driver's stand-in the function that makes modules."""
    driver.standin_variable.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
    ]
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
            return _make(driver, ptx.decode(), module)
        except (BuildError, PtxError) as error:
            sys.stderr.write(f"cupy-emulated: a module of PTX cannot be translated: {error}\n")
        except Exception:  # noqa: BLE001 - the caller is C
            sys.stderr.write(f"cupy-emulated: a module of PTX cannot be translated\n{traceback.format_exc()}")
        return _INVALID_PTX

    callback = _COMPILE(compile_module)
    _kept.append(callback)
    driver.standin_compiler(callback)


def _make(driver: ctypes.CDLL, ptx: str, module: int) -> int:
    symbols = re.findall(r"\.entry\s+([\w$]+)", ptx)
    cpp = translate(ptx, symbols, placed=True).cpp
    library = Library(build.library(cpp, "module.ptx", symbols, (), "fast"))
    handle = ctypes.CDLL(str(library.path))
    for variable in _variables(handle) if "EMULATE_VARIABLES(" in cpp else ():
        code = driver.standin_variable(module, variable.name, variable.first, variable.bytes, variable.used)
        if code:
            return code
    shared = sum(array.size for array in library.shared_arrays if array.name != build.DYNAMIC_SHARED)
    path = str(library.path).encode()
    for name, found in library.kernels.items():
        sizes = (ctypes.c_int * len(found.sizes))(*found.sizes)
        driver.standin_function(module, name.encode(), path, found.index, len(sizes), sizes, shared)
    return 0


def _variables(handle: ctypes.CDLL) -> Iterator[_Variable]:
    """Yield the variables of a library that has any."""
    at = ctypes.addressof(_Variable.in_dll(handle, "emulate_variables"))
    while True:
        one = _Variable.from_address(at)
        if not one.name:
            return
        yield one
        at += ctypes.sizeof(_Variable)
