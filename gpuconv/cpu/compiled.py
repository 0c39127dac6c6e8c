"""Which form of an operator's passes over memory runs: loops compiled by Numba where they can be had, else NumPy's.

Both are modules of the operator's name, in gpuconv/cpu/loops and gpuconv/cpu/arrays, with the same functions.  The loops
are of float32; whatever else an operator's loops do not serve, its own file says.

GPUCONV_COMPILED=0 keeps to NumPy, =1 makes it an error where loops cannot be had.  Numba takes some tenths of a second to
import, so that waits for the first call it can serve.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
from types import ModuleType

import numpy as np

from .. import extras
from ..errors import ConfigError

_FLOAT32 = np.dtype(np.float32)
_log = logging.getLogger("gpuconv")


def passes(operator: str, dtype: np.dtype, *, served: bool = True) -> ModuleType:
    """Return the passes of an operator over arrays of a dtype; served: whether its loops know the case at all."""
    if served and dtype == _FLOAT32 and wanted():
        loops = _loops(operator)
        if loops is not None:
            return loops
    return _arrays(operator)


def wanted() -> bool:
    """Return whether loops run where there are any; raise ConfigError for a setting that is none or cannot be met."""
    setting = os.environ.get("GPUCONV_COMPILED", "")
    if setting == "0":
        return False
    if setting not in ("", "1"):
        msg = f"GPUCONV_COMPILED must be 0 or 1, got {setting!r}"
        raise ConfigError(msg)
    obstacle = _obstacle()
    if obstacle and setting == "1":
        msg = f"GPUCONV_COMPILED=1 asks for compiled loops, but {obstacle}"
        raise ConfigError(msg)
    return not obstacle


def loaded() -> bool:
    """Return whether loops have been asked for in this process: what can do without Numba does not import it."""
    return f"{__package__}.loops.jit" in sys.modules


def in_words() -> str:
    """Return which form runs here, as "compiled loops, numba 0.68.1, 256-bit vectors" or "NumPy alone".

    Where these words are the same, so are the bits, as far as it depends on the passes.
    """
    if not wanted():
        return "NumPy alone"
    jit = importlib.import_module(f"{__package__}.loops.jit")
    return f"compiled loops, numba {importlib.metadata.version('numba')}, {jit.vector_bits()}-bit vectors"


@functools.cache
def _obstacle() -> str:
    """Return why there are no compiled loops in this process, in words; empty where there are."""
    if importlib.util.find_spec("numba") is None:
        return f"numba is not installed: {extras.install('fast')}"
    try:
        importlib.import_module(f"{__package__}.loops.jit")
    except Exception as error:  # noqa: BLE001 - a numba that does not go with this NumPy says so in many ways
        obstacle = f"numba cannot be used ({error})"
        if os.environ.get("GPUCONV_COMPILED") != "1":  # which makes it an error
            _log.warning("gpuconv computes with NumPy alone: %s", obstacle)
        return obstacle
    return ""


@functools.cache
def _loops(operator: str) -> ModuleType | None:
    """Return the loops of an operator, compiled while their module is imported: Python lets one thread do so."""
    jit = importlib.import_module(f"{__package__}.loops.jit")
    try:
        with jit.compiling(operator):
            return importlib.import_module(f"{__package__}.loops.{operator}")
    except Exception as error:
        if os.environ.get("GPUCONV_COMPILED") == "1":
            raise
        _log.warning("gpuconv computes %s with NumPy alone: its loops do not compile here (%s)", operator, error)
        return None


@functools.cache
def _arrays(operator: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.arrays.{operator}")
